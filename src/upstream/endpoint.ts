/**
 * One upstream endpoint (host and port) for all its accounts: the circuit breaker, how many
 * connections may be opened at once, and what was learnt of the server. The breaker is fed only by
 * provider faults, and only when several accounts show them: one mailbox in trouble stops nobody else.
 * Messages that go through count for the provider.
 */

import { type BreakerState, createBreaker } from '../breaker.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { orMake } from '../or-make.ts';
import type { Capabilities } from '../protocol/capabilities.ts';
import type { BreakerWeight } from '../protocol/verdict.ts';
import { createSemaphore } from '../semaphore.ts';
import { UpstreamError } from './failure.ts';
import { createProofs, type Proofs } from './proof.ts';

/** Failures of different accounts within this time belong together. */
const EVIDENCE_WINDOW_MS = 60_000;
/** Accounts that must show a fault before it counts; with one account it is that one. */
const DISTINCT_ACCOUNTS = 2;
/** What no mail waits for has this part of the places: mail does not stand behind thousands that are warmed up. */
const BACKGROUND_SHARE = 1 / 2;
/** While less than this part is taken, a place may be held by an opening whose token is still to come. */
const AMPLE_SHARE = 3 / 4;
/** `if_many`: counts once three accounts show it. */
const WEIGHT: Readonly<Record<BreakerWeight, number>> = { full: 1, half: 0.5, if_many: 2 / 3, none: 0 };
/** Attempts in the window before the breaker may open: a glitch or two never stop a small installation. */
const VOLUME_THRESHOLD = 5;
/** An open breaker lets one probe through after this, so that a restart of the provider costs seconds; after a failed probe twice as long. */
const RESET_MS = 3_000;
const MAX_RESET_MS = 30_000;

export type { BreakerState };

export interface UpstreamEndpoint {
  readonly name: string;
  /** Undefined until a first connection was opened. */
  capabilities: Capabilities | undefined;
  /** Which of its servers discard what they refuse. */
  readonly proofs: Proofs;
  /** Accounts that use this endpoint now. */
  accounts: number;
  readonly breaker: BreakerState;
  /** Whether the breaker refuses at once. */
  readonly open: boolean;
  /** What it refuses with then. */
  readonly resting: UpstreamError | undefined;
  /** All is well, and a connection that takes longer to open than usual holds nobody up. */
  readonly hasTime: boolean;
  /** Runs what opens a connection that no mail waits for, in the order in which it comes. */
  inBackground(task: () => Promise<void>): Promise<void>;
  /** Opens a connection behind breaker and bound. Rejects with `UpstreamError`, `breaker_open` among them. */
  guard<T>(accountId: string, open: () => Promise<T>): Promise<T>;
  /** A fault that showed after the connection was open. */
  report(accountId: string, weight: BreakerWeight): void;
  /** A message went through. */
  succeeded(accountId: string): void;
  /** Nobody will ask it any more. */
  end(): void;
}

/** How opening a connection ended, with what it says about the provider. */
type Opened = { readonly connection: unknown } | { readonly error: unknown; readonly fault: boolean };

export interface EndpointOptions {
  /** Connections being opened at once, 1 to 1000. */
  readonly maxOpening: number;
  /** Attempts in a minute before the breaker may open. Default 5. */
  readonly volume?: number;
  readonly clock?: Clock;
  /** Hears each change of state. */
  readonly onBreaker?: (state: BreakerState) => void;
}

export interface Endpoints {
  /** Made when it is first asked for. */
  named(name: string): UpstreamEndpoint;
  readonly all: ReadonlyMap<string, UpstreamEndpoint>;
  /** Forgets all others. */
  keepOnly(used: Pick<ReadonlySet<string>, 'has'>): void;
  breakers(): readonly BreakerState[];
}

/** `kind`: for the log, which hears of their breakers. */
export function createEndpoints(log: Log, kind: string, options: EndpointOptions): Endpoints {
  const all = new Map<string, UpstreamEndpoint>();
  const onBreaker = ({ name, state }: BreakerState): void =>
    log.warn({ event: 'breaker', endpoint: name, state }, `${kind} breaker changed`);
  return {
    named: (name) => orMake(all, name, () => createEndpoint(name, { ...options, onBreaker })),
    all,
    keepOnly(used) {
      for (const [name, endpoint] of all) {
        if (used.has(name)) continue;
        all.delete(name);
        endpoint.end();
      }
    },
    breakers: () => [...all.values()].map(({ breaker }) => breaker),
  };
}

export function createEndpoint(name: string, options: EndpointOptions): UpstreamEndpoint {
  const { clock = systemClock } = options;
  const evidence = new Map<string, { readonly at: number; readonly weight: number }>();
  let accounts = 0;
  const breaker = createBreaker<Opened>(
    name,
    (outcome) => 'fault' in outcome && outcome.fault,
    () => options.onBreaker?.(breaker.state()),
    {
      volume: options.volume ?? VOLUME_THRESHOLD,
      windowMs: EVIDENCE_WINDOW_MS,
      restMs: RESET_MS,
      maxRestMs: MAX_RESET_MS,
      clock,
    },
  );

  /** Whether this fault, with what other accounts showed lately, says something about the provider. */
  function isEvidence(accountId: string, weight: BreakerWeight): boolean {
    if (weight === 'none') return false;
    // The probe of a half-open breaker speaks for itself.
    if (breaker.state().state === 'half_open') return true;
    const now = clock.monotonic();
    for (const [id, e] of evidence) if (now - e.at > EVIDENCE_WINDOW_MS) evidence.delete(id);
    const before = evidence.get(accountId)?.weight ?? 0;
    evidence.set(accountId, { at: now, weight: Math.max(before, WEIGHT[weight]) });
    let total = 0;
    for (const e of evidence.values()) total += e.weight;
    return total >= Math.min(DISTINCT_ACCOUNTS, Math.max(1, accounts));
  }

  const openings = createSemaphore(options.maxOpening);
  const background = createSemaphore(Math.ceil(options.maxOpening * BACKGROUND_SHARE));

  function refusal(): UpstreamError {
    const leftMs = (breaker.probeAt() ?? clock.now()) - clock.now();
    return new UpstreamError({
      kind: 'local',
      cause: 'breaker_open',
      waitSeconds: Math.max(1, Math.ceil(leftMs / 1_000)),
    });
  }

  return {
    name,
    capabilities: undefined,
    proofs: createProofs(clock),
    get accounts() {
      return accounts;
    },
    set accounts(n) {
      accounts = n;
    },
    get breaker() {
      return breaker.state();
    },
    get open() {
      return breaker.state().state === 'open';
    },
    get resting() {
      return breaker.state().state === 'open' ? refusal() : undefined;
    },
    get hasTime() {
      return breaker.state().state === 'closed' && openings.running < options.maxOpening * AMPLE_SHARE;
    },
    inBackground: (task) => background.run(task),
    async guard<T>(accountId: string, open: () => Promise<T>): Promise<T> {
      const outcome = await breaker.run(() =>
        openings.run(open).then(
          (connection) => ({ connection }),
          (error: unknown) => ({
            error,
            fault: error instanceof UpstreamError && isEvidence(accountId, error.verdict.breaker),
          }),
        ),
      );
      if (outcome === undefined) throw refusal();
      if ('error' in outcome) throw outcome.error;
      return outcome.connection as T;
    },
    report(accountId, weight) {
      if (isEvidence(accountId, weight)) breaker.saw(true);
    },
    succeeded(accountId) {
      evidence.delete(accountId);
      breaker.saw(false);
    },
    end: breaker.end,
  };
}
