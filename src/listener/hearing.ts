/**
 * Whether a client has heard a reply. In: that something was written, the octets that came by then, the end of
 * the connection. Out: an answer to whoever asked while the reply was due.
 */
import type { Heard } from '../protocol/esmtp.ts';

export interface Asked {
  readonly answer: (heard: Heard) => void;
  /** Octets that had come when the reply was written. */
  writtenAt?: number;
}

export class Hearing {
  #asked: Asked[] = [];
  #isOver = false;

  /** Somebody has asked and is not answered yet. */
  get isAsked(): boolean {
    return this.#asked.length > 0;
  }

  /** Those who have asked so far and are not answered. */
  get pending(): readonly Asked[] {
    return [...this.#asked];
  }

  /** Resolves with the client's next octets after the next write, or with the end of the connection. */
  heard(): Promise<Heard> {
    return this.#isOver
      ? Promise.resolve('no')
      : new Promise((resolve) => this.#asked.push({ answer: resolve }));
  }

  /** `octets`: that have come from the client so far. What came before the reply says nothing: clients send ahead. Infinite where more may have come than was read. */
  written(octets: number): void {
    for (const one of this.#asked) one.writtenAt ??= octets;
  }

  came(octets: number): void {
    this.#asked = this.#asked.filter(({ answer, writtenAt }) => {
      if (writtenAt === undefined || octets <= writtenAt) return true;
      answer('yes');
      return false;
    });
  }

  /** Of what was written (to `those`) nothing has come back that says that the client is gone. */
  presume(those: readonly Asked[] = this.#asked): void {
    this.#asked = this.#asked.filter((one) => {
      if (one.writtenAt === undefined || !those.includes(one)) return true;
      one.answer('perhaps');
      return false;
    });
  }

  /** The connection is gone. Idempotent. */
  ended(how: 'orderly' | 'broken'): void {
    this.#isOver = true;
    for (const { answer, writtenAt } of this.#asked.splice(0))
      answer(how === 'orderly' && writtenAt !== undefined ? 'perhaps' : 'no');
  }
}
