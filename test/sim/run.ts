/** One run: a world made from a plan, its faults, the healing after them, and what is found wrong. */

import { AccountsFileError } from '../../src/accounts/accounts-file.ts';
import { Secret } from '../../src/accounts/credential.ts';
import { check, type Figures, type Violation } from './checks.ts';
import { type Client, createClient, type Message } from './client.ts';
import { applyFaults, type Cast, createPaths, isBeingMended, writeAccounts } from './faults.ts';
import { createGraphEndpoint, GRAPH_URL } from './graph.ts';
import { checkDrafts, checkGraph } from './graph-checks.ts';
import { decideUnclear } from './groups.ts';
import { healMs } from './healing.ts';
import { createNetwork, type Network } from './network.ts';
import type { Fault, Plan } from './plan.ts';
import { createProvider, type Delivery } from './provider.ts';
import { createRandom } from './random.ts';
import { createRelayHost, type Leftovers, type RelayHost } from './relay-host.ts';
import { createTokenEndpoint, SECRET_MARK, useWebServers } from './token-endpoint.ts';
import { useFiles } from './virtual-files.ts';
import { useRedis } from './virtual-redis.ts';
import { useNetwork } from './virtual-sockets.ts';
import { enterWorld } from './virtual-time.ts';
import { type Actor, createWorld, type RunEnd, type TraceLine, type World } from './world.ts';

export interface Outcome {
  readonly violations: readonly Violation[];
  readonly digest: string;
  readonly figures: Figures;
  readonly trace: readonly TraceLine[];
  /** Virtual time that passed, ms. */
  readonly ms: number;
  /** Until all was served again, as a part of what it may take. */
  readonly healing: number;
  readonly steps: number;
}

/** How long the relay may leave a store alone that failed, ms: what was not saved is offered again after this. */
const UNSAVED_MS = 20_000;
/** What a relay logs when it has given an account up. */
const NEEDS_PERSON = /"event":"token_refresh_failed","account":"([^"]+)".*"class":"needs_consent"/;
/** Where nothing goes wrong nobody waits longer for a connection: a few messages and logins, ms. */
const CALM_WAIT_MS = 10_000;
/** From its place in the minute to MAIL a message takes a RSET and its reply at most, and what counts as prompt, ms. */
const BEGIN_MS = 500;
const SLOW_BEGIN_MS = 6_500;
/** Larger messages stream: what breaks under them is not said again. */
const REPLAY_OCTETS = 4_096;
/** So late an answer is waited for anywhere, ms. */
const LATE_MS = 2_000;
/** A stop waits for a token endpoint that may be giving a new refresh token as long as its answer may take, ms. */
const TOKEN_ANSWER_MS = 20_000;
/** Longest that an answer takes in any world, ms. */
const LATE_TOKEN_MS = 80_000;
/** How much longer than its deadline a stop may take, ms: what has come of an answer is saved (twice 5 s at the most), and the goodbyes. */
const STOP_SLACK_MS = 10_500;

export async function run(plan: Plan, options: { readonly keepTrace: boolean }): Promise<Outcome> {
  const world = createWorld(createRandom(plan.seed), options);
  enterWorld(world);
  const violations: Violation[] = [];
  const blame = (rule: string, detail: string): void => {
    world.note(`VIOLATION ${rule}: ${detail}`);
    violations.push({ rule, detail, at: Math.round(world.now) });
  };
  const crashed = (error: unknown): void =>
    blame('crash', `${world.current.name}: ${error instanceof Error ? error.stack : String(error)}`);
  process.on('uncaughtException', crashed);
  process.on('unhandledRejection', crashed);
  try {
    const cast = assemble(plan, world, blame);
    const healing = await play(plan, cast, blame);
    const records = cast.relays.flatMap((relay) => relay.records);
    for (const { text } of cast.relays.flatMap((relay) => relay.log)) {
      const account = NEEDS_PERSON.exec(text)?.[1];
      if (account !== undefined && !cast.tokens.lostGrants.has(account))
        blame('a person is asked to sign in for nothing', account);
    }
    for (const { acquireMs, recipients } of records)
      if (plan.faults.length === 0 && acquireMs > CALM_WAIT_MS)
        blame('waited for nothing', `${recipients.join(' ')}: ${Math.round(acquireMs)} ms for a connection`);
    const all = cast.clients.flatMap((c) => c.attempts);
    const { deliveries } = cast.provider;
    const journals = cast.relays.map(
      ({ name }) => cast.files.read(`/sim/${name}/state/graph-submissions.journal`) ?? '',
    );
    const drafts = losesNotes(plan) ? [] : checkDrafts(cast.graph.drafts, journals, world.now);
    const byGraph = checkGraph({
      attempts: all.filter((a) => a.message.byGraph),
      // While an account was off Graph its mail left by SMTP.
      delivered: [
        ...cast.graph.delivered,
        ...deliveries.filter(mayGoByGraph).map((d) => ({ ...d, text: d.body.toString('latin1') })),
      ],
      forgets: forgetsSubmissions(plan),
      byGraph: cast.graph.delivered,
    });
    const result = check({
      attempts: all.filter((a) => !a.message.byGraph),
      deliveries: deliveries.filter((d) => !mayGoByGraph(d)),
      said: cast.provider.said,
      isTagged: plan.isTagged,
      unknown: records.filter((r) => r.outcome === 'unknown'),
      replayed: new Set(records.filter((r) => r.replayed).flatMap((r) => r.recipients)),
      log: cast.relays.flatMap((relay) => relay.log),
      texts: cast.texts,
      secretMark: SECRET_MARK,
      isCalm: plan.faults.length === 0,
      perMinute: new Map(
        forgetsMinutes(plan) ? [] : plan.accounts.map((a) => [a.email, a.messagesPerMinute]),
      ),
      beginMs: plan.faults.some((f) => f.kind === 'slow path') ? SLOW_BEGIN_MS : BEGIN_MS,
      // Without Redis the minute of others has to pass, and what they had under way when it was lost.
      longestWaitS: plan.store === 'redis' ? 73 : 61,
      heldOctets: REPLAY_OCTETS,
      isCertain: plan.faults.every(leavesConnections),
      isOurs: (reply, { message, loggedInTo }) =>
        (plan.faults.some((f) => f.kind === 'reload' && f.edit === 'remove and add') &&
          reply.text.includes('No account for sender')) ||
        (reply.code === 530 && message.password !== undefined && loggedInTo === undefined),
    });
    return {
      violations: [...violations, ...result.violations, ...byGraph.violations, ...drafts],
      digest: world.digest,
      figures: add(result.figures, byGraph.figures),
      trace: world.trace,
      ms: world.now,
      healing,
      steps: world.steps,
    };
  } finally {
    process.off('uncaughtException', crashed);
    process.off('unhandledRejection', crashed);
  }
}

const add = (a: Figures, b: Figures): Figures => ({
  attempts: a.attempts + b.attempts,
  acknowledged: a.acknowledged + b.acknowledged,
  deferred: a.deferred + b.deferred,
  refused: a.refused + b.refused,
  unknown: a.unknown + b.unknown,
});

const isRenamed = ({ faults }: Plan): boolean =>
  faults.some((f) => f.kind === 'reload' && f.edit === 'rename');

/** Relays whose Redis is lost sooner than this after they started together do not know of each other, ms. */
const MEETING_MS = 1_500;

/** Whether what was sent in a minute may be forgotten in the middle of it: with a process, or with a Redis and those who could tell it again. */
function forgetsMinutes(plan: Plan): boolean {
  const { store, faults } = plan;
  // Offered again to a provider that is busy it counts when it was offered first.
  const isOfferedAgain = faults.some(
    (f) => f.kind === 'mood' && f.mood.kind === 'reply' && f.mood.code === 432,
  );
  if (isOfferedAgain) return true;
  if (faults.some((f) => f.kind === 'redis' && f.from < MEETING_MS)) return true;
  const has = (...kinds: readonly Fault['kind'][]): boolean =>
    faults.some(({ kind }) => kinds.includes(kind));
  switch (store) {
    case 'memory':
      return has('kill', 'stop');
    case 'file':
      return has('kill', 'disk');
    case 'redis':
      // With a state directory a stop in good order forgets nothing.
      return has('redis') && (has('kill') || (has('stop') && (has('disk') || !hasDirectory(plan))));
    default:
      return store satisfies never;
  }
}

/** That a draft may be made is not synced: a power cut may take it; memory and Redis have no journal to be read here. */
const losesNotes = ({ store, faults }: Plan): boolean =>
  store !== 'file' || faults.some((f) => f.kind === 'disk' || (f.kind === 'kill' && f.how === 'power'));

/** A message by Graph is the same at every try. */
const mayGoByGraph = ({ body }: Delivery): boolean => /^X-Sim: m\d+\r/.test(body.toString('latin1', 0, 40));

/** Whether what the relays know of messages by Graph ends with a process, or with a Redis. */
const forgetsSubmissions = ({ store, faults }: Plan): boolean =>
  store === 'memory'
    ? faults.some(({ kind }) => kind === 'kill' || kind === 'stop')
    : faults.some((f) => f.kind === 'redis' && f.loses);

/** It ends no connection to the provider with a message on it. */
const leavesConnections = (fault: Fault): boolean => {
  if (fault.kind === 'mood') return fault.mood.kind === 'late' && fault.mood.ms <= LATE_MS;
  return !['provider down', 'break', 'black', 'slow path', 'stop', 'kill', 'graph'].includes(fault.kind);
};

const hasDirectory = ({ store, keepsBeside }: Plan): boolean =>
  store === 'file' || (store === 'redis' && keepsBeside);

type Blame = (rule: string, detail: string) => void;

function assemble(plan: Plan, world: World, blame: Blame): Cast {
  const sideOf = (a: Actor, b: Actor): 'clients' | 'provider' =>
    a.name.startsWith('client') || b.name.startsWith('client') ? 'clients' : 'provider';
  const network: Network = createNetwork(world, createPaths(plan, world, sideOf));
  useNetwork(network);
  const files = useFiles(world.random.branch('files'));
  const redis = useRedis(world);
  const provider = createProvider(world, network, {
    name: 'provider',
    address: '10.0.0.1',
    flavour: plan.flavour,
    isTagged: plan.isTagged,
    tls: plan.tls,
    challenges: plan.challenges,
  });
  provider.onClear = () => blame('login in clear text', 'AUTH without TLS');
  provider.idleMs = plan.idleMs;
  provider.ageMs = plan.ageMs;
  const tokens = createTokenEndpoint(world, {
    // Who has been given another name has the grant that stands in the file.
    rotates: plan.store !== 'memory' && plan.hasGroups === undefined && !isRenamed(plan),
    lifeMs: plan.tokenLifeMs,
  });
  const graph = createGraphEndpoint(world, tokens.accepts);
  graph.onTooMany = (account, ofOne) => {
    if (ofOne) blame('too many requests at once', `for ${account} at Graph`);
  };
  useWebServers((url) => (url.startsWith(GRAPH_URL) ? graph : tokens));
  provider.accepts = tokens.accepts;
  provider.onLogin = (account, atOnce) => {
    const most = plan.accounts.find((a) => a.email === account)?.maxConnections ?? 0;
    if (atOnce > most) blame('too many connections', `${account} has ${atOnce} of ${most}`);
  };
  // Without the store that they share relays know nothing of each other.
  const isStoreTroubled = (): boolean => plan.faults.some((f) => f.kind === 'redis' && world.now >= f.from);
  tokens.onOverlap = ({ account, requests, relays: askers }) => {
    if (askers === 1 || !isStoreTroubled()) blame('two refreshes at once', `${requests} for ${account}`);
  };
  const grants = new Map(plan.accounts.map((a) => [a.email, tokens.consent(a.email)]));
  const accountsFile: Cast['accountsFile'] = (edit) =>
    writeAccounts(plan, (email) => grants.get(email) ?? '', edit);
  const operator = world.spawn('operator');
  const relays: RelayHost[] = Array.from({ length: plan.relays }, (_, i) =>
    createRelayHost(
      {
        world,
        network,
        files,
        onCrash: (host, error) => {
          // Whoever watches over the service starts it again.
          host.kill('kill');
          world.after(operator, 10_000, () => host.start());
          const isFileUnusable = error instanceof AccountsFileError && isBeingMended(plan, world.now);
          if (!isFileUnusable && !plan.faults.some((f) => f.kind === 'disk'))
            blame('does not start', `${host.name}: ${String(error)}`);
        },
      },
      {
        name: `relay${i}`,
        accounts: accountsFile(),
        settings: {
          replayBytes: REPLAY_OCTETS,
          ...(plan.store === 'redis'
            ? { store: new Secret('redis://redis:6379'), withoutStore: plan.withoutStore }
            : {}),
          ...(hasDirectory(plan) ? { stateDir: `/sim/relay${i}/state` } : {}),
        },
      },
    ),
  );
  const clients: Client[] = plan.clients.map((habits, i) =>
    createClient(world, network, { name: `client${i}`, relays: () => relays.map((r) => r.name), habits }),
  );
  const mayBeRemoved = (account: string): boolean =>
    account === plan.accounts[0]?.email &&
    plan.faults.some((f) => f.kind === 'reload' && f.edit === 'remove and add');
  for (const client of clients) {
    client.onLogin = (account, how, { code, text }) => {
      if (how !== 'right' && code === 235) blame('let in without its password', account);
      if (how === 'right' && code >= 500 && !mayBeRemoved(account))
        blame('right password refused', `${code} ${text}`);
    };
    client.onUnanswered = (what) => {
      const isBlack = plan.faults.some((f) => f.kind === 'black' && f.side === 'clients');
      if (!isBlack) blame('unanswered', `${client.actor.name} at ${what}`);
    };
  }
  for (const [i, m] of plan.messages.entries()) {
    const { email: account = '', byGraph = false, password } = plan.accounts[m.account] ?? {};
    const isOfDevice = byGraph && plan.isDevice === true;
    const all = Array.from(
      { length: m.recipients },
      (_, r) => `${isOfDevice ? 'd' : `m${i}`}r${r}@example.net`,
    );
    const message: Message = {
      id: `m${i}`,
      account,
      sender: account,
      // Whoever is refused at RCPT is still in the header; one recipient leaves nobody to be mailed for another.
      recipients: byGraph && plan.hasGroups === undefined ? all.slice(0, 1) : all,
      ...(plan.hasGroups ? { to: all } : {}),
      ...(isOfDevice ? { messageId: 'device' } : {}),
      ...(isOfDevice && plan.saysAgain ? { isSaidAgain: true as const } : {}),
      octets: m.octets,
      byGraph,
      password,
    };
    clients[m.client]?.add(message, m.at);
  }
  const onStopped = (left: Leftovers, deadlineMs: number): void => {
    // Only a disk or a Redis that takes nothing excuses it.
    const isStoreAway = plan.faults.some(
      (f) =>
        (f.kind === 'disk' || f.kind === 'redis') &&
        world.now >= f.from &&
        world.now - left.tookMs - UNSAVED_MS < f.to,
    );
    // An answer that takes longer than a stop waits for it ends with the process.
    const isTokenSlow = plan.faults.some(
      (f) =>
        f.kind === 'token' &&
        (f.mood.trouble === 'drip' || f.mood.delayMs > TOKEN_ANSWER_MS) &&
        world.now >= f.from &&
        world.now - LATE_TOKEN_MS < f.to,
    );
    if (isTokenSlow)
      for (const { email } of plan.accounts)
        if (world.now - tokens.rotatedAt(email) < LATE_TOKEN_MS) tokens.lostGrants.add(email);
    for (const account of left.unsaved) {
      if (isStoreAway) tokens.lostGrants.add(account);
      else blame('grant lost at a stop', account);
    }
    if (left.tookMs > Math.max(deadlineMs, TOKEN_ANSWER_MS) + STOP_SLACK_MS)
      blame('stop has no end', `${left.name}: ${left.tookMs} ms with a deadline of ${deadlineMs} ms`);
    // At the deadline the process ends whatever it still holds.
    if (left.tookMs > deadlineMs - 1_500) return;
    for (const [what, list] of [
      ['timers', left.timers],
      ['sockets', left.sockets],
      ['leases', left.busy],
    ] as const)
      if (list.length > 0) blame('left behind', `${left.name} ${what}: ${list.slice(0, 5).join('; ')}`);
    if (left.heldBytes !== 0) blame('left behind', `${left.name}: ${left.heldBytes} budget octets`);
    if (left.sessions !== 0) blame('left behind', `${left.name}: ${left.sessions} sessions`);
  };
  return {
    world,
    network,
    provider,
    tokens,
    graph,
    files,
    redis,
    relays,
    clients,
    operator,
    accountsFile,
    texts: [],
    onUnanswered: (what) => blame('unanswered', what),
    onStopped,
  };
}

/** The result is the part of the time for healing that it took. */
async function play(plan: Plan, cast: Cast, blame: Blame): Promise<number> {
  const { world, relays, clients, operator, tokens } = cast;
  const advance = async (isOver: () => boolean, until: number): Promise<RunEnd> => {
    const end = await world.run(isOver, until);
    if (end === 'spinning') blame('spins', `${world.current.name} has always something to do at once`);
    return end;
  };
  for (const relay of relays) relay.start();
  applyFaults(plan, cast);
  if (plan.hasGroups) decideUnclear(world, operator, cast);
  // The time comes whether or not anything else happens then.
  world.after(operator, plan.activeMs, () => undefined);
  if ((await advance(() => false, plan.activeMs)) === 'spinning') return 0;
  world.note('the last fault is over', operator);
  const idle = (): boolean => clients.every((c) => c.isDone);
  const isServable = (account: string): boolean => !tokens.lostGrants.has(account);
  for (const client of clients) client.flush();
  const allowed = healMs(plan);
  const isServed = (): boolean =>
    idle() || clients.every((c) => c.isIdle && c.queue.every((m) => !isServable(m.account)));
  if ((await advance(isServed, plan.activeMs + allowed)) === 'spinning') return 0;
  const healing = (world.now - plan.activeMs) / allowed;
  // Whoever waits for a grant that nobody has any more waits for a person.
  const stuck = clients.flatMap((c) => c.queue).filter((m) => isServable(m.account));
  // What has reached some of its recipients no person can decide about.
  if (stuck.length > 0 && (plan.hasGroups === undefined || plan.messages.every((m) => m.recipients === 1)))
    blame('not served again', `${stuck.map((m) => m.id).join(' ')} within ${allowed / 60_000} min`);
  await advance(() => relays.every((relay) => !relay.isStopping), world.now + 60_000);
  let stopped = 0;
  for (const relay of relays) {
    if (relay.actor === undefined) stopped += 1;
    relay.stop(30_000, (left) => {
      cast.onStopped(left, 30_000);
      stopped += 1;
    });
  }
  const end = await advance(() => stopped === relays.length, world.now + 120_000);
  if (end !== 'over') blame('stop has no end', 'at the end of the run');
  return healing;
}
