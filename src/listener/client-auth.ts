/**
 * Whether a client is who it says. In: user and password from AUTH. Out: the account, or the reply that
 * refuses. The same reply, after the same time, for an unknown user, an account without a password and a
 * wrong password; the state of tokens plays no part. Owns the lock-out table and the memory of successes.
 */
import { createHmac, randomBytes } from 'node:crypto';
import type { Account } from '../accounts/account.ts';
import type { AccountDirectory } from '../accounts/directory.ts';
import { verifyPassword } from '../accounts/scrypt.ts';
import { isLoopbackAddress } from '../protocol/cidr.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import { createLockout, lockoutKey } from './lockout.ts';

/** A refusal comes no sooner than this, ms: longer than scrypt at any cost in use, so that time tells nothing. */
const REFUSAL_MS = 300;
/** scrypt runs at once: half of libuv's four threads, the other half stay for DNS and files. */
const MAX_CONCURRENT = 2;
/** Waiting checks; beyond it AUTH is deferred. A minute's work at the cost kept hashes have. */
const MAX_WAITING = 1_000;
/** Successes remembered; beyond it the oldest goes. */
const MAX_REMEMBERED = 10_000;
/** Compared against for users that do not exist where no account has a hash to imitate; no password is behind it. */
const NOBODY = `scrypt$16384$8$1$${randomBytes(16).toString('base64url')}$${randomBytes(32).toString('base64url')}`;

const MISCONFIGURED = reply(454, '4.7.0', 'The accounts file of the relay has a mistake, try again later');
const WRONG = reply(535, '5.7.8', 'Authentication credentials invalid');

export interface ClientAuth {
  /** Never rejects. `locked`: the reply is the lock-out's, no password was looked at. */
  check(
    user: string,
    password: string,
    remoteAddress: string,
  ): Promise<{ readonly account: Account } | { readonly refusal: Reply; readonly locked: boolean }>;
}

export interface ClientAuthDeps {
  readonly directory: () => AccountDirectory;
  readonly now?: () => number;
}

export function createClientAuth(
  deps: ClientAuthDeps,
  options: { readonly refusalMs?: number } = {},
): ClientAuth {
  const now = deps.now ?? Date.now;
  const refusalMs = options.refusalMs ?? REFUSAL_MS;
  const lockout = createLockout();
  const remembered = new Set<string>();
  // The key never leaves this process, so what is remembered is of no use to anybody else.
  const memoryKey = randomBytes(32);
  let running = 0;
  const waiting: (() => void)[] = [];

  async function slot<T>(work: () => Promise<T>): Promise<T> {
    if (running >= MAX_CONCURRENT) await new Promise<void>((resolve) => waiting.push(resolve));
    else running += 1;
    try {
      return await work();
    } finally {
      // Handed on without going through zero, so that nobody can slip in between.
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  }

  async function isRight(account: Account | undefined, password: string): Promise<boolean> {
    const hash = account?.clientPassword?.hash;
    if (hash === undefined) {
      const imitated = deps.directory().accounts.find((a) => a.clientPassword !== undefined);
      await slot(() => verifyPassword(imitated?.clientPassword?.hash ?? NOBODY, password));
      return false;
    }
    const key = createHmac('sha256', memoryKey).update(`${hash}\0${password}`).digest('base64');
    if (remembered.has(key)) return true;
    if (!(await slot(() => verifyPassword(hash, password)))) return false;
    remembered.add(key);
    if (remembered.size > MAX_REMEMBERED) {
      const oldest = remembered.values().next();
      if (!oldest.done) remembered.delete(oldest.value);
    }
    return true;
  }

  return {
    async check(user, password, remoteAddress) {
      const started = performance.now();
      // Programs on this host share one address: one with a wrong password must not lock out the others.
      const isLocal = remoteAddress === '' || isLoopbackAddress(remoteAddress);
      const key = isLocal ? `local ${user.toLowerCase()}` : lockoutKey(remoteAddress);
      const until = lockout.lockedUntil(key, now());
      if (until !== undefined) {
        const seconds = Math.ceil((until - now()) / 1000);
        const text = `Too many wrong passwords, try again in ${seconds} s`;
        return { refusal: reply(454, '4.7.0', text), locked: true };
      }
      if (waiting.length >= MAX_WAITING) {
        return { refusal: reply(454, '4.7.0', 'Too many logins at once, try again later'), locked: true };
      }
      const directory = deps.directory();
      const account = directory.byUser(user);
      let isKnown = false;
      try {
        isKnown = await isRight(account, password);
      } catch {
        // A hash that cannot be read matches nothing; the accounts file's parser reports such ones.
      }
      if (isKnown && account !== undefined) {
        lockout.succeeded(key);
        return { account };
      }
      lockout.failed(key, now());
      const left = refusalMs - (performance.now() - started);
      if (left > 0) await new Promise((resolve) => setTimeout(resolve, left));
      // Our own file is wrong, not the password: a client that hears 535 gives its mail up.
      const isOurFault =
        account === undefined ? !directory.isComplete : directory.problemOf(account.id) !== undefined;
      return { refusal: isOurFault ? MISCONFIGURED : WRONG, locked: false };
    },
  };
}
