/** OpenTelemetry traces by OTLP/HTTP: what a collector hears, and that a dead one disturbs nobody. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { openTracing } from '../../src/tracing.ts';
import { sendMail } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { startServing } from '../support/serving.ts';
import { waitFor, within } from '../support/wait-for.ts';
import { createTestLog } from '../tokens/support.ts';

const ANN = 'ann@gmail.example';

interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { readonly key: string; readonly value: Record<string, unknown> }[];
}

/** `silent`: takes requests and never answers. */
async function startCollector(defer: Defer, mood: 'well' | 'silent' = 'well') {
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += String(chunk);
    });
    request.on('end', () => {
      bodies.push(`${request.url} ${body}`);
      if (mood === 'well') response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  defer(
    () =>
      new Promise((resolve) => {
        server.close(() => resolve(undefined));
        server.closeAllConnections();
      }),
  );
  const spans = (): Span[] =>
    bodies.flatMap((body) =>
      (
        JSON.parse(body.slice(body.indexOf(' '))) as {
          resourceSpans: { scopeSpans: { spans: Span[] }[] }[];
        }
      ).resourceSpans.flatMap((r) => r.scopeSpans.flatMap((s) => s.spans)),
    );
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bodies, spans };
}

test(
  'a message is one trace: transaction, gate, acquire, upstream with a span for each flight; a token fetch is one of its own; no address, no secret',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [ANN] });
    defer(() => provider.close());
    const collector = await startCollector(defer);
    const relay = await startRelay({
      accounts: [provider.entry(ANN, { account_id: 'desk', senders: ['*@sender.example'] })],
      caFile: provider.caFile,
      env: {
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
        OTEL_EXPORTER_OTLP_HEADERS: 'x-key=collectorkey',
        OTEL_BSP_SCHEDULE_DELAY: '20',
        OTEL_SERVICE_NAME: 'mail',
      },
    });
    defer(() => relay.stop());
    await sendMail(relay.smtpPort, { from: 'somebody@sender.example' });
    const transaction = await waitFor(() => collector.spans().find(({ name }) => name === 'transaction'), {
      what: 'the trace of a transaction',
    });
    await waitFor(() => collector.spans().some(({ name }) => name === 'token fetch'));
    const parts = collector.spans().filter(({ parentSpanId }) => parentSpanId === transaction.spanId);
    assert.deepEqual(parts.map(({ name }) => name).sort(), ['acquire', 'gate', 'upstream']);
    for (const part of parts) {
      assert.equal(part.traceId, transaction.traceId);
      assert.ok(BigInt(part.startTimeUnixNano) >= BigInt(transaction.startTimeUnixNano), part.name);
      assert.ok(BigInt(part.endTimeUnixNano) >= BigInt(part.startTimeUnixNano), part.name);
    }
    const upstream = parts.find(({ name }) => name === 'upstream');
    const flights = collector.spans().filter(({ parentSpanId }) => parentSpanId === upstream?.spanId);
    const carries = ({ attributes }: Span): unknown =>
      attributes.find(({ key }) => key === 'relay.carries')?.value.stringValue;
    assert.deepEqual(flights.map(carries), ['message'], 'in one flight');
    const attributes = Object.fromEntries(
      transaction.attributes.map(({ key, value }) => [key, Object.values(value)[0]]),
    );
    assert.equal(attributes['relay.account'], 'desk');
    assert.equal(attributes['relay.outcome'], 'relayed');
    assert.equal(Number(attributes['smtp.reply_code']), 250);
    const heard = collector.bodies.join('\n');
    assert.match(heard, /"service\.name","value":\{"stringValue":"mail"\}/);
    const { accessToken } = provider.token.issue(ANN);
    const account = provider.token.account(ANN);
    for (const secret of [
      'somebody@',
      'sender.example',
      'collectorkey',
      accessToken,
      account?.refreshToken,
      account?.clientSecret,
    ])
      assert.ok(!heard.includes(secret ?? 'missing'), secret);
    assert.doesNotMatch(relay.output(), /collectorkey/);
  }),
);

test(
  'each flight of a message is a span within upstream, one after the other',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [ANN], flavour: 'microsoft' });
    defer(() => provider.close());
    const collector = await startCollector(defer);
    const relay = await startRelay({
      accounts: [provider.entry(ANN)],
      caFile: provider.caFile,
      env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: '20' },
    });
    defer(() => relay.stop());
    await sendMail(relay.smtpPort, { from: ANN });
    const upstream = await waitFor(() => collector.spans().find(({ name }) => name === 'upstream'), {
      what: 'the span of all flights',
    });
    const flights = await waitFor(() => {
      const found = collector.spans().filter(({ parentSpanId }) => parentSpanId === upstream.spanId);
      return found.length >= 2 && found;
    });
    assert.deepEqual(
      flights.map(({ name, attributes }) => [
        name,
        attributes.find(({ key }) => key === 'relay.carries')?.value.stringValue,
        attributes.some(({ key }) => key === 'relay.answered'),
      ]),
      [
        ['flight', 'envelope', false],
        ['flight', 'body', false],
      ],
    );
    const [envelope, body] = flights as [Span, Span];
    const end = BigInt(upstream.endTimeUnixNano);
    assert.ok(BigInt(envelope.endTimeUnixNano) <= BigInt(body.startTimeUnixNano));
    assert.ok(BigInt(body.startTimeUnixNano) <= BigInt(body.endTimeUnixNano));
    assert.ok(BigInt(body.endTimeUnixNano) <= end + 1_000_000n, 'to a millisecond');
  }),
);

for (const [what, start] of [
  ['that is away', async () => 'http://127.0.0.1:1'],
  ['that never answers', async (defer: Defer) => (await startCollector(defer, 'silent')).url],
] as const)
  test(
    `a collector ${what} slows and stops nothing`,
    leakless(async (_t, defer) => {
      const { provider, relay } = await startServing(defer, ANN, {
        env: {
          OTEL_EXPORTER_OTLP_ENDPOINT: await start(defer),
          OTEL_BSP_SCHEDULE_DELAY: '20',
          OTEL_EXPORTER_OTLP_TIMEOUT: '200',
        },
      });
      for (let i = 0; i < 20; i++) await sendMail(relay.smtpPort, { from: ANN });
      await relay.event('traces_lost');
      await sendMail(relay.smtpPort, { from: ANN });
      assert.equal((await provider.received(21)).length, 21);
      assert.deepEqual(await within(relay.stop(), 10_000, 'the stop'), { code: 0, signal: null });
    }),
  );

test('without the variable nothing of the packages is loaded; a wish they do not take stops nothing', async () => {
  const { cache } = createRequire(import.meta.url);
  const loaded = (): boolean => Object.keys(cache).some((path) => path.includes('sdk-trace'));
  const log = createTestLog();
  for (const env of [
    {},
    { OTEL_EXPORTER_OTLP_ENDPOINT: '' },
    { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_SDK_DISABLED: 'true' },
  ])
    await openTracing(log, { version: '1', env }).close();
  assert.equal(loaded(), false);
  assert.deepEqual(log.lines, []);
});
