/**
 * What was sent for one mailbox: messages of the last minute, of the day, recipients of the day, and what is
 * under way. Pure: both times are arguments, monotonic for the minute, wall for the day. Where several relays
 * share a mailbox it also tells what Redis does not know yet, and what happened since Redis was lost.
 */
const MINUTE_MS = 60_000;
/** Between its place and its beginning a message takes this long without being counted anew, ms. */
export const PROMPT_MS = 100;
/** The day slides in steps of this: 96 numbers an account instead of one per message. */
export const BUCKET_MS = 15 * MINUTE_MS;
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
  /** Monotonic ms. */
  at: number;
  epoch: string | undefined;
  /** Went out, or soon will without being asked for again. */
  isBegun: boolean;
}

/** What Redis said last of all relays together. */
export interface LastSeen {
  /** Monotonic ms. */
  readonly at: number;
  readonly minute: number;
  readonly day: number;
}

/** JSON for a file. */
export interface CountsSnapshot {
  /** When it was taken, ms since the epoch. */
  readonly at: number;
  /** How long before that each message of the last minute went, ms. */
  readonly sent: readonly number[];
  /** By kind and bucket, `m` messages and `r` recipients. */
  readonly day: Readonly<Record<string, number>>;
}

export class MailboxCounts {
  /** Messages under way. */
  readonly held = new Set<string>();
  /** Counted, but not under way: their clients dawdle. */
  readonly #parked = new Set<string>();
  lastSeen: LastSeen | undefined;
  /** Held when Redis was lost: as many may go on. */
  heldAtLoss = 0;
  /** Since Redis was lost. */
  sentSinceLoss = 0;
  daySinceLoss = 0;
  #sentAtLoss = 0;
  /** In the order of `at`. */
  #sent: Sent[] = [];
  #begun = 0;
  /** By kind and bucket (`m1967`): counted, and of these known to Redis in `#epoch`. */
  readonly #day = new Map<string, { count: number; known: number }>();
  #epoch: string | undefined;

  /**
   * A message has its place at `at` (monotonic, perhaps a little later than now); `epoch` where Redis knows of it.
   * Unless `isBegun` it goes out when `start` says so.
   */
  begin(
    id: string,
    limits: MailboxLimits,
    at: number,
    wall: number,
    epoch: string | undefined,
    isBegun = true,
  ): void {
    this.held.add(id);
    if (limits.perMinute !== undefined) {
      this.#sent.push({ id, at, epoch, isBegun });
      if (isBegun) this.#begun++;
      if (epoch === undefined) this.sentSinceLoss++;
    }
    if (limits.perDay !== undefined) {
      this.#count('m', wall, 1, epoch);
      if (epoch === undefined) this.daySinceLoss++;
    }
  }

  /** It is not under way any more, but counted. */
  park(id: string): void {
    if (this.held.delete(id)) this.#parked.add(id);
  }

  /** It is over; `unsent` gives its place back. `epoch` where Redis hears of it. */
  end(
    id: string,
    limits: MailboxLimits,
    wall: number,
    unsent: boolean,
    recipients: number,
    epoch: string | undefined,
  ): void {
    if (!this.held.delete(id) && !this.#parked.delete(id)) return;
    if (!unsent) {
      if (recipients > 0 && limits.recipientsPerDay !== undefined) this.#count('r', wall, recipients, epoch);
      return;
    }
    if (limits.perDay !== undefined) this.#count('m', wall, -1, epoch);
    const at = this.#sent.findIndex((s) => s.id === id);
    const [sent] = at < 0 ? [] : this.#sent.splice(at, 1);
    if (sent === undefined) return;
    if (sent.epoch === undefined) this.sentSinceLoss--;
    if (sent.isBegun) this.#begun--;
  }

  /** Its place in the minute is at `at` from now on. */
  move(id: string, at: number, epoch: string | undefined): void {
    const from = this.#sent.findLastIndex((s) => s.id === id);
    if (from >= 0) this.#sent.splice(from, 1);
    else this.#begun++;
    const after = this.#sent.findLastIndex((s) => s.at <= at) + 1;
    this.#sent.splice(after, 0, { id, at, epoch, isBegun: true });
  }

  /**
   * The message goes out now, which may be long after its place: 0, or how long it must wait so that no minute holds
   * more than `most` that have, ms.
   */
  start(id: string, most: number, now: number): number {
    this.#slide(now);
    const at = this.#sent.findLastIndex((s) => s.id === id);
    const sent = this.#sent[at];
    if (sent?.isBegun === true) return 0;
    if (this.#begun >= most) {
      const oldest = this.#sent.filter((s) => s.isBegun)[this.#begun - most];
      return Math.max(1, (oldest?.at ?? now) + MINUTE_MS - now);
    }
    this.#begun++;
    if (sent !== undefined && now - sent.at <= PROMPT_MS) {
      sent.isBegun = true;
      return 0;
    }
    // Its place has slid out of the minute, or is too old to stand for now.
    if (sent !== undefined) this.#sent.splice(at, 1);
    const after = this.#sent.findLastIndex((s) => s.at <= now) + 1;
    this.#sent.splice(after, 0, { id, at: now, epoch: sent?.epoch, isBegun: true });
    return 0;
  }

  #count(kind: 'm' | 'r', wall: number, by: number, epoch: string | undefined): void {
    this.#useEpoch(epoch);
    const field = `${kind}${Math.floor(wall / BUCKET_MS)}`;
    const bucket = this.#day.get(field) ?? { count: 0, known: 0 };
    bucket.count = Math.max(0, bucket.count + by);
    if (epoch !== undefined) bucket.known = Math.max(0, bucket.known + by);
    this.#day.set(field, bucket);
  }

  /** Another epoch: Redis knows nothing of what it was told before. */
  #useEpoch(epoch: string | undefined): void {
    if (epoch === undefined || epoch === this.#epoch) return;
    this.#epoch = epoch;
    for (const bucket of this.#day.values()) bucket.known = 0;
  }

  /** Messages of the last minute. */
  minute(now: number): number {
    this.#slide(now);
    return this.#sent.length;
  }

  /** How long a message must wait so that no minute holds more than `most`, ms. */
  minuteWait(most: number, now: number): number {
    const sent = this.minute(now);
    return sent < most ? 0 : Math.max(0, this.leavesAt(sent - most) - now);
  }

  /** When the message that is the `nth` from the oldest leaves the minute, monotonic ms. */
  leavesAt(nth: number): number {
    return (this.#sent[nth]?.at ?? Number.NEGATIVE_INFINITY) + MINUTE_MS;
  }

  /** What is left of minute and day, from 0 (none) to 1, of which `part` is this relay's. */
  room(limits: MailboxLimits, now: number, wall: number, part = 1): number {
    const { lastSeen } = this;
    const seen = lastSeen !== undefined && now - lastSeen.at < MINUTE_MS ? lastSeen : undefined;
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
    for (const [field, { count }] of this.#day)
      if (field.startsWith(kind) && count > 0) oldest = Math.min(oldest, Number(field.slice(1)));
    return Math.max(1_000, (oldest + BUCKETS) * BUCKET_MS - wall);
  }

  /** Messages or recipients of the last 24 h. */
  ofDay(kind: 'm' | 'r', wall: number): number {
    const now = Math.floor(wall / BUCKET_MS);
    let total = 0;
    for (const [field, { count }] of this.#day) {
      const bucket = Number(field.slice(1));
      // What lies ahead was counted by a clock that stepped back since: it counts on, until its time.
      if (bucket <= now - BUCKETS || bucket > now + BUCKETS) this.#day.delete(field);
      else if (field.startsWith(kind)) total += count;
    }
    return total;
  }

  /** Redis is lost. */
  lost(now: number): void {
    this.#slide(now);
    this.heldAtLoss = this.held.size;
    this.#sentAtLoss = this.#sent.length;
    this.sentSinceLoss = 0;
    this.daySinceLoss = 0;
  }

  /** Of those sent before Redis was lost: how many have left the minute meanwhile. */
  expiredSinceLoss(now: number): number {
    this.#slide(now);
    return this.#sentAtLoss - (this.#sent.length - this.sentSinceLoss);
  }

  /** Nothing worth remembering. */
  isEmpty(now: number, wall: number): boolean {
    this.#slide(now);
    const isIdle = this.held.size + this.#parked.size + this.#sent.length === 0;
    return isIdle && this.ofDay('m', wall) === 0 && this.ofDay('r', wall) === 0;
  }

  /** What Redis of `epoch` does not know: held ids, messages with their age, day counts by kind and age in buckets. Marks it as known; undefined where there is nothing. */
  takeUnknown(now: number, wall: number, epoch: string): (string | number)[] | undefined {
    this.#slide(now);
    this.#useEpoch(epoch);
    const unknown = this.#sent.filter((s) => s.epoch !== epoch);
    const words: (string | number)[] = [this.held.size, ...this.held, unknown.length];
    for (const sent of unknown) {
      words.push(sent.id, Math.round(now - sent.at));
      sent.epoch = epoch;
    }
    const bucketNow = Math.floor(wall / BUCKET_MS);
    let isNews = this.held.size > 0 || unknown.length > 0;
    for (const [field, bucket] of this.#day) {
      const age = bucketNow - Number(field.slice(1));
      if (bucket.count === bucket.known || age >= BUCKETS || age < 0) continue;
      words.push(`${field.charAt(0)}${age}`, bucket.count - bucket.known);
      bucket.known = bucket.count;
      isNews = true;
    }
    return isNews ? words : undefined;
  }

  snapshot(now: number, wall: number): CountsSnapshot | undefined {
    if (this.isEmpty(now, wall)) return undefined;
    const day = Object.fromEntries([...this.#day].map(([field, { count }]) => [field, count]));
    return { at: wall, sent: this.#sent.map((s) => Math.round(now - s.at)), day };
  }

  restore(taken: CountsSnapshot, now: number, wall: number): void {
    // A wall clock that stepped back makes nothing younger than it was.
    const since = Math.max(0, wall - taken.at);
    for (const [i, age] of taken.sent.entries())
      this.#sent.push({ id: `restored${i}`, at: now - age - since, epoch: undefined, isBegun: true });
    this.#begun += taken.sent.length;
    for (const [field, count] of Object.entries(taken.day)) this.#day.set(field, { count, known: 0 });
    this.#slide(now);
  }

  #slide(now: number): void {
    let gone = 0;
    while ((this.#sent[gone]?.at ?? now) <= now - MINUTE_MS) {
      if (this.#sent[gone]?.isBegun === true) this.#begun--;
      gone++;
    }
    if (gone > 0) this.#sent.splice(0, gone);
  }
}
