/**
 * Whether a client is who it says. In: user and password from AUTH. Out: the account, or the reply that
 * refuses and the reason for the log. The same reply, after the same time, for an unknown user, an account
 * that cannot be used here and a wrong password; the state of tokens plays no part. Owns the lock-out
 * table and the memory of successes.
 */

import { createHmac, randomBytes } from 'node:crypto';
import type { Account } from '../accounts/account.ts';
import type { AccountDirectory } from '../accounts/directory.ts';
import { parseScryptHash, verifyPassword } from '../accounts/scrypt.ts';
import { type Clock, pause, systemClock } from '../clock.ts';
import { dropOldest } from '../drop-oldest.ts';
import { orMake } from '../or-make.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import { foldAddress } from '../protocol/text.ts';
import { createSemaphore } from '../semaphore.ts';
import type { Origin } from './door.ts';
import { createLockout, lockoutKey } from './lockout.ts';

/** A refusal comes after a multiple of this, ms, or of twice the time the costliest hash takes where that is longer. */
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
const TOO_MANY = reply(454, '4.7.0', 'Too many logins at once, try again later');

/** Why a login failed, for the log; the client hears none of it. */
export type AuthFailure =
  | 'unknown user'
  | 'wrong password'
  | 'account has no password and this listener needs one'
  | 'account may not be used on this listener'
  | 'the accounts file has a mistake'
  | 'locked out after wrong passwords'
  | 'too many logins at once';

export type AuthVerdict =
  | { readonly account: Account }
  | { readonly refusal: Reply; readonly failure: AuthFailure };

export interface ClientAuth {
  /** Never rejects. */
  check(user: string, password: string, origin: Origin): Promise<AuthVerdict>;
}

export interface ClientAuthDeps {
  readonly directory: () => AccountDirectory;
  /** May this account be used on this listener? Default: any. */
  readonly serves?: (account: Account) => boolean;
  readonly clock?: Clock;
  /** Runs on other threads, hence a parameter. */
  readonly verify?: typeof verifyPassword;
}

/** `needsPassword`: an account without a password cannot be used, also by a trusted client. */
export function createClientAuth(
  deps: ClientAuthDeps,
  options: { readonly refusalMs?: number; readonly needsPassword?: boolean } = {},
): ClientAuth {
  const clock = deps.clock ?? systemClock;
  const verify = deps.verify ?? verifyPassword;
  const serves = deps.serves ?? (() => true);
  const refusalMs = options.refusalMs ?? REFUSAL_MS;
  const lockout = createLockout();
  const remembered = new Set<string>();
  // The key never leaves this process, so what is remembered is of no use to anybody else.
  const memoryKey = randomBytes(32);
  /** The costliest hash of a directory, and how long it takes, ms. */
  const costliest = new WeakMap<AccountDirectory, Promise<{ readonly hash: string; readonly ms: number }>>();
  let waitingRows = 0;
  const checks = createSemaphore(MAX_CONCURRENT);

  /** Measured once for each directory, by the first who is refused. */
  const costliestOf = (directory: AccountDirectory) =>
    orMake(costliest, directory, () => {
      const hash = costliestHash(directory);
      return checks.run(async () => {
        const startedAt = clock.monotonic();
        await verify(hash, '').catch(() => false);
        return { hash, ms: clock.monotonic() - startedAt };
      });
    });

  const memoryOf = (hash: string, password: string): string =>
    createHmac('sha256', memoryKey).update(`${hash}\0${password}`).digest('base64');

  async function isRight(hash: string | undefined, password: string): Promise<boolean> {
    if (hash === undefined) {
      const imitated = await costliestOf(deps.directory());
      await checks.run(() => verify(imitated.hash, password));
      return false;
    }
    if (!(await checks.run(() => verify(hash, password)))) return false;
    remembered.add(memoryOf(hash, password));
    dropOldest(remembered, MAX_REMEMBERED);
    return true;
  }

  /** After the same time whatever was wrong and whatever the hash costs. */
  async function refuseLater(
    startedAt: number,
    account: Account | undefined,
    judgedBy: AccountDirectory,
  ): Promise<AuthVerdict> {
    const { ms } = await costliestOf(deps.directory());
    const step = Math.max(refusalMs, 2 * ms);
    const elapsed = clock.monotonic() - startedAt;
    const left = step === 0 ? 0 : Math.max(1, Math.ceil(elapsed / step)) * step - elapsed;
    if (left > 0) await pause(clock, left);
    // Our own file is wrong, not the password: a client that hears 535 gives its mail up.
    // The file as it was when the password was compared: it may have been mended since.
    const isOurFault =
      account === undefined
        ? !judgedBy.isComplete || judgedBy.accounts.length === 0
        : judgedBy.problemOf(account.id) !== undefined;
    if (isOurFault) return { refusal: MISCONFIGURED, failure: 'the accounts file has a mistake' };
    return { refusal: WRONG, failure: failureOf(account) };
  }

  function failureOf(account: Account | undefined): AuthFailure {
    if (account === undefined) return 'unknown user';
    if (!serves(account)) return 'account may not be used on this listener';
    return account.clientPassword === undefined
      ? 'account has no password and this listener needs one'
      : 'wrong password';
  }

  return {
    async check(user, password, origin) {
      const startedAt = clock.monotonic();
      const directory = deps.directory();
      const account = directory.byUser(user);
      const isServed = account !== undefined && serves(account);
      const hash = isServed ? account.clientPassword?.hash : undefined;
      // What it says it is would do without a password, too: a dummy of a client that must send one.
      if (isServed && hash === undefined && origin.isTrusted && options.needsPassword !== true) {
        return { account };
      }
      // Programs on this host share one address: one with a wrong password must not lock out the others.
      const key = origin.isLocal
        ? `local ${account?.id ?? foldAddress(user)}`
        : lockoutKey(origin.remoteAddress);
      for (;;) {
        const now = clock.monotonic();
        const turn = lockout.begin(key, now);
        if ('until' in turn) {
          const seconds = Math.ceil((turn.until - now) / 1000);
          const text = `Too many wrong passwords, try again in ${seconds} s`;
          return { refusal: reply(454, '4.7.0', text), failure: 'locked out after wrong passwords' };
        }
        if ('go' in turn) break;
        if (waitingRows >= MAX_WAITING) return { refusal: TOO_MANY, failure: 'too many logins at once' };
        waitingRows += 1;
        await turn.wait;
        waitingRows -= 1;
      }
      let isKnown = false;
      if (checks.waiting >= MAX_WAITING) {
        lockout.end(key, clock.monotonic(), true, false);
        return { refusal: TOO_MANY, failure: 'too many logins at once' };
      }
      try {
        isKnown =
          (hash !== undefined && remembered.has(memoryOf(hash, password))) || (await isRight(hash, password));
      } catch {
        // A hash that cannot be read matches nothing; the accounts file's parser reports such ones.
      }
      // An address's row is not one account's: who knows one password must not guess others for ever.
      lockout.end(key, clock.monotonic(), isKnown, origin.isLocal);
      if (isKnown && account !== undefined) return { account };
      return refuseLater(startedAt, account, directory);
    },
  };
}

function costliestHash(directory: AccountDirectory): string {
  let most = 0;
  let hash = NOBODY;
  for (const { clientPassword } of directory.accounts) {
    if (clientPassword === undefined) continue;
    try {
      const { n, r, p } = parseScryptHash(clientPassword.hash);
      if (n * r * p <= most) continue;
      most = n * r * p;
      hash = clientPassword.hash;
    } catch {
      // Matches nothing and takes no time.
    }
  }
  return hash;
}
