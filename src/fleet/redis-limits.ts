/**
 * What is asked of Redis about the limits of mailboxes. In: a message that wants a place, one that is over. Out:
 * Redis' answer. Owns what was given back and not said yet: where nobody waits for it, it travels with the next
 * question about the same mailbox, so that a busy mailbox costs one script a message.
 */

import { type Clock, systemClock } from '../clock.ts';
import { orMake } from '../or-make.ts';
import { isRefusal, KEY_PREFIX, type RedisConnection, type RedisScript } from '../redis.ts';
import { BUCKET_MS, BUCKETS, type CountsTold, type MailboxLimits } from '../relay/mailbox-counts.ts';
import { EXTEND, GIVE_BACK, LOGIN, PLACE_ENDS, REGISTER, RESERVE, START_LATE } from './scripts.ts';
import { LEASE_MS } from './share.ts';

/** What was given back waits this long for company, ms; nobody waits for it. */
const COMPANY_MS = 5;
/** Leases extended by one script. */
const EXTEND_AT_ONCE = 500;

export type PlaceEnd = keyof typeof PLACE_ENDS;

/** A place that is held. */
export interface Held {
  readonly mailboxId: string;
  readonly id: string;
  /** `begun`: its message is under way. `counted`: only that; another place at once is held for it. */
  readonly as: 'waiting' | 'begun' | 'counted';
}

export type LimitAnswer = readonly [
  what: 'granted' | 'busy' | 'minute' | 'day' | 'epoch',
  ms: number,
  held: number,
  minute: number,
  day: number,
  /** Relays that wait for a place at once, each once. */
  waiting: number,
  /** 1: this relay is among them, and is woken when it is its turn. */
  stands: number,
  /** Of the day. */
  recipients: number,
];

export interface RedisLimits {
  /** Rejects as `RedisConnection.run`. */
  reserve(
    mailboxId: string,
    limits: MailboxLimits,
    request: {
      readonly id: string;
      readonly maxWaitMs: number;
      readonly epoch: string;
      /** Whether this relay stands in the queue where there is no place, and where others of it wait behind this one. */
      readonly queues: 'never' | 'busy' | 'more';
    },
  ): Promise<LimitAnswer>;
  /** Nobody of this relay waits for a place any more. Nobody waits for it. */
  leaveQueue(mailboxId: string): void;
  /** What goes out now was given its place long ago. Rejects. */
  startLate(
    mailboxId: string,
    id: string,
    perMinute: number,
    maxWaitMs: number,
  ): Promise<{ readonly granted: boolean; readonly ms: number }>;
  /** `recipients` that were taken. `isAsking`: this relay asks for another place now. Nobody waits for it. */
  giveBack(mailboxId: string, id: string, as: PlaceEnd, recipients: number, isAsking: boolean): void;
  /** Redis is away: it hears of it when it is asked next. Recipients are registered. */
  giveBackLater(mailboxId: string, id: string, as: PlaceEnd): void;
  /** All that `teller` (a process) did by `wall`, ms since the epoch: Redis counts what it does not know. Rejects. */
  register(mailboxId: string, told: CountsTold, wall: number, teller?: string): Promise<void>;
  /** What is still held. Answers what had ended meanwhile and was not taken again. Rejects. */
  extend(held: readonly Held[]): Promise<readonly Held[]>;
  /** The wait, ms; below 0 where too long. Rejects. */
  login(mailboxId: string, intervalMs: number, maxWaitMs: number): Promise<number>;
  /** A place came free, and it is this relay's turn. */
  onFreed(listener: (mailboxId: string) => void): void;
  /** What was given back may not have been heard. */
  onUntold(listener: (mailboxId: string) => void): void;
  forget(mailboxId: string): void;
  /** Says what was not said yet. */
  close(): Promise<void>;
}

/** What is known of one mailbox: its keys, and what waits to be said. */
interface Mailbox {
  readonly reserve: readonly string[];
  readonly giveBack: readonly string[];
  /** Lease id, what became of it, recipients, of each. */
  unsaid: (string | number)[];
  cancel: (() => void) | undefined;
  /** Others wanted a place when Redis was asked last. */
  isWanted: boolean;
}

export function createRedisLimits(
  { redis, clock = systemClock }: { readonly redis: RedisConnection; readonly clock?: Clock },
  { prefix = KEY_PREFIX }: { readonly prefix?: string } = {},
): RedisLimits {
  const freed = `${prefix}:freed`;
  const mailboxes = new Map<string, Mailbox>();
  let untold: (mailboxId: string) => void = ignore;
  const key = (kind: string, mailboxId: string): string => `${prefix}:${kind}:${mailboxId}`;
  /** Sent whole it comes in its turn; by its digest it may have to be said again. */
  const whole = (script: RedisScript, keys: readonly string[], args: readonly (string | number)[]) =>
    redis.ask((r) => r.eval(script.text, { keys: [...keys], arguments: args.map(String) }));
  const toldOf = (mailboxId: string, teller = redis.instance): string =>
    key('told', `${teller}:${mailboxId}`);

  const mailboxOf = (mailboxId: string): Mailbox =>
    orMake(mailboxes, mailboxId, () => {
      const own = ['lease', 'pace', 'day', 'queue', 'seen'].map((kind) => key(kind, mailboxId));
      const told = toldOf(mailboxId);
      return {
        reserve: [`${prefix}:relays`, ...own, `${prefix}:epoch`, told],
        giveBack: [...own, told],
        unsaid: [],
        cancel: undefined,
        isWanted: false,
      };
    });

  function takeUnsaid(mailbox: Mailbox): readonly (string | number)[] {
    const { unsaid } = mailbox;
    mailbox.cancel?.();
    mailbox.cancel = undefined;
    mailbox.unsaid = [];
    return unsaid;
  }

  /** Where the connection ended, Redis may hold those places: they are given back again. Their recipients are registered. */
  function unheard(
    mailboxId: string,
    mailbox: Mailbox,
    said: readonly (string | number)[],
    error: unknown,
  ): void {
    if (said.length === 0) return;
    if (!isRefusal(error)) mailbox.unsaid.push(...withoutRecipients(said));
    untold(mailboxId);
  }

  async function say(mailboxId: string, mailbox: Mailbox): Promise<void> {
    const unsaid = takeUnsaid(mailbox);
    if (unsaid.length > 0)
      await redis
        .run(GIVE_BACK, mailbox.giveBack, [freed, mailboxId, '', ...unsaid])
        .catch((error: unknown) => unheard(mailboxId, mailbox, unsaid, error));
  }

  const giveBack: RedisLimits['giveBack'] = (mailboxId, id, as, recipients, isAsking) => {
    const mailbox = mailboxOf(mailboxId);
    mailbox.unsaid.push(id, PLACE_ENDS[as], recipients);
    if (mailbox.isWanted && !isAsking) void say(mailboxId, mailbox);
    else mailbox.cancel ??= clock.after(COMPANY_MS, () => void say(mailboxId, mailbox));
  };

  const giveBackLater: RedisLimits['giveBackLater'] = (mailboxId, id, as) => {
    mailboxOf(mailboxId).unsaid.push(id, PLACE_ENDS[as], 0);
    untold(mailboxId);
  };

  return {
    async reserve(mailboxId, limits, { id, maxWaitMs, epoch, queues }) {
      const mailbox = mailboxOf(mailboxId);
      const { atOnce, perMinute = 0, perDay = 0, recipientsPerDay = 0 } = limits;
      const unsaid = takeUnsaid(mailbox);
      const wants = [id, atOnce, LEASE_MS, perMinute, perDay, recipientsPerDay, maxWaitMs];
      const ticket = queues === 'never' ? '' : redis.instance;
      const args = [...wants, ticket, epoch, queues === 'more' ? 1 : 0, freed, mailboxId, ...unsaid];
      const answer = (await redis.run(RESERVE, mailbox.reserve, args).catch((error: unknown) => {
        unheard(mailboxId, mailbox, unsaid, error);
        // It, or half of it, may have been done.
        if (isRefusal(error)) giveBack(mailboxId, id, 'unsent', 0, false);
        else giveBackLater(mailboxId, id, 'unsent');
        throw error;
      })) as unknown as LimitAnswer;
      mailbox.isWanted = answer[5] > answer[6];
      return answer;
    },
    leaveQueue(mailboxId) {
      const mailbox = mailboxOf(mailboxId);
      const unsaid = takeUnsaid(mailbox);
      redis
        .run(GIVE_BACK, mailbox.giveBack, [freed, mailboxId, redis.instance, ...unsaid])
        .catch((error: unknown) => unheard(mailboxId, mailbox, unsaid, error));
    },
    async startLate(mailboxId, id, perMinute, maxWaitMs) {
      const [relays = '', , pace = ''] = mailboxOf(mailboxId).reserve;
      const [granted, ms] = (await redis.run(START_LATE, [relays, pace], [id, perMinute, maxWaitMs])) as [
        number,
        number,
      ];
      return { granted: granted === 1, ms };
    },
    giveBack,
    giveBackLater,
    async register(mailboxId, told, wall, teller) {
      const mailbox = mailboxOf(mailboxId);
      const [lease = '', pace = '', day = ''] = mailbox.giveBack;
      const unsaid = teller === undefined ? takeUnsaid(mailbox) : [];
      const words = wordsOf(told, wall);
      const keys = [lease, pace, day, toldOf(mailboxId, teller)];
      await whole(REGISTER, keys, [LEASE_MS, words.length, ...words, ...unsaid]).catch((error: unknown) => {
        unheard(mailboxId, mailbox, unsaid, error);
        throw error;
      });
    },
    async extend(held) {
      const ended: Held[] = [];
      for (let i = 0; i < held.length; i += EXTEND_AT_ONCE) {
        const some = held.slice(i, i + EXTEND_AT_ONCE);
        const leases = some.filter(({ as }) => as !== 'counted');
        const begun = some.filter(({ as }) => as !== 'waiting');
        const keys = [
          ...leases.map(({ mailboxId }) => mailboxOf(mailboxId).giveBack[0] ?? ''),
          ...begun.map(({ mailboxId }) => mailboxOf(mailboxId).giveBack[1] ?? ''),
        ];
        const words = leases.flatMap(({ id, as }) => [id, as === 'begun' ? 1 : 0]);
        const args = [LEASE_MS, leases.length, ...words, ...begun.map(({ id }) => id)];
        // Whole: what ends meanwhile must not be held again behind its end.
        for (const at of (await whole(EXTEND, keys, args)) as readonly number[]) {
          const lease = leases[at - 1];
          if (lease !== undefined) ended.push(lease);
        }
      }
      return ended;
    },
    login: async (mailboxId, intervalMs, maxWaitMs) =>
      Number(await redis.run(LOGIN, [key('login', mailboxId)], [intervalMs, maxWaitMs])),
    onUntold(listener) {
      untold = listener;
    },
    onFreed: (listener) =>
      redis.subscribe(freed, (text) => {
        const space = text.indexOf(' ');
        if (text.slice(0, space).split(',').includes(redis.instance)) listener(text.slice(space + 1));
      }),
    forget(mailboxId) {
      const mailbox = mailboxes.get(mailboxId);
      if (mailbox?.unsaid.length === 0) mailboxes.delete(mailboxId);
    },
    async close() {
      await Promise.all([...mailboxes].map(([mailboxId, mailbox]) => say(mailboxId, mailbox)));
    },
  };
}

/** As `REGISTER` takes it. */
function wordsOf({ at, held, sent, total, day }: CountsTold, wall: number): (string | number)[] {
  const since = Math.max(0, wall - at);
  const bucketNow = Math.floor(wall / BUCKET_MS);
  const days = Object.entries(day)
    .map(([field, count]) => ({ kind: field.charAt(0), age: bucketNow - Number(field.slice(1)), count }))
    .filter(({ age }) => age >= 0 && age < BUCKETS)
    .sort((a, b) => a.age - b.age)
    .flatMap(({ kind, age, count }) => [`${kind}${age}`, count]);
  const times = sent.flatMap(([id, ageMs]) => [id, ageMs + since]);
  return [held.length, ...held, sent.length, ...times, total.m, total.r, ...days];
}

const withoutRecipients = (unsaid: readonly (string | number)[]): readonly (string | number)[] =>
  unsaid.map((word, i) => (i % 3 === 2 ? 0 : word));

const ignore = (): void => undefined;
