/**
 * OpenTelemetry traces, where OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is set; nothing of the packages is
 * loaded otherwise. In: what has ended: transactions, token fetches. Out: spans by OTLP/HTTP. Spans are made
 * afterwards, of the times that are measured anyway: mail never waits for a collector, and what it does not
 * take is thrown away. No address stands in a span but the account's id. The one file that knows the packages.
 */
import { createRequire } from 'node:module';
import { type Clock, orAfter, systemClock } from './clock.ts';
import type { Log } from './log.ts';

/** A transaction that ended; times in ms. */
export interface TracedTransaction {
  readonly id: string;
  readonly sessionId: string;
  /** Start, since the epoch. */
  readonly at: number;
  readonly account: string;
  readonly provider: string;
  readonly way: string;
  readonly outcome: string;
  readonly reply: { readonly code: number } | undefined;
  readonly decidedBy: string;
  readonly recipients: readonly unknown[];
  readonly bytes: number;
  readonly flights: number;
  readonly flightTimes?:
    | readonly { readonly carries: string; readonly at: number; readonly ms: number | undefined }[]
    | undefined;
  readonly reused: boolean;
  readonly replayed: boolean;
  readonly gateMs: number;
  readonly acquireMs: number;
  readonly upstreamMs: number;
  readonly totalMs: number;
}

/** A token fetch that ended now. */
export interface TracedFetch {
  readonly account: string;
  readonly provider: string;
  readonly result: string;
  readonly durationMs: number;
}

export interface Tracing {
  transaction(record: TracedTransaction): void;
  tokenFetch(fetch: TracedFetch): void;
  /** Gives the collector a moment for what is left. Never rejects. */
  close(): Promise<void>;
}

export interface TracingOptions {
  readonly version: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly clock?: Clock;
}

/** What a collector gets for the last spans at the stop, ms. */
const LAST_MS = 500;
/** A collector that is away is told of this often, ms. */
const QUIET_MS = 10 * 60_000;

const NO_TRACING: Tracing = { transaction() {}, tokenFetch() {}, close: async () => {} };

export function openTracing(
  log: Log,
  { version, env = process.env, clock = systemClock }: TracingOptions,
): Tracing {
  const isWanted = Boolean(env.OTEL_EXPORTER_OTLP_ENDPOINT || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT);
  if (!isWanted || env.OTEL_SDK_DISABLED === 'true' || env.OTEL_TRACES_EXPORTER === 'none') return NO_TRACING;
  try {
    return trace(load(), { version, env, clock, log });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    log.warn(
      { event: 'tracing_off', code: code ?? 'UNKNOWN' },
      code === 'MODULE_NOT_FOUND'
        ? 'no traces: the OpenTelemetry packages are not installed; install without --omit=optional'
        : 'no traces: OpenTelemetry does not take its OTEL_ variables; correct them',
    );
    return NO_TRACING;
  }
}

/** At once, so that nothing of the beginning is missed. */
function load() {
  const require = createRequire(import.meta.url);
  return {
    api: require('@opentelemetry/api') as typeof import('@opentelemetry/api'),
    sdk: require('@opentelemetry/sdk-trace-base') as typeof import('@opentelemetry/sdk-trace-base'),
    resources: require('@opentelemetry/resources') as typeof import('@opentelemetry/resources'),
    otlp: require('@opentelemetry/exporter-trace-otlp-http') as typeof import('@opentelemetry/exporter-trace-otlp-http'),
  };
}

function trace(
  { api, sdk, resources, otlp }: ReturnType<typeof load>,
  { version, env, clock, log }: Required<TracingOptions> & { readonly log: Log },
): Tracing {
  const exporter = new otlp.OTLPTraceExporter();
  let quietUntil = 0;
  const told: typeof exporter.export = (spans, done) =>
    exporter.export(spans, (result) => {
      if (result.code !== 0 && clock.monotonic() >= quietUntil) {
        quietUntil = clock.monotonic() + QUIET_MS;
        // Not its own words: they may hold what the collector said, or headers with its key.
        const { code } = (result.error ?? {}) as { code?: unknown };
        log.warn(
          { event: 'traces_lost', ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}) },
          'the collector of traces takes none; mail is not affected',
        );
      }
      done(result);
    });
  const provider = new sdk.BasicTracerProvider({
    resource: resources
      .resourceFromAttributes({ 'service.name': 'xoauth2-relay', 'service.version': version })
      .merge(resources.detectResources({ detectors: [resources.envDetector] }))
      .merge(
        env.OTEL_SERVICE_NAME
          ? resources.resourceFromAttributes({ 'service.name': env.OTEL_SERVICE_NAME })
          : null,
      ),
    spanProcessors: [
      new sdk.BatchSpanProcessor({
        export: told,
        shutdown: () => exporter.shutdown(),
        forceFlush: () => exporter.forceFlush(),
      }),
    ],
  });
  const tracer = provider.getTracer('xoauth2-relay', version);
  const { SpanKind, SpanStatusCode, ROOT_CONTEXT } = api;

  return {
    transaction(r) {
      const endsAt = r.at + r.totalMs;
      const root = tracer.startSpan(
        'transaction',
        {
          kind: SpanKind.SERVER,
          startTime: r.at,
          attributes: {
            'relay.transaction': r.id,
            'relay.session': r.sessionId,
            'relay.account': r.account,
            'relay.provider': r.provider,
            'relay.way': r.way,
            'relay.outcome': r.outcome,
            'relay.decided_by': r.decidedBy,
            'relay.recipients': r.recipients.length,
            'relay.bytes': r.bytes,
            ...(r.reply === undefined ? {} : { 'smtp.reply_code': r.reply.code }),
          },
        },
        ROOT_CONTEXT,
      );
      if (r.outcome !== 'relayed') root.setStatus({ code: SpanStatusCode.ERROR, message: r.outcome });
      const within = api.trace.setSpan(ROOT_CONTEXT, root);
      const part = (
        name: string,
        from: number,
        ms: number,
        attributes = {},
        kind = SpanKind.INTERNAL,
        parent = within,
      ) => {
        const span = tracer.startSpan(name, { kind, startTime: from, attributes }, parent);
        span.end(from + ms);
        return span;
      };
      part('gate', r.at, r.gateMs);
      const upstreamAt = endsAt - r.upstreamMs;
      if (r.acquireMs > 0 || r.flights > 0)
        part('acquire', Math.max(r.at, upstreamAt - r.acquireMs), r.acquireMs, { 'relay.reused': r.reused });
      if (r.flights > 0) {
        const upstream = part('upstream', upstreamAt, r.upstreamMs, {
          'relay.flights': r.flights,
          'relay.replayed': r.replayed,
        });
        const inside = api.trace.setSpan(ROOT_CONTEXT, upstream);
        const epoch = clock.now() - clock.monotonic();
        for (const { carries, at, ms } of r.flightTimes ?? []) {
          const from = Math.min(Math.max(epoch + at, r.at), endsAt);
          const lasted = Math.min(ms ?? endsAt - from, endsAt - from);
          const facts = {
            'relay.carries': carries,
            ...(ms === undefined ? { 'relay.answered': false } : {}),
          };
          part('flight', from, lasted, facts, SpanKind.CLIENT, inside);
        }
      }
      root.end(endsAt);
    },
    tokenFetch({ account, provider: name, result, durationMs }) {
      const endsAt = clock.now();
      const span = tracer.startSpan(
        'token fetch',
        {
          kind: SpanKind.CLIENT,
          startTime: endsAt - durationMs,
          attributes: { 'relay.account': account, 'relay.provider': name, 'relay.result': result },
        },
        ROOT_CONTEXT,
      );
      if (result !== 'success') span.setStatus({ code: SpanStatusCode.ERROR, message: result });
      span.end(endsAt);
    },
    close: async () => {
      await orAfter(
        clock,
        provider.shutdown().catch(() => {}),
        LAST_MS,
      );
    },
  };
}
