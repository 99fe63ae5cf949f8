/**
 * What was sent for one mailbox: messages of the last minute, of the day, recipients of the day, and what is
 * under way. Pure: both times are arguments, monotonic for the minute, wall for the day. Where several relays
 * share a mailbox it also tells all that this process did, and what happened since Redis was lost.
 */
import { isRecord } from '../protocol/json-object.ts';

/**
 * A minute, counted from the end of a message: whether its provider counts a message when it hears of it or when it has
 * taken it, none of its minutes holds more. Longer by what clocks that are being set run apart in a minute (500 ppm
 * each, RFC 5905 §7.1: 60 ms), by what rounding to a millisecond takes, and the same again, ms.
 */
export const WINDOW_MS = 60_100;
/** Between its place and its beginning a message takes this long without being counted anew, ms. */
export const PROMPT_MS = 100;
/** The day slides in steps of this: 96 numbers an account instead of one per message. */
export const BUCKET_MS = 15 * 60_000;
export const BUCKETS = 96;

/** What a provider allows one mailbox; undefined: no limit. */
export interface MailboxLimits {
  /** Messages at once. */
  readonly atOnce: number;
  /** Messages in any 60 s. */
  readonly perMinute: number | undefined;
  /** Messages in any 24 h. */
  readonly perDay: number | undefined;
  /** Accepted recipients in any 24 h. */
  readonly recipientsPerDay: number | undefined;
}

interface Sent {
  readonly id: string;
  /** When it has its place, or ended; monotonic ms. */
  at: number;
  /** `placed`: it may begin. `under_way`: it counts however long that takes. */
  state: 'placed' | 'under_way' | 'over';
}

/** What Redis said last of all relays together. */
export interface LastSeen {
  /** Monotonic ms. */
  readonly at: number;
  readonly minute: number;
  readonly day: number;
  /** Recipients of the day. */
  readonly recipients: number;
}

/** All that this process did and still counts; JSON. */
export interface CountsTold {
  /** ms since the epoch. */
  readonly at: number;
  /** Under way. */
  readonly held: readonly string[];
  /** Messages of the last minute, and how long before `at` they went, ms. */
  readonly sent: readonly (readonly [id: string, ageMs: number])[];
  /** Since the process began: messages and recipients of the day's limits. */
  readonly total: Readonly<Record<'m' | 'r', number>>;
  /** By kind and bucket, as in a snapshot. */
  readonly day: Readonly<Record<string, number>>;
}

/** JSON for a file. */
export interface CountsSnapshot {
  /** When it was taken, ms since the epoch. */
  readonly at: number;
  /** How long before that each message of the last minute went, ms; below 0: its place was still to come. */
  readonly sent: readonly number[];
  /** By kind and bucket, `m` messages and `r` recipients. */
  readonly day: Readonly<Record<string, number>>;
}

export const isCount = (value: unknown): value is number => typeof value === 'number' && value >= 0;

/** Counts by kind and bucket, as they come back from a file. */
export const isDay = (value: unknown): value is CountsSnapshot['day'] =>
  isRecord(value) &&
  Object.entries(value).every(([field, count]) => /^[mr]\d+$/.test(field) && isCount(count));

/** In place of the id of a message of an earlier process. */
const RESTORED = '';

export class MailboxCounts {
  /** Messages under way. */
  readonly held = new Set<string>();
  /** Counted, but not under way: their clients dawdle. */
  readonly #parked = new Set<string>();
  lastSeen: LastSeen | undefined;
  /** Held when Redis was lost: as many may go on. */
  heldAtLoss = 0;
  /** Of this minute when Redis was lost: as many may follow them. */
  minuteAtLoss = 0;
  /** In the order of `at`. */
  #sent: Sent[] = [];
  /** Of these, under way or over. */
  #begun = 0;
  /** By kind and bucket (`m1967`). */
  readonly #day = new Map<string, number>();
  /** Of these, what earlier processes counted. */
  readonly #restored = new Map<string, number>();
  readonly #total = { m: 0, r: 0 };
  #totalAtLoss = { m: 0, r: 0 };

  /** A message has its place at `at` (monotonic, perhaps later than now); it goes out when `start`, `started` or `move` says so. */
  begin(id: string, limits: MailboxLimits, at: number, wall: number): void {
    this.held.add(id);
    if (limits.perMinute !== undefined) this.#insert({ id, at, state: 'placed' });
    if (limits.perDay !== undefined) this.#count('m', wall, 1);
  }

  /** It is not under way any more, but counted. */
  park(id: string): void {
    if (this.held.delete(id)) this.#parked.add(id);
  }

  /** Of those the ones whose message went out all the same: in another place. */
  parkedUnderWay(): readonly string[] {
    if (this.#parked.size === 0) return [];
    return this.#sent.flatMap(({ id, state }) => (state === 'under_way' && this.#parked.has(id) ? [id] : []));
  }

  /** It is over; `unsent` gives its place back. */
  end(
    id: string,
    limits: MailboxLimits,
    now: number,
    wall: number,
    { unsent, recipients }: { readonly unsent: boolean; readonly recipients: number },
  ): void {
    if (!this.held.delete(id) && !this.#parked.delete(id)) return;
    if (!unsent) {
      if (recipients > 0 && limits.recipientsPerDay !== undefined) this.#count('r', wall, recipients);
      if (this.leaveMinute(id)) this.#insert({ id, at: now, state: 'over' });
      return;
    }
    if (limits.perDay !== undefined) this.#count('m', wall, -1);
    this.leaveMinute(id);
  }

  /** It has no place in the minute any more; true where it had one. */
  leaveMinute(id: string): boolean {
    const at = this.#sent.findLastIndex((s) => s.id === id);
    const [sent] = at < 0 ? [] : this.#sent.splice(at, 1);
    if (sent === undefined) return false;
    if (sent.state !== 'placed') this.#begun--;
    return true;
  }

  /** It is under way in the place it has. */
  started(id: string): void {
    const sent = this.#sent.findLast((s) => s.id === id);
    if (sent?.state !== 'placed') return;
    sent.state = 'under_way';
    this.#begun++;
  }

  /** It is under way, in a place at `at`. */
  move(id: string, at: number): void {
    this.leaveMinute(id);
    this.#insert({ id, at, state: 'under_way' });
  }

  /**
   * The message goes out now, which may be long after its place: 0, or how long it must wait so that no minute holds
   * more than `most` that have, ms.
   */
  start(id: string, most: number, now: number): number {
    const sent = this.#sent.findLast((s) => s.id === id);
    if (sent !== undefined && sent.state !== 'placed') return 0;
    const waitMs = this.beginWait(most, now);
    if (waitMs > 0) return waitMs;
    // Its place may have slid out of the minute, or be too old to stand for now.
    if (sent !== undefined && now - sent.at <= PROMPT_MS && sent.at <= now) this.started(id);
    else this.move(id, now);
    return 0;
  }

  #insert(sent: Sent): void {
    const after = this.#sent.findLastIndex((s) => s.at <= sent.at) + 1;
    this.#sent.splice(after, 0, sent);
    if (sent.state !== 'placed') this.#begun++;
  }

  #count(kind: 'm' | 'r', wall: number, by: number): void {
    const field = `${kind}${Math.floor(wall / BUCKET_MS)}`;
    const before = this.#day.get(field) ?? 0;
    const count = Math.max(0, before + by);
    this.#day.set(field, count);
    this.#total[kind] += count - before;
  }

  /** Messages of the last minute. */
  minute(now: number): number {
    this.#slide(now);
    return this.#sent.length;
  }

  /** How long a message must wait so that no minute holds more than `most`, ms. */
  minuteWait(most: number, now: number): number {
    const sent = this.minute(now);
    return sent < most ? 0 : leavesIn(this.#sent[sent - most], now);
  }

  /** The same where those with a later place ask again before they begin. */
  dueWait(most: number, now: number): number {
    this.#slide(now);
    const due = this.#sent.findLastIndex((s) => s.at <= now) + 1;
    return due < most ? 0 : leavesIn(this.#sent[due - most], now);
  }

  /** The same where all that have not begun ask again before they do. */
  beginWait(most: number, now: number): number {
    this.#slide(now);
    if (this.#begun < most) return 0;
    return leavesIn(this.#sent.filter((s) => s.state !== 'placed')[this.#begun - most], now);
  }

  /** What is left of minute and day, from 0 (none) to 1, of which `part` is this relay's. */
  room(limits: MailboxLimits, now: number, wall: number, part = 1): number {
    const { lastSeen } = this;
    const seen = lastSeen !== undefined && now - lastSeen.at < WINDOW_MS ? lastSeen : undefined;
    const left = (used: number, most: number | undefined): number =>
      most === undefined ? 1 : Math.max(0, 1 - used / (most * part));
    return Math.min(
      left(Math.max(this.minute(now), seen?.minute ?? 0), limits.perMinute),
      left(Math.max(this.ofDay('m', wall), seen?.day ?? 0), limits.perDay),
      left(this.ofDay('r', wall), limits.recipientsPerDay),
    );
  }

  /** When a full day has room again, ms from now; undefined where it has room. */
  fullDay(limits: MailboxLimits, wall: number): number | undefined {
    const isFull = (kind: 'm' | 'r', most: number | undefined): boolean =>
      most !== undefined && this.ofDay(kind, wall) >= most;
    const kind = isFull('m', limits.perDay) ? 'm' : isFull('r', limits.recipientsPerDay) ? 'r' : undefined;
    if (kind === undefined) return undefined;
    let oldest = Math.floor(wall / BUCKET_MS);
    for (const [field, count] of this.#day)
      if (field.startsWith(kind) && count > 0) oldest = Math.min(oldest, Number(field.slice(1)));
    return Math.max(1_000, (oldest + BUCKETS) * BUCKET_MS - wall);
  }

  /** Messages or recipients of the last 24 h. */
  ofDay(kind: 'm' | 'r', wall: number): number {
    const now = Math.floor(wall / BUCKET_MS);
    let total = 0;
    for (const [field, count] of this.#day) {
      const bucket = Number(field.slice(1));
      // What lies ahead was counted by a clock that stepped back since: it counts on, until its time.
      if (bucket <= now - BUCKETS || bucket > now + BUCKETS) this.#day.delete(field);
      else if (field.startsWith(kind)) total += count;
    }
    return total;
  }

  /** Redis is lost. What is over by `sureAt` may have been followed by others' messages. */
  lost(now: number, sureAt: number): void {
    this.#slide(now);
    this.heldAtLoss = this.held.size;
    this.minuteAtLoss = this.#sent.filter((s) => s.state !== 'over' || s.at > sureAt - WINDOW_MS).length;
    this.#totalAtLoss = { ...this.#total };
  }

  /** Messages or recipients of the day's limits since Redis was lost. */
  daySinceLoss(kind: 'm' | 'r'): number {
    return this.#total[kind] - this.#totalAtLoss[kind];
  }

  /** Something is under way, or went in the last minute. */
  isRecent(now: number): boolean {
    this.#slide(now);
    return this.held.size + this.#parked.size + this.#sent.length > 0;
  }

  /** Nothing worth remembering. */
  isEmpty(now: number, wall: number): boolean {
    return !this.isRecent(now) && this.ofDay('m', wall) === 0 && this.ofDay('r', wall) === 0;
  }

  told(now: number, wall: number): CountsTold {
    this.#slide(now);
    return {
      at: wall,
      held: [...this.held],
      sent: this.#sent.filter(({ id }) => id !== RESTORED).map((s) => [s.id, ageOf(s, now)]),
      total: { ...this.#total },
      day: Object.fromEntries(
        [...this.#day].flatMap(([field, count]) => {
          const own = count - (this.#restored.get(field) ?? 0);
          return own > 0 ? [[field, own]] : [];
        }),
      ),
    };
  }

  snapshot(now: number, wall: number): CountsSnapshot | undefined {
    if (this.isEmpty(now, wall)) return undefined;
    return {
      at: wall,
      sent: this.#sent.map((s) => ageOf(s, now)),
      day: Object.fromEntries(this.#day),
    };
  }

  /** What an earlier process did counts here too; `total` is this one's alone. */
  restore(taken: CountsSnapshot, now: number, wall: number): void {
    // A wall clock that stepped back makes nothing younger than it was.
    const since = Math.max(0, wall - taken.at);
    for (const age of taken.sent)
      this.#insert({ id: RESTORED, at: now - Math.max(0, age + since), state: 'over' });
    for (const [field, count] of Object.entries(taken.day))
      for (const counts of [this.#day, this.#restored]) counts.set(field, (counts.get(field) ?? 0) + count);
    this.#slide(now);
  }

  #slide(now: number): void {
    while ((this.#sent[0]?.at ?? now) <= now - WINDOW_MS) {
      const oldest = this.#sent.shift();
      if (oldest === undefined) return;
      if (oldest.state !== 'placed') this.#begun--;
      if (oldest.state === 'under_way') this.#insert({ ...oldest, at: now });
    }
  }
}

/** When it leaves the minute at the soonest, ms from now. */
const leavesIn = (sent: Sent | undefined, now: number): number =>
  sent === undefined ? WINDOW_MS : Math.max(1, sent.at + WINDOW_MS - now);

/** What is under way may end at any time from now on. */
const ageOf = ({ at, state }: Sent, now: number): number =>
  state === 'under_way' ? 0 : Math.round(now - at);
