/**
 * The network: streams of octets between two ends, each an actor's. What is written arrives later, in
 * other pieces, in order, or not at all. Owns every connection and who listens where. An `End` is what
 * a host's TCP gives to its program.
 */
import type { Random } from './random.ts';
import type { Actor, World } from './world.ts';

/** What an end hears, each as an event of its actor. */
export interface Ears {
  /** The other side has accepted; only at the end that dialed. */
  connected?(): void;
  refused?(code: string): void;
  /** False: nothing more until `resume`. */
  octets(chunk: Buffer): boolean | undefined;
  /** The other side sends nothing more. */
  fin(): void;
  reset(): void;
}

export interface End {
  readonly actor: Actor;
  readonly peer: End;
  readonly address: string;
  ears: Ears;
  /** True time when this side closed or was reset; undefined: open. */
  readonly closedAt: number | undefined;
  /** True time when this side was told that the other sends nothing more, or is gone. */
  readonly heardFinAt: number | undefined;
  readonly heardResetAt: number | undefined;
  /** `taken` comes when the other side's window has room again. */
  send(chunk: Buffer, taken?: () => void): void;
  /** Sends nothing more, still reads. */
  finish(): void;
  /** Closes both ways: what was sent still arrives, what comes is answered with a reset. */
  close(): void;
  /** Cuts: what is on its way is lost, the other side hears of it. */
  abort(): void;
  resume(): void;
  /** Octets sent so far, and the true time at which the octet `n` (from 0) was sent. */
  readonly sent: number;
  sentAt(n: number): number;
}

export interface Weather {
  /** One way, ms. */
  readonly delay: readonly [number, number];
  /** Chance that what arrives is cut into two pieces. */
  readonly split: number;
}

/** Faults of the paths between hosts; asked for every piece. */
export interface Paths {
  weather(a: Actor, b: Actor): Weather;
  /** What is sent now never arrives, and nobody is told. */
  isBlack(a: Actor, b: Actor): boolean;
}

export interface Network {
  listen(place: string, actor: Actor, accept: (end: End) => void): () => void;
  /** An end at once; `connected` or `refused` follow, or nothing at all in a black hole. */
  dial(actor: Actor, place: string, ears: Ears): End;
  /** As a killed process leaves them: closed, what is on its way arrives. */
  closeAllOf(actor: Actor): void;
  /** Open ends of an actor. */
  openOf(actor: Actor): readonly End[];
  /** Resets one connection that the dice choose among those that `concerns`; false: there is none. */
  breakOne(dice: Random, concerns: (end: End) => boolean): boolean;
}

/** What an end may have on its way before `taken` waits. */
const WINDOW_OCTETS = 64 * 1024;

export function createNetwork(world: World, paths: Paths): Network {
  const listeners = new Map<string, { readonly actor: Actor; readonly accept: (end: End) => void }>();
  const dice = world.random.branch('network');
  const open = new Set<Line>();
  let ports = 40_000;

  class Line implements End {
    readonly actor: Actor;
    readonly address: string;
    ears: Ears;
    peer!: Line;
    closedAt: number | undefined;
    heardFinAt: number | undefined;
    heardResetAt: number | undefined;
    sent = 0;
    #marks: { readonly upTo: number; readonly at: number }[] = [];
    /** On its way to the peer. */
    #way: Buffer[] = [];
    #octets = 0;
    #isFinSent = false;
    #isMoving = false;
    #isPeerFull = false;
    #waiting: (() => void)[] = [];
    /** Nothing that was sent arrives any more. */
    #isBlack = false;

    constructor(actor: Actor, address: string, ears: Ears) {
      this.actor = actor;
      this.address = address;
      this.ears = ears;
    }

    sentAt(n: number): number {
      return this.#marks.find((mark) => n < mark.upTo)?.at ?? Number.POSITIVE_INFINITY;
    }

    send(chunk: Buffer, taken?: () => void): void {
      if (this.closedAt !== undefined || this.#isFinSent) return;
      this.sent += chunk.length;
      const last = this.#marks.at(-1);
      if (last?.at === world.now) this.#marks[this.#marks.length - 1] = { upTo: this.sent, at: world.now };
      else this.#marks.push({ upTo: this.sent, at: world.now });
      this.#way.push(chunk);
      this.#octets += chunk.length;
      if (taken !== undefined) {
        if (this.#octets < WINDOW_OCTETS) taken();
        else this.#waiting.push(taken);
      }
      this.#move();
    }

    finish(): void {
      if (this.closedAt !== undefined || this.#isFinSent) return;
      this.#isFinSent = true;
      this.#move();
    }

    close(): void {
      if (this.closedAt !== undefined) return;
      this.finish();
      this.#shut();
      // Octets that nobody read: TCP says so with a reset.
      if (this.peer.#octets > 0 || this.peer.#isPeerFull) this.#tellReset();
    }

    abort(): void {
      if (this.closedAt !== undefined) return;
      this.#way = [];
      this.#octets = 0;
      this.#shut();
      this.#tellReset();
    }

    #shut(): void {
      this.closedAt = world.now;
      this.#waiting = [];
      open.delete(this);
    }

    #tellReset(): void {
      const { peer } = this;
      if (this.#isBlack || paths.isBlack(this.actor, peer.actor)) return;
      world.after(peer.actor, this.#delay(), () => peer.hearReset(), 'net');
    }

    hearReset(): void {
      if (this.closedAt !== undefined) return;
      this.heardResetAt = world.now;
      this.#way = [];
      this.#octets = 0;
      this.#shut();
      this.ears.reset();
    }

    resume(): void {
      const from = this.peer;
      if (!from.#isPeerFull) return;
      from.#isPeerFull = false;
      from.#move();
    }

    #delay(): number {
      const [least, most] = paths.weather(this.actor, this.peer.actor).delay;
      return dice.between(least, most);
    }

    #move(): void {
      if (this.#isMoving || this.#isPeerFull) return;
      if (this.#octets === 0 && !this.#isFinSent) return;
      this.#isMoving = true;
      world.after(this.peer.actor, this.#delay(), () => this.#arrive(), 'net');
    }

    #arrive(): void {
      this.#isMoving = false;
      const { peer } = this;
      if (paths.isBlack(this.actor, peer.actor)) this.#isBlack = true;
      if (this.#isBlack) return;
      if (this.#octets > 0) {
        if (peer.closedAt !== undefined) {
          this.#way = [];
          this.#octets = 0;
          // The answer to octets for a closed socket.
          if (this.closedAt === undefined)
            world.after(this.actor, this.#delay(), () => this.hearReset(), 'net');
          return;
        }
        let chunk = this.#way.length === 1 ? this.#way[0] : Buffer.concat(this.#way);
        chunk ??= Buffer.alloc(0);
        this.#way = [];
        if (chunk.length > 1 && dice.chance(paths.weather(this.actor, peer.actor).split)) {
          const cut = dice.between(1, chunk.length - 1);
          this.#way.push(chunk.subarray(cut));
          chunk = chunk.subarray(0, cut);
        }
        this.#octets -= chunk.length;
        if (peer.ears.octets(chunk) === false) this.#isPeerFull = true;
        if (this.#octets < WINDOW_OCTETS) {
          for (const taken of this.#waiting.splice(0)) world.after(this.actor, this.#delay(), taken, 'net');
        }
        this.#move();
      } else if (this.#isFinSent && peer.closedAt === undefined && peer.heardFinAt === undefined) {
        peer.heardFinAt = world.now;
        peer.ears.fin();
      }
    }
  }

  return {
    listen(place, actor, accept) {
      const entry = { actor, accept };
      listeners.set(place, entry);
      return () => {
        if (listeners.get(place) === entry) listeners.delete(place);
      };
    },
    dial(actor, place, ears) {
      const near = new Line(actor, `${actor.name}:${ports++}`, ears);
      open.add(near);
      const target = listeners.get(place);
      const host = target?.actor ?? actor;
      const [least, most] = paths.weather(actor, host).delay;
      const refuse = (code: string): void => {
        if (near.closedAt !== undefined) return;
        near.closedAt = world.now;
        open.delete(near);
        near.ears.refused?.(code);
      };
      const far = new Line(host, place, SILENT);
      near.peer = far;
      far.peer = near;
      if (paths.isBlack(actor, host)) return near;
      world.after(
        host,
        dice.between(least, most),
        () => {
          const listener = listeners.get(place);
          const answer = (task: () => void): void =>
            void world.after(actor, dice.between(least, most), task, 'net');
          if (listener === undefined || listener.actor !== host) {
            answer(() => refuse('ECONNREFUSED'));
            return;
          }
          if (near.closedAt !== undefined) return;
          open.add(far);
          answer(() => {
            if (near.closedAt === undefined) near.ears.connected?.();
          });
          listener.accept(far);
        },
        'net',
      );
      return near;
    },
    closeAllOf(actor) {
      for (const [place, listener] of listeners) if (listener.actor === actor) listeners.delete(place);
      for (const end of [...open]) if (end.actor === actor) end.close();
    },
    openOf: (actor) => [...open].filter((end) => end.actor === actor),
    breakOne(among, concerns) {
      const lines = [...open].filter((end) => open.has(end.peer) && concerns(end));
      if (lines.length === 0) return false;
      const line = among.pick(lines);
      world.after(line.actor, 0, () => line.hearReset(), 'net');
      world.after(line.peer.actor, 0, () => line.peer.hearReset(), 'net');
      return true;
    },
  };
}

export const SILENT: Ears = { octets: () => true, fin: () => undefined, reset: () => undefined };
