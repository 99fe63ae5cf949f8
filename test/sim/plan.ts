/**
 * What a run is: who takes part, what they are like, and which faults befall them. Made from a seed alone;
 * faults can be left out one by one, to find the fewest that still break something. Pure.
 */
import type { ClientHabits, HangUp, Point } from './client.ts';
import type { LoginHabit } from './client-login.ts';
import { withLogins } from './plan-logins.ts';
import type { Flavour, Mood, Stage } from './provider.ts';
import { createRandom, type Random } from './random.ts';
import type { TokenMood } from './token-endpoint.ts';

export const STORES = ['memory', 'file', 'redis'] as const;
export type StoreKind = (typeof STORES)[number];

interface Window {
  /** True time, ms. */
  readonly from: number;
  readonly to: number;
}

export type Fault =
  | ({ readonly kind: 'mood'; readonly stage: Stage; readonly mood: Mood; readonly chance: number } & Window)
  | ({ readonly kind: 'provider down'; readonly how: 'fin' | 'reset' | '421' } & Window)
  | ({ readonly kind: 'token'; readonly mood: TokenMood; readonly chance: number } & Window)
  | { readonly kind: 'revoke access'; readonly at: number }
  | ({
      readonly kind: 'hang up';
      readonly point: Point;
      readonly how: HangUp;
      readonly chance: number;
    } & Window)
  | ({ readonly kind: 'client login'; readonly how: LoginHabit | 'none'; readonly chance: number } & Window)
  | { readonly kind: 'break'; readonly side: Side; readonly at: number; readonly times: number }
  | ({ readonly kind: 'black'; readonly side: Side } & Window)
  | ({ readonly kind: 'slow path'; readonly side: Side; readonly delay: readonly [number, number] } & Window)
  | { readonly kind: 'clock'; readonly relay: number; readonly at: number; readonly ms: number }
  | { readonly kind: 'reload'; readonly relay: number; readonly at: number; readonly edit: Edit }
  | ({ readonly kind: 'stop'; readonly relay: number; readonly deadlineMs: number } & Window)
  | ({ readonly kind: 'kill'; readonly relay: number; readonly how: 'kill' | 'power' } & Window)
  | ({
      readonly kind: 'admin';
      readonly relay: number;
      readonly account: number;
      readonly what: AdminTask;
    } & Window)
  | ({ readonly kind: 'disk'; readonly code: string } & Window)
  | ({ readonly kind: 'graph'; readonly chance: number } & Window)
  | ({ readonly kind: 'redis'; readonly state: 'gone' | 'silent' | 'cut'; readonly loses: boolean } & Window);

/** What an operator asks of a running relay; `drain` is resumed at the end of its window. */
export type AdminTask = 'refresh' | 'retry' | 'forget' | 'drain';

export type Side = 'clients' | 'provider';

/** What an operator changes in the accounts file. */
export type Edit =
  | 'nothing'
  | 'alias'
  | 'limit'
  | 'remove and add'
  /** The first account has another name. */
  | 'rename'
  | 'typo'
  | 'unreadable'
  /** Every account delivers by SMTP. */
  | 'off graph'
  /** Of `groups.ts`; stays until the next. */
  | `groups ${number}`;

export interface AccountPlan {
  readonly email: string;
  readonly maxConnections: number;
  readonly minConnections: number;
  readonly messagesPerMinute: number;
  readonly loginIntervalMs: number;
  /** Mail leaves by Microsoft Graph. */
  readonly byGraph: boolean;
  /** What its clients log in with; undefined: none needed. */
  readonly password: string | undefined;
}

export interface MessagePlan {
  readonly client: number;
  readonly account: number;
  readonly recipients: number;
  readonly octets: number;
  readonly at: number;
}

export interface Plan {
  readonly seed: number;
  readonly flavour: Flavour;
  /** The provider's replies have enhanced codes, by which one can be told from another. */
  readonly isTagged: boolean;
  readonly tls: 'implicit' | 'starttls';
  /** The provider says 334 with the error as JSON before it refuses a token. */
  readonly challenges: boolean;
  readonly store: StoreKind;
  readonly relays: number;
  /** Relays on Redis have a state directory beside it. */
  readonly keepsBeside: boolean;
  /** What relays do for a grant while Redis is away. */
  readonly withoutStore: 'wait' | 'ask';
  readonly accounts: readonly AccountPlan[];
  readonly clients: readonly ClientHabits[];
  readonly messages: readonly MessagePlan[];
  /** Faults and messages begin within this, ms. */
  readonly activeMs: number;
  readonly delay: readonly [number, number];
  readonly split: number;
  readonly tokenLifeMs: number;
  readonly idleMs: number;
  readonly ageMs: number;
  readonly faults: readonly Fault[];
  /** All accounts may send as all senders (`groups.ts`). */
  readonly hasGroups?: true;
  /** What goes by Graph is of a device: all of one Message-ID, for one recipient. */
  readonly isDevice?: true;
  /** And all it says is the same, but for its Date. */
  readonly saysAgain?: true;
}

const MINUTE = 60_000;
/** So many times likelier than another fault is one of the provider's moods. */
const MOODS = 6;

/** Replies of real providers, by where they come. */
const REFUSALS: readonly (readonly [Stage, number, string])[] = [
  ['rcpt', 550, '5.1.1 no such user'],
  ['rcpt', 450, '4.2.1 the user is receiving mail at a rate that prevents delivery'],
  ['rcpt', 452, '4.2.2 over quota'],
  ['rcpt', 451, '4.7.1 greylisted, try again later'],
  ['mail', 451, '4.3.0 try again later'],
  ['end', 554, '5.7.1 message rejected as spam'],
  ['end', 451, '4.3.0 temporarily rejected'],
  ['end', 452, '4.3.1 insufficient resources'],
  ['end', 432, '4.3.2 Concurrent connections limit exceeded'],
  ['data', 451, '4.3.0 not now'],
  ['greeting', 421, '4.3.0 Temporary System Problem'],
  ['auth', 454, '4.7.0 Cannot authenticate due to temporary system problem'],
  ['mail', 421, '4.3.2 service not available'],
  ['rcpt', 421, '4.3.2 service not available'],
  ['end', 421, '4.3.2 service not available'],
];

type ResetReply = readonly [code: number, text: string];
export const RESETS: readonly [ResetReply, ...ResetReply[]] = [
  [500, '5.5.1 unrecognized command'],
  [503, '5.5.1 bad sequence of commands'],
  [550, '5.7.1 too many transactions on this connection'],
  [451, '4.3.0 not now'],
  [421, '4.3.2 service not available'],
];

const STAGES: readonly Stage[] = ['greeting', 'ehlo', 'auth', 'mail', 'rcpt', 'data', 'end'];
const POINTS: readonly Point[] = ['greeting', 'ehlo', 'mail', 'rcpt', 'data', 'body', 'dot'];

export function createPlan(seed: number): Plan {
  return withResets(withLogins(withGraph(createSmtpPlan(seed))));
}

/** A provider that is tired of a connection says so at RSET. Dice of their own. */
function withResets(plan: Plan): Plan {
  const dice = createRandom(plan.seed).branch('resets');
  if (plan.faults.length === 0 || !dice.chance(0.3)) return plan;
  const from = planMoment(dice, plan.activeMs, plan.messages);
  const [code, text] = dice.pick(RESETS);
  const mood: Mood = dice.chance(0.7)
    ? { kind: 'reply', code, text, closes: code === 421 }
    : { kind: 'drop', how: dice.pick(['fin', 'reset']), acts: dice.chance(0.5) };
  const fault: Fault = {
    kind: 'mood',
    stage: 'rset',
    mood,
    chance: dice.pick([0.3, 1]),
    from,
    to: Math.min(plan.activeMs, from + dice.pick([60_000, plan.activeMs])),
  };
  return { ...plan, faults: [...plan.faults, fault] };
}

/** Dice of their own, so that the rest of the plan is what it was. */
function withGraph(plan: Plan): Plan {
  const dice = createRandom(plan.seed).branch('graph');
  if (!dice.chance(0.5)) return plan;
  const accounts = plan.accounts.map((account) => ({ ...account, byGraph: dice.chance(0.6) }));
  const from = dice.between(0, Math.floor(plan.activeMs / 2));
  const fault: Fault = {
    kind: 'graph',
    chance: dice.pick([0.1, 0.3, 0.6]),
    from,
    to: Math.min(plan.activeMs, from + dice.between(30_000, 10 * MINUTE)),
  };
  const isCalm = plan.faults.length === 0 || !accounts.some((a) => a.byGraph);
  return { ...plan, accounts, faults: isCalm ? plan.faults : [...plan.faults, fault] };
}

function createSmtpPlan(seed: number): Plan {
  const dice = createRandom(seed).branch('plan');
  const store: StoreKind = dice.pick(['memory', 'memory', 'file', 'redis']);
  // Relays on Redis say every second that they live: an hour of that tells nothing.
  const longMs = (store === 'redis' ? dice.between(15, 35) : dice.between(30, 90)) * MINUTE;
  const activeMs = dice.chance(0.2) ? longMs : dice.between(1, 8) * MINUTE;
  const relays = store === 'redis' ? dice.between(1, 3) : 1;
  const accounts = Array.from({ length: dice.between(1, 3) }, (_, i) => planAccount(dice, i));
  const clients = Array.from({ length: dice.between(1, 4) }, () => planClient(dice));
  const isBurst = dice.chance(0.3);
  const count = dice.between(3, 25);
  const messages = Array.from({ length: count }, () => ({
    client: dice.between(0, clients.length - 1),
    account: dice.between(0, accounts.length - 1),
    recipients: dice.chance(0.6) ? 1 : dice.between(2, 5),
    octets: dice.chance(0.8) ? dice.between(50, 1500) : dice.between(1500, 20_000),
    at: dice.between(0, isBurst ? 20_000 : Math.floor(activeMs * 0.8)),
  }));
  const faults = Array.from({ length: dice.chance(0.1) ? 0 : dice.between(1, 6) }, () =>
    planFault(dice, activeMs, store, { relays, accounts: accounts.length, messages }),
  );
  return {
    seed,
    flavour: dice.pick(['chunking', 'pipelining', 'plain']),
    isTagged: dice.branch('tags').chance(0.7),
    tls: 'implicit',
    challenges: false,
    store,
    relays,
    keepsBeside: dice.branch('beside').chance(0.6),
    // Whoever is killed takes along what it alone had asked for: the price that is documented.
    withoutStore: faults.every(({ kind }) => kind !== 'kill' && kind !== 'stop')
      ? dice.branch('without').pick(['wait', 'ask'])
      : 'wait',
    accounts,
    clients,
    messages,
    activeMs,
    delay: dice.pick([
      [0, 0],
      [0, 3],
      [1, 60],
    ]),
    split: dice.pick([0, 0.1, 0.6]),
    tokenLifeMs: dice.pick([3_600_000, 3_600_000, 900_000]),
    idleMs: dice.pick([300_000, 60_000]),
    ageMs: dice.pick([1_200_000, 240_000]),
    faults,
  };
}

function planAccount(dice: Random, index: number): AccountPlan {
  const maxConnections = dice.between(1, 3);
  return {
    email: `user${index}@example.com`,
    maxConnections,
    minConnections: dice.between(0, maxConnections),
    messagesPerMinute: dice.pick([30, 30, 6, 0]),
    loginIntervalMs: dice.pick([0, 1_000]),
    byGraph: false,
    password: undefined,
  };
}

function planClient(dice: Random): ClientHabits {
  return {
    style: dice.pick(['lock-step', 'pipelining']),
    perConnection: dice.pick([1, 3, 100]),
    retryMs: dice.pick([
      [1_000, 10_000],
      [30_000, 120_000],
    ]),
    gapMs: dice.pick([
      [0, 0],
      [0, 2_000],
    ]),
    sasl: 'PLAIN',
  };
}

function planFault(
  dice: Random,
  activeMs: number,
  store: StoreKind,
  {
    relays,
    accounts,
    messages,
  }: { readonly relays: number; readonly accounts: number; readonly messages: readonly MessagePlan[] },
): Fault {
  const from = planMoment(dice, activeMs, messages);
  const to = Math.min(activeMs, from + dice.pick([5_000, 60_000, activeMs]));
  const window = { from, to };
  const relay = dice.between(0, relays - 1);
  const side: Side = dice.pick(['clients', 'provider']);
  const chance = dice.pick([0.1, 0.3, 1]);
  const kinds: (() => Fault)[] = [
    ...Array.from({ length: MOODS }, () => (): Fault => {
      return { kind: 'mood', ...planMood(dice), chance: dice.pick([0.2, 0.6, 1]), ...window };
    }),
    () => ({ kind: 'provider down', how: dice.pick(['fin', 'reset', '421']), ...window }),
    () => ({ kind: 'token', mood: planTokenMood(dice), chance, ...window }),
    () => ({ kind: 'revoke access', at: from }),
    () => ({
      kind: 'hang up',
      point: dice.pick(POINTS),
      how: dice.pick(['close', 'abort', 'half']),
      chance: dice.pick([0.1, 0.3]),
      ...window,
    }),
    () => ({ kind: 'break', side, at: from, times: dice.between(1, 4) }),
    () => ({ kind: 'break', side: 'provider', at: from, times: dice.between(1, 4) }),
    () => ({ kind: 'black', side, from, to: Math.min(to, from + 2 * MINUTE) }),
    () => ({ kind: 'slow path', side, delay: [200, 3_000], ...window }),
    () => ({ kind: 'clock', relay, at: from, ms: dice.pick([-3_600_000, 3_600_000, 90_000, -90_000]) }),
    () => ({
      kind: 'reload',
      relay,
      at: from,
      edit: dice.pick(['nothing', 'alias', 'limit', 'remove and add', 'typo', 'unreadable']),
    }),
    () => ({
      kind: 'stop',
      relay,
      deadlineMs: dice.pick([2_000, 30_000]),
      from,
      to: from + dice.between(1_000, 60_000),
    }),
    () => ({
      kind: 'kill',
      relay,
      how: store === 'file' ? dice.pick(['kill', 'power']) : 'kill',
      from,
      to: from + dice.between(500, 60_000),
    }),
  ];
  kinds.push(() => ({
    kind: 'admin',
    relay,
    account: dice.between(0, accounts - 1),
    what: dice.pick(['refresh', 'retry', 'forget', 'drain']),
    ...window,
  }));
  if (store === 'file')
    kinds.push(() => ({ kind: 'disk', code: dice.pick(['ENOSPC', 'EIO', 'EACCES']), ...window }));
  if (store === 'redis')
    kinds.push(
      () => ({
        kind: 'redis',
        state: dice.pick(['gone', 'silent', 'cut']),
        loses: dice.chance(0.2),
        ...window,
      }),
      () => ({
        kind: 'redis',
        state: dice.pick(['gone', 'silent', 'cut']),
        loses: dice.chance(0.2),
        ...window,
      }),
    );
  return dice.pick(kinds)();
}

/** Most faults come when somebody is there to suffer. */
export function planMoment(dice: Random, activeMs: number, messages: readonly MessagePlan[]): number {
  if (dice.chance(0.3)) return dice.between(0, Math.floor(activeMs * 0.8));
  return Math.max(0, dice.pick(messages).at - dice.between(0, 2_000));
}

function planMood(dice: Random): { readonly stage: Stage; readonly mood: Mood } {
  const stage = dice.pick(STAGES);
  const how = dice.between(0, 9);
  if (how < 4) {
    const [at, code, text] = dice.pick(REFUSALS);
    return { stage: at, mood: { kind: 'reply', code, text, closes: code === 421 } };
  }
  if (how < 7)
    return { stage, mood: { kind: 'drop', how: dice.pick(['fin', 'reset']), acts: dice.chance(0.5) } };
  if (how === 7) return { stage, mood: { kind: 'silence' } };
  if (how === 8 && dice.chance(0.5))
    return { stage, mood: { kind: 'late', ms: dice.pick([2_000, 20_000, 100_000]) } };
  return dice.chance(0.25)
    ? { stage, mood: { kind: 'drip', stepMs: 250 } }
    : { stage: 'end' as const, mood: { kind: 'extra', ms: dice.pick([0, 5, 500, 5_000]) } };
}

function planTokenMood(dice: Random): TokenMood {
  const trouble = dice.pick(['refuse', 'unavailable', 'lose', 'hang', 'drip', undefined] as const);
  return { delayMs: dice.pick([50, 2_000, 15_000, 40_000]), trouble };
}

/** A fault in one line. */
export function describeFault(fault: Fault): string {
  const { kind, ...rest } = fault;
  return `${kind} ${JSON.stringify(rest)}`;
}
