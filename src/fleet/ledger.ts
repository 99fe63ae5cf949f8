/**
 * What this relay itself sent and holds for one account: what it registers when Redis comes back, and what
 * its share is measured against while Redis is away. Pure: both times are arguments.
 */
import { BUCKET_MS, BUCKETS } from './scripts.ts';

const MINUTE_MS = 60_000;

interface Sent {
  readonly id: string;
  /** Monotonic ms. */
  readonly at: number;
  epoch: string | undefined;
}

export interface SendLimits {
  /** Messages at once. */
  readonly atOnce: number;
  readonly perMinute: number | undefined;
  readonly perDay: number | undefined;
  readonly recipientsPerDay: number | undefined;
}

/** What Redis said last of all relays together. */
export interface LastSeen {
  /** Monotonic ms. */
  readonly at: number;
  readonly minute: number;
  readonly day: number;
}

export class Ledger {
  readonly held = new Set<string>();
  lastSeen: LastSeen | undefined;
  /** Held when Redis went away: as many may go on. */
  heldAtLoss = 0;
  /** Of the last minute when Redis went away. */
  #sentAtLoss = 0;
  #sentSinceLoss = 0;
  #daySinceLoss = 0;
  #sent: Sent[] = [];
  /** By kind and bucket (`m1967`): counted, and of these known to Redis in `#epoch`. */
  readonly #day = new Map<string, { count: number; known: number }>();
  #epoch: string | undefined;

  /** A message goes out at `at` (monotonic, perhaps a little later than now); `epoch` where Redis knows of it. */
  begin(id: string, limits: SendLimits, at: number, wall: number, epoch: string | undefined): void {
    this.held.add(id);
    if (limits.perMinute !== undefined) {
      this.#sent.push({ id, at, epoch });
      if (epoch === undefined) this.#sentSinceLoss++;
    }
    if (limits.perDay !== undefined) this.#count('m', wall, 1, epoch);
    if (epoch === undefined) this.#daySinceLoss++;
  }

  /** It is over; `unsent` gives its place back. `epoch` where Redis hears of it. */
  end(
    id: string,
    limits: SendLimits,
    wall: number,
    unsent: boolean,
    recipients: number,
    epoch: string | undefined,
  ): void {
    if (!this.held.delete(id)) return;
    if (!unsent) {
      if (recipients > 0 && limits.recipientsPerDay !== undefined) this.#count('r', wall, recipients, epoch);
      return;
    }
    if (limits.perDay !== undefined) this.#count('m', wall, -1, epoch);
    const at = this.#sent.findIndex((s) => s.id === id);
    const [sent] = at < 0 ? [] : this.#sent.splice(at, 1);
    if (sent !== undefined && sent.epoch === undefined) this.#sentSinceLoss--;
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

  lost(now: number): void {
    this.#slide(now);
    this.heldAtLoss = this.held.size;
    this.#sentAtLoss = this.#sent.length;
    this.#sentSinceLoss = 0;
    this.#daySinceLoss = 0;
  }

  /** Messages of this relay in the last minute. */
  minute(now: number): number {
    this.#slide(now);
    return this.#sent.length;
  }

  /** Of those that were sent before Redis went away: how many have left the minute meanwhile. */
  expiredSinceLoss(now: number): number {
    this.#slide(now);
    return this.#sentAtLoss - (this.#sent.length - this.#sentSinceLoss);
  }

  get sentSinceLoss(): number {
    return this.#sentSinceLoss;
  }

  get daySinceLoss(): number {
    return this.#daySinceLoss;
  }

  /** When the oldest message but `from` leaves the minute, monotonic ms. */
  freeAt(from: number): number {
    return (this.#sent[from]?.at ?? Number.NEGATIVE_INFINITY) + MINUTE_MS;
  }

  ofDay(kind: 'm' | 'r', wall: number): number {
    const first = Math.floor(wall / BUCKET_MS) - BUCKETS;
    let total = 0;
    for (const [field, { count }] of this.#day) {
      if (Number(field.slice(1)) <= first) this.#day.delete(field);
      else if (field.startsWith(kind)) total += count;
    }
    return total;
  }

  /** Nothing worth remembering. */
  isEmpty(now: number, wall: number): boolean {
    this.#slide(now);
    return (
      this.held.size === 0 &&
      this.#sent.length === 0 &&
      this.ofDay('m', wall) === 0 &&
      this.ofDay('r', wall) === 0
    );
  }

  /** What Redis of `epoch` does not know: the arguments of REGISTER behind the lease time. Marks it as known. */
  takeUnknown(now: number, wall: number, epoch: string): (string | number)[] | undefined {
    this.#slide(now);
    this.#useEpoch(epoch);
    const unknown = this.#sent.filter((s) => s.epoch !== epoch);
    const args: (string | number)[] = [this.held.size, ...this.held, unknown.length];
    for (const sent of unknown) {
      args.push(sent.id, Math.round(now - sent.at));
      sent.epoch = epoch;
    }
    const bucketNow = Math.floor(wall / BUCKET_MS);
    let isNews = this.held.size > 0 || unknown.length > 0;
    for (const [field, bucket] of this.#day) {
      const age = bucketNow - Number(field.slice(1));
      if (bucket.count === bucket.known || age >= BUCKETS || age < 0) continue;
      args.push(`${field[0]}${age}`, bucket.count - bucket.known);
      bucket.known = bucket.count;
      isNews = true;
    }
    return isNews ? args : undefined;
  }

  #slide(now: number): void {
    let gone = 0;
    while ((this.#sent[gone]?.at ?? now) <= now - MINUTE_MS) gone++;
    if (gone > 0) this.#sent.splice(0, gone);
  }
}
