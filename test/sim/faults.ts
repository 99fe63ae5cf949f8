/** Lets the faults of a plan happen: sets the moods of the participants and calls the operator. */
import type { Client } from './client.ts';
import { GRAPH_URL, type GraphEndpoint, type GraphMood } from './graph.ts';
import { groupEntries } from './groups.ts';
import type { Network, Paths, Weather } from './network.ts';
import type { Edit, Fault, Plan, Side } from './plan.ts';
import type { Mood, Provider } from './provider.ts';
import { createRandom } from './random.ts';
import type { Leftovers, RelayHost } from './relay-host.ts';
import type { TokenEndpoint } from './token-endpoint.ts';
import type { Files } from './virtual-files.ts';
import type { RedisServer } from './virtual-redis.ts';
import type { Actor, World } from './world.ts';

export interface Cast {
  readonly world: World;
  readonly network: Network;
  readonly provider: Provider;
  readonly tokens: TokenEndpoint;
  readonly graph: GraphEndpoint;
  readonly files: Files;
  readonly redis: RedisServer;
  readonly relays: readonly RelayHost[];
  readonly clients: readonly Client[];
  readonly operator: Actor;
  readonly accountsFile: (edit?: Edit) => string;
  /** Answers of the admin room. */
  readonly texts: string[];
  readonly onUnanswered: (what: string) => void;
  readonly onStopped: (left: Leftovers, deadlineMs: number) => void;
}

const isIn = (now: number, { from, to }: { readonly from: number; readonly to: number }): boolean =>
  now >= from && now < to;

/** The paths of a plan: as the weather is, and the faults that lie on them. */
export function createPaths(plan: Plan, world: World, sideOf: (a: Actor, b: Actor) => Side): Paths {
  const normal: Weather = { delay: plan.delay, split: plan.split };
  const slow = plan.faults.filter((f) => f.kind === 'slow path');
  const black = plan.faults.filter((f) => f.kind === 'black');
  return {
    weather(a, b) {
      const found =
        slow.length === 0 ? undefined : slow.find((f) => isIn(world.now, f) && f.side === sideOf(a, b));
      return found === undefined ? normal : { delay: found.delay, split: plan.split };
    },
    isBlack: (a, b) => black.length > 0 && black.some((f) => isIn(world.now, f) && f.side === sideOf(a, b)),
  };
}

/** How long an operator leaves a changed accounts file, ms. */
const MEND_MS = 20_000;

/** Whether no account in the accounts file can be used just now, or a moment ago: then a relay does not start. */
export const isBeingMended = (plan: Plan, now: number): boolean =>
  plan.faults.some(
    (f) =>
      f.kind === 'reload' &&
      (f.edit === 'unreadable' || f.edit === 'typo') &&
      now >= f.at &&
      now <= f.at + MEND_MS + 1_000,
  );

const GRAPH_ANSWERS = [504, 503, 500, 429, 200, 'lost', 'lost', 'hang', 'refused', undefined] as const;
/** Said with an honest answer too, 202 among them, s. */
const RETRY_AFTER = [undefined, undefined, 0, 3] as const;

function rollGraphMood(roll: () => number): GraphMood {
  const answer = GRAPH_ANSWERS[Math.floor(roll() * GRAPH_ANSWERS.length)];
  const kind = roll();
  // An honest answer is only said of what is done.
  const done = answer === undefined || kind < 0.4 ? 'yes' : kind < 0.6 ? 'late' : 'no';
  const retryAfter = RETRY_AFTER[Math.floor(roll() * RETRY_AFTER.length)];
  return {
    delayMs: 20 + roll() * 3_000,
    done,
    answer,
    retryAfter,
    hiddenMs: roll() < 0.3 ? roll() * 15_000 : 0,
  };
}

const diceOf = (plan: Plan, fault: Fault): (() => number) =>
  createRandom(plan.seed).branch(JSON.stringify(fault));

export function applyFaults(plan: Plan, cast: Cast): void {
  const { world, provider, tokens, clients } = cast;
  const dice = (fault: Fault): (() => number) => diceOf(plan, fault);
  const graphFaults = plan.faults.filter((f) => f.kind === 'graph').map((f) => ({ ...f, roll: dice(f) }));
  const healthyGraph = cast.graph.mood();
  cast.graph.mood = () => {
    const found = graphFaults.find((f) => isIn(world.now, f));
    return found === undefined || found.roll() >= found.chance ? healthyGraph : rollGraphMood(found.roll);
  };
  const moods = plan.faults.filter((f) => f.kind === 'mood').map((f) => ({ ...f, roll: dice(f) }));
  provider.mood = (stage) => {
    let mood: Mood | undefined;
    for (const m of moods)
      if (m.stage === stage && isIn(world.now, m) && m.roll() < m.chance) mood ??= m.mood;
    return mood;
  };
  const slow = plan.faults.filter((f) => f.kind === 'token').map((f) => ({ ...f, roll: dice(f) }));
  tokens.mood = () => {
    for (const m of slow) if (isIn(world.now, m) && m.roll() < m.chance) return m.mood;
    return { delayMs: 20 };
  };
  const leaving = plan.faults.filter((f) => f.kind === 'hang up').map((f) => ({ ...f, roll: dice(f) }));
  for (const client of clients)
    client.hangUp = (point) => {
      for (const l of leaving)
        if (l.point === point && isIn(world.now, l) && l.roll() < l.chance) return l.how;
      return 'no';
    };
  const strange = plan.faults.filter((f) => f.kind === 'client login').map((f) => ({ ...f, roll: dice(f) }));
  for (const client of clients)
    client.loginHabit = () => strange.find((f) => isIn(world.now, f) && f.roll() < f.chance)?.how ?? 'right';
  const broken = plan.faults.filter((f) => f.kind === 'disk');
  if (broken.length > 0)
    cast.files.fault = (operation, path) =>
      path.endsWith('accounts.json')
        ? undefined
        : broken.find((f) => isIn(world.now, f) && (f.code !== 'ENOSPC' || operation === 'write'))?.code;
  for (const fault of plan.faults) befall(fault, plan, cast);
}

/** How old a refresh token is that only its relay may know, ms: longer where Redis is in trouble and there is nothing beside it. */
function unsavedMs({ store, keepsBeside, faults }: Plan, now: number): number {
  if (store === 'redis' && keepsBeside) return 5_000;
  const since = faults.flatMap((f) =>
    f.kind === (store === 'redis' ? 'redis' : 'disk') && now >= f.from && now < f.to + 20_000
      ? [now - f.from]
      : [],
  );
  return Math.max(5_000, ...since);
}

/** Redis has lost everything, is not back yet, and relays have nothing beside it: what one of them knows ends with it. */
const hasForgotten = ({ keepsBeside, faults }: Plan, now: number): boolean =>
  !keepsBeside && faults.some((f) => f.kind === 'redis' && f.loses && now >= f.from && now < f.to + 20_000);

/** What happens at a time. */
function befall(fault: Fault, plan: Plan, cast: Cast): void {
  const { world, provider, tokens, relays, operator, network } = cast;
  const at = (ms: number, task: () => void): void => void world.after(operator, ms - world.now, task);
  switch (fault.kind) {
    case 'provider down':
      at(fault.from, () => provider.down(fault.how));
      at(fault.to, () => provider.up());
      return;
    case 'revoke access':
      at(fault.at, () => {
        for (const account of plan.accounts) tokens.revokeAccess(account.email);
        world.note('access tokens are revoked');
      });
      return;
    case 'break': {
      const dice = createRandom(plan.seed).branch(JSON.stringify(fault));
      const isWanted = (name: string): boolean =>
        fault.side === 'provider' ? name === provider.name : name.startsWith('client');
      at(fault.at, () => {
        for (let i = 0; i < fault.times; i++)
          if (network.breakOne(dice, (end) => isWanted(end.actor.name) || isWanted(end.peer.actor.name)))
            world.note(`a connection of ${fault.side} is reset`);
      });
      return;
    }
    case 'clock':
      at(fault.at, () => relays[fault.relay]?.stepClock(fault.ms));
      return;
    case 'reload':
      at(fault.at, () => relays[fault.relay]?.reload(cast.accountsFile(fault.edit)));
      if (fault.edit !== 'nothing')
        at(plan.hasGroups ? plan.activeMs - 1 : Math.min(plan.activeMs, fault.at + MEND_MS), () =>
          relays[fault.relay]?.reload(cast.accountsFile()),
        );
      return;
    case 'stop':
      at(fault.from, () => {
        if (hasForgotten(plan, world.now))
          for (const { email } of plan.accounts) tokens.lostGrants.add(email);
        relays[fault.relay]?.stop(fault.deadlineMs, (left) => cast.onStopped(left, fault.deadlineMs));
      });
      at(fault.to + fault.deadlineMs + 30_000, () => relays[fault.relay]?.start());
      return;
    case 'kill':
      at(fault.from, () => {
        const relay = relays[fault.relay];
        const died = relay?.actor;
        if (relay === undefined || died === undefined) return;
        // What was rotated a moment ago may not have been kept yet: SIGKILL cannot be healed.
        for (const { email } of plan.accounts)
          if (
            world.now - tokens.rotatedAt(email) < unsavedMs(plan, world.now) ||
            hasForgotten(plan, world.now)
          )
            tokens.lostGrants.add(email);
        tokens.killed.add(died);
        relay.kill(fault.how);
      });
      at(fault.to, () => relays[fault.relay]?.start());
      return;
    case 'redis':
      at(fault.from, () => {
        // Nobody is there who could give it again.
        const isAlone = relays.every((relay) => relay.actor === undefined || relay.isStopping);
        if (fault.loses && isAlone && !plan.keepsBeside)
          for (const { email } of plan.accounts) tokens.lostGrants.add(email);
        cast.redis.setState(fault.state === 'cut' ? 'up' : fault.state, fault.loses);
      });
      if (fault.state === 'cut') {
        const roll = diceOf(plan, fault);
        for (let ms = fault.from; ms < fault.to; ms += 200 + roll() * 6_000) at(ms, () => cast.redis.cut());
      }
      at(fault.to, () => cast.redis.setState('up'));
      return;
    case 'admin':
      at(fault.from, () => administer(fault, plan, cast));
      if (fault.what === 'drain') at(fault.to, () => resume(fault, plan, cast));
      return;
    case 'graph':
    case 'mood':
    case 'token':
    case 'hang up':
    case 'client login':
    case 'black':
    case 'slow path':
    case 'disk':
      return;
    default:
      fault satisfies never;
  }
}

type AdminFault = Extract<Fault, { kind: 'admin' }>;

/** Longer than a token endpoint is waited for, and those before in its line, ms. */
const ADMIN_MS = 180_000;

/** The operator asks a running relay; it answers, and tells no secret. */
function administer({ relay, account, what }: AdminFault, plan: Plan, cast: Cast): void {
  const { world, operator } = cast;
  const host = cast.relays[relay];
  const id = plan.accounts[account]?.email ?? '';
  const process = host?.actor;
  if (host === undefined || process === undefined) return;
  world.note(`asks ${host.name} to ${what} ${id}`, operator);
  world.after(process, 0, () => {
    const { backend } = host;
    if (backend === undefined) return;
    const limit = world.after(operator, ADMIN_MS, () => {
      if (process.isAlive && host.actor === process && !host.isStopping)
        cast.onUnanswered(`${host.name} at ${what} ${id}`);
    });
    const answered = (answer: unknown): void => {
      limit.cancel();
      cast.texts.push(JSON.stringify([answer ?? null, [...backend.rows()], backend.tokenDetail(id) ?? null]));
    };
    const asked = {
      refresh: () => backend.refreshToken(id),
      retry: () => backend.retry(id),
      forget: () => backend.forgetToken(id),
      drain: () => backend.drain(id),
    }[what]();
    Promise.resolve<unknown>(asked).then(answered, (error: unknown) => answered(String(error)));
  });
}

/** Until a relay is there to hear it. */
function resume(fault: AdminFault, plan: Plan, cast: Cast): void {
  const { world, operator } = cast;
  const host = cast.relays.find((relay) => relay.backend !== undefined && !relay.isStopping);
  const process = host?.actor;
  if (host === undefined || process === undefined) {
    world.after(operator, 10_000, () => resume(fault, plan, cast));
    return;
  }
  const id = plan.accounts[fault.account]?.email ?? '';
  world.note(`asks ${host.name} to resume ${id}`, operator);
  for (const { actor, backend } of cast.relays)
    if (actor !== undefined) world.after(actor, 0, () => void backend?.resume(id));
}

/** The accounts file, as it is or as an operator's edit leaves it. */
export function writeAccounts(
  { accounts, tls, seed, hasGroups }: Pick<Plan, 'accounts' | 'tls' | 'seed' | 'hasGroups'>,
  grantOf: (email: string) => string,
  edit: Edit = 'nothing',
): string {
  const entries = accounts.map((account, i) => {
    const entry: Record<string, unknown> = {
      email: account.email,
      provider: 'simulated',
      client_id: 'client-1',
      refresh_token: grantOf(account.email),
      max_connections: account.maxConnections,
      min_connections: account.minConnections,
      messages_per_minute: account.messagesPerMinute,
      login_interval_ms: account.loginIntervalMs,
      ...(account.byGraph && edit !== 'off graph' ? { transport: 'graph' } : {}),
      ...(account.password === undefined ? {} : { password: account.password }),
    };
    if (i > 0) return entry;
    switch (edit) {
      case 'alias':
        return { ...entry, senders: ['alias@example.com'] };
      case 'rename':
        return { ...entry, account_id: 'renamed' };
      case 'limit':
        return { ...entry, max_connections: 1, min_connections: 0 };
      case 'typo':
        return { ...entry, max_conections: 3 };
      case 'unreadable':
        return { ...entry, email: undefined, emial: account.email };
      default:
        return entry;
    }
  });
  const written = hasGroups ? groupEntries(entries, edit, seed) : entries;
  const kept = edit === 'remove and add' ? written.slice(1) : written;
  return JSON.stringify({
    providers: {
      simulated: {
        smtp: tls === 'implicit' ? 'smtps://10.0.0.1:465' : 'starttls://10.0.0.1:587',
        token_url: 'https://login.example.net/token',
        scope: 'smtp',
        graph_url: GRAPH_URL,
      },
    },
    accounts: kept,
  });
}
