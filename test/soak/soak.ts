/**
 * A soak: two relays over real sockets against a provider that faults, under load, for as long as it is told.
 * One is never ended, so that what it takes of memory and descriptors can be compared; the other is killed and
 * stopped now and then. Then everything heals, the queues empty, and it is reckoned up.
 */
import { createRandom } from '../sim/random.ts';
import { startProvider } from '../support/provider.ts';
import { type Fault, faultsOf } from './chaos.ts';
import { markOf, type SoakClient, startClient } from './client.ts';
import { judge, type Verdict } from './judge.ts';
import { type SoakRelay, startSoakRelay, type Usage } from './relays.ts';

export interface SoakOptions {
  readonly minutes: number;
  /** Messages a second, all clients together. */
  readonly rate: number;
  readonly seed: number;
  readonly tell: (line: string) => void;
  /** Ends it early; the figures come all the same. */
  readonly signal?: AbortSignal;
}

export interface SoakResult extends Verdict {
  readonly seconds: number;
  /** How often each fault befell. */
  readonly faults: Readonly<Record<string, number>>;
  /** Still in a queue when everything had long been well again. */
  readonly waiting: number;
  readonly unanswered: readonly string[];
  /** A person had to sign in again: where the answer with the new refresh token was cut (kill -9, the endpoint's own outage), and otherwise. */
  readonly signedInAgain: number;
  readonly grantsLost: number;
  /** Of the relay that is never ended. */
  readonly before: Usage;
  readonly after: Usage;
  /** What is wrong; empty: nothing. */
  readonly complaints: readonly string[];
}

const CLIENTS = 6;
const USERS = 3;
const MAX_CONNECTIONS = 3;
/** At the end connections and memory settle, ms. */
const CALM_MS = 5_000;
/** Load before the first fault, ms: a tenth of the time, at most this. The heap grows to its working size. */
const WARM_MS = 180_000;
/** After the last fault: the longest pause of an account, and the retries of a queue, ms. */
const HEAL_MS = 15 * 60_000;
/** What leaks goes on growing. */
const MEMORY_SLACK_MIB = 64;
/** A relay killed this soon after an answer that rotates its grant may not have kept it yet, ms. */
const KEEPING_MS = 2_000;

export async function soak(options: SoakOptions): Promise<SoakResult> {
  const { rate, tell } = options;
  const dice = createRandom(options.seed);
  const startedAt = Date.now();
  const endsAt = startedAt + options.minutes * 60_000;
  const usersOf = (name: string): string[] =>
    Array.from({ length: USERS }, (_, i) => `${name}${i}@example.com`);
  const users = { steady: usersOf('steady'), mortal: usersOf('mortal') };
  const provider = await startProvider({
    flavour: 'microsoft',
    users: [...users.steady, ...users.mortal],
    rules: { idleMs: 20_000, maxAgeMs: 120_000 },
  });
  provider.token.rotation = 'revoke-old';
  provider.token.decidesAtOnce = true;
  provider.token.expiresInS = 420;
  const limits = {
    max_connections: MAX_CONNECTIONS,
    login_interval_ms: 50,
    messages_per_minute: 10_000,
    messages_per_day: 0,
    recipients_per_day: 0,
  };
  const relays = {
    steady: await startSoakRelay(provider, users.steady, limits),
    mortal: await startSoakRelay(provider, users.mortal, limits),
  };
  const both = [relays.steady, relays.mortal];
  const clients: SoakClient[] = Array.from({ length: CLIENTS }, (_, i) => {
    const relay = i % 2 === 0 ? relays.steady : relays.mortal;
    return startClient({
      name: `c${i}`,
      senders: relay.accounts.map((a) => a.email),
      port: () => relay.port,
      dice: dice.branch(`client ${i}`),
      everyMs: (1000 * CLIENTS) / rate,
    });
  });
  const isOver = (): boolean => Date.now() >= endsAt || options.signal?.aborted === true;
  const wait = async (ms: number): Promise<void> => {
    const until = Math.min(Date.now() + ms, endsAt);
    while (Date.now() < until && !isOver())
      await new Promise((r) => setTimeout(r, Math.min(250, until - Date.now())));
  };

  let signedInAgain = 0;
  let grantsLost = 0;
  /** The operator's round: whom a person must sign in again. */
  async function look(relay: SoakRelay): Promise<void> {
    const ill = await relay.mustSignIn().catch(() => []);
    for (const { email } of ill) provider.token.acceptAgain(email);
    if (ill.length > 0) await relay.retry(ill.map((a) => a.email)).catch(() => undefined);
    for (const { email, reason } of ill) {
      if (wasCut(email, relay)) signedInAgain++;
      else {
        grantsLost++;
        const rotation = JSON.stringify(provider.token.lastRotation(email));
        tell(`${email} must sign in again: ${reason} ${rotation}`);
        for (const line of relay.history(email)) tell(`  ${JSON.stringify(line)}`);
      }
    }
  }

  /** No relay could have kept the grant: its answer never left whole, or the process was killed with it in hand. */
  function wasCut(user: string, { killedAt }: SoakRelay): boolean {
    const rotation = provider.token.lastRotation(user);
    if (rotation === undefined) return false;
    return !rotation.isWhole || (killedAt >= rotation.at - KEEPING_MS && killedAt - rotation.at < KEEPING_MS);
  }

  const warm = async (): Promise<Usage> => {
    await wait(Math.max(CALM_MS, Math.min(WARM_MS, options.minutes * 6_000)));
    return relays.steady.usage();
  };
  const before = await warm();
  const faults = faultsOf(provider, relays, dice.branch('faults'));
  const counts: Record<string, number> = {};
  let told = Date.now();
  let round: Fault[] = [];
  while (!isOver()) {
    // Each once before any comes again.
    if (round.length === 0) round = [...faults];
    const fault = dice.pick(round);
    round.splice(round.indexOf(fault), 1);
    counts[fault.name] = (counts[fault.name] ?? 0) + 1;
    const end = await fault.befall();
    await wait(dice.between(300, 3_000));
    await end();
    await wait(dice.between(0, 2_000));
    for (const relay of both) await look(relay);
    if (Date.now() - told < 60_000) continue;
    told = Date.now();
    tell(
      `${Math.round((told - startedAt) / 60_000)} min: ${clients.reduce((n, c) => n + c.attempts.length, 0)} attempts, ${JSON.stringify(relays.steady.usage())}`,
    );
  }

  tell('the last fault is over; the queues empty');
  provider.smtp.clearScripts();
  const healed = { value: false };
  const operator = (async () => {
    while (!healed.value) {
      for (const relay of both) await look(relay);
      await new Promise((r) => setTimeout(r, 1_000));
    }
  })();
  await Promise.all(clients.map((client) => client.finish(HEAL_MS)));
  healed.value = true;
  await operator;
  await new Promise((r) => setTimeout(r, CALM_MS));
  const after = relays.steady.usage();
  const stops = await Promise.all(both.map((relay) => relay.stop()));
  const verdict = judge(
    clients.flatMap((c) => c.attempts),
    provider.submissions
      .filter((s) => s.delivered)
      .map((s) => ({
        mark: markOf(s.body),
        recipients: s.recipients.map((r) => r.address),
        sha256: s.sha256,
      })),
  );
  await provider.close();
  const waiting = clients.reduce((n, client) => n + client.waiting, 0);
  const unanswered = clients.flatMap((client) => client.unanswered);
  const complaints = [
    ...verdict.lost.map((what) => `lost: ${what}`),
    ...verdict.twice.map((what) => `twice: ${what}`),
    ...verdict.bounced.map((what) => `bounced: ${what}`),
    ...unanswered.map((what) => `unanswered: ${what}`),
    ...(waiting > 0 ? [`${waiting} messages were not served again`] : []),
    ...(grantsLost > 0
      ? [`${grantsLost} times a person had to sign in again although no answer had been cut`]
      : []),
    ...(after.descriptors > before.descriptors + USERS * MAX_CONNECTIONS
      ? [`descriptors: ${before.descriptors} before, ${after.descriptors} after`]
      : []),
    ...(after.rssMib > before.rssMib + MEMORY_SLACK_MIB
      ? [`memory: ${before.rssMib} MiB before, ${after.rssMib} MiB after`]
      : []),
    ...stops.flatMap(({ code }) => (code === 0 ? [] : [`a relay ended with ${code}`])),
  ];
  return {
    ...verdict,
    seconds: Math.round((Date.now() - startedAt) / 1000),
    faults: counts,
    waiting,
    unanswered,
    signedInAgain,
    grantsLost,
    before,
    after,
    complaints,
  };
}
