/**
 * Whether a client has heard a reply. In: that something was written, the octets that came by then, the end of
 * the connection. Out: an answer to whoever asked while the reply was due.
 */
import type { Heard } from '../protocol/esmtp.ts';

export interface Hearing {
  /** Resolves with the client's next octets after the next write, or with the end of the connection. */
  heard(): Promise<Heard>;
  /** Somebody has asked and is not answered yet. */
  readonly isAsked: boolean;
  /** `octets`: that have come from the client so far. What came before the reply says nothing: clients send ahead. Infinite where more may have come than was read. */
  written(octets: number): void;
  came(octets: number): void;
  /** Those who have asked so far and are not answered. */
  pending(): readonly Asked[];
  /** Of what was written (to `those`) nothing has come back that says that the client is gone. */
  presume(those?: readonly Asked[]): void;
  /** The connection is gone. Idempotent. */
  ended(how: 'orderly' | 'broken'): void;
}

export interface Asked {
  readonly answer: (heard: Heard) => void;
  /** Octets that had come when the reply was written. */
  writtenAt?: number;
}

export function createHearing(): Hearing {
  let asked: Asked[] = [];
  let isOver = false;
  return {
    heard: () => (isOver ? Promise.resolve('no') : new Promise((resolve) => asked.push({ answer: resolve }))),
    get isAsked() {
      return asked.length > 0;
    },
    written(octets) {
      for (const one of asked) one.writtenAt ??= octets;
    },
    came(octets) {
      if (asked.length === 0) return;
      asked = asked.filter(({ answer, writtenAt }) => {
        if (writtenAt === undefined || octets <= writtenAt) return true;
        answer('yes');
        return false;
      });
    },
    pending: () => [...asked],
    presume(those = asked) {
      asked = asked.filter((one) => {
        if (one.writtenAt === undefined || !those.includes(one)) return true;
        one.answer('perhaps');
        return false;
      });
    },
    ended(how) {
      isOver = true;
      for (const { answer, writtenAt } of asked.splice(0))
        answer(how === 'orderly' && writtenAt !== undefined ? 'perhaps' : 'no');
    },
  };
}
