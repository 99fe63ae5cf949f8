/**
 * What was sent for one mailbox: messages of the last minute, of the day, recipients of the day, and what is
 * under way. Pure: both times are arguments, monotonic for the minute, wall for the day. Where several relays
 * share a mailbox it also tells all that this process did, and what happened since Redis was lost.
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
  /** Since Redis was lost. */
  isApart: boolean;
  /** Went out, or soon will without being asked for again. */
  isBegun: boolean;
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
  /** Since Redis was lost. */
  sentSinceLoss = 0;
  #sentAtLoss = 0;
  /** In the order of `at`. */
  #sent: Sent[] = [];
  #begun = 0;
  /** By kind and bucket (`m1967`). */
  readonly #day = new Map<string, number>();
  /** Of these, what earlier processes counted. */
  readonly #restored = new Map<string, number>();
  readonly #total = { m: 0, r: 0 };
  #totalAtLoss = { m: 0, r: 0 };

  /**
   * A message has its place at `at` (monotonic, perhaps a little later than now); `isApart`: Redis was not asked.
   * Unless `isBegun` it goes out when `start` says so.
   */
  begin(id: string, limits: MailboxLimits, at: number, wall: number, isApart: boolean, isBegun = true): void {
    this.held.add(id);
    if (limits.perMinute !== undefined) {
      this.#sent.push({ id, at, isApart, isBegun });
      if (isBegun) this.#begun++;
      if (isApart) this.sentSinceLoss++;
    }
    if (limits.perDay !== undefined) this.#count('m', wall, 1);
  }

  /** It is not under way any more, but counted. */
  park(id: string): void {
    if (this.held.delete(id)) this.#parked.add(id);
  }

  /** It is over; `unsent` gives its place back. */
  end(id: string, limits: MailboxLimits, wall: number, unsent: boolean, recipients: number): void {
    if (!this.held.delete(id) && !this.#parked.delete(id)) return;
    if (!unsent) {
      if (recipients > 0 && limits.recipientsPerDay !== undefined) this.#count('r', wall, recipients);
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
    if (sent.isApart) this.sentSinceLoss--;
    if (sent.isBegun) this.#begun--;
    return true;
  }

  /** Its place in the minute is at `at` from now on. */
  move(id: string, at: number, isApart: boolean): void {
    this.leaveMinute(id);
    const after = this.#sent.findLastIndex((s) => s.at <= at) + 1;
    this.#sent.splice(after, 0, { id, at, isApart, isBegun: true });
    this.#begun++;
    if (isApart) this.sentSinceLoss++;
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
    this.#sent.splice(after, 0, { id, at: now, isApart: sent?.isApart ?? false, isBegun: true });
    return 0;
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

  /** Redis is lost. */
  lost(now: number): void {
    this.#slide(now);
    this.heldAtLoss = this.held.size;
    this.#sentAtLoss = this.#sent.length;
    this.sentSinceLoss = 0;
    this.#totalAtLoss = { ...this.#total };
    for (const sent of this.#sent) sent.isApart = false;
  }

  /** Messages or recipients of the day's limits since Redis was lost. */
  daySinceLoss(kind: 'm' | 'r'): number {
    return this.#total[kind] - this.#totalAtLoss[kind];
  }

  /** Of those sent before Redis was lost: how many have left the minute meanwhile. */
  expiredSinceLoss(now: number): number {
    this.#slide(now);
    return this.#sentAtLoss - (this.#sent.length - this.sentSinceLoss);
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
      sent: this.#sent.filter(({ id }) => id !== RESTORED).map(({ id, at }) => [id, Math.round(now - at)]),
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
      sent: this.#sent.map((s) => Math.round(now - s.at)),
      day: Object.fromEntries(this.#day),
    };
  }

  /** What an earlier process did counts here too; `total` is this one's alone. */
  restore(taken: CountsSnapshot, now: number, wall: number): void {
    // A wall clock that stepped back makes nothing younger than it was.
    const since = Math.max(0, wall - taken.at);
    for (const age of taken.sent)
      this.#sent.push({ id: RESTORED, at: now - Math.max(0, age + since), isApart: false, isBegun: true });
    this.#sent.sort((a, b) => a.at - b.at);
    this.#begun += taken.sent.length;
    for (const [field, count] of Object.entries(taken.day))
      for (const counts of [this.#day, this.#restored]) counts.set(field, (counts.get(field) ?? 0) + count);
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
