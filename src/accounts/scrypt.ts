/**
 * Client passwords as one-way hashes, `scrypt$N$r$p$salt$hash` with salt and hash in base64url.
 * In: a password. Out: a hash to keep, or whether a hash belongs to it. Owns nothing. RFC 7914.
 */
import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto';

export interface ScryptCost {
  /** CPU and memory cost, a power of two from 2 to 2^20. */
  readonly n: number;
  /** Block size, 1 to 32. */
  readonly r: number;
  /** Parallelism, 1 to 16. */
  readonly p: number;
}

export interface ScryptHash extends ScryptCost {
  readonly salt: Buffer;
  readonly hash: Buffer;
}

/** For hashes that are kept in a file: about 60 ms and 16 MiB a guess (RFC 7914 §2 names N=16384 for logins). */
const KEPT_COST: ScryptCost = { n: 16_384, r: 8, p: 1 };
/**
 * For passwords that stand in clear text in the accounts file: the hash lives in memory only, so it need
 * not resist guessing, and a thousand of them must not hold up the start (about 3 ms each).
 */
export const MEMORY_COST: ScryptCost = { n: 1_024, r: 8, p: 1 };

const SALT_OCTETS = 16;
const HASH_OCTETS = 32;
const FORM = /^scrypt\$(\d{1,7})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9_-]{2,128})\$([A-Za-z0-9_-]{22,128})$/;

/** What other programs make: crypt(3) (`$6$`, `$2b$`, `$argon2id$`, `$scrypt$`) and LDAP (`{SSHA}`); also a damaged one of ours. */
const HASH =
  /^\s*(?:scrypt\$|\$(?:1|2[abxy]?|5|6|7|y|gy|md5|sha1|apr1|argon2[a-z]*|scrypt|bcrypt|pbkdf2[a-z0-9-]*)\$|\{(?:s?sha\d*|s?md5|crypt|pbkdf2[^}]*|argon2[^}]*|scrypt)\})/i;

/** Whether `text` claims to be a hash and no password; `parseScryptHash` tells whether it is one of ours. */
export const isPasswordHash = (text: string): boolean => HASH.test(text);

/** Reads a hash. Throws a `SyntaxError` that never repeats the text. */
export function parseScryptHash(text: string): ScryptHash {
  const [, n = '', r = '', p = '', salt = '', hash = ''] = FORM.exec(text) ?? [];
  const cost = { n: Number(n), r: Number(r), p: Number(p) };
  const isCost =
    cost.n >= 2 &&
    cost.n <= 1 << 20 &&
    (cost.n & (cost.n - 1)) === 0 &&
    cost.r >= 1 &&
    cost.r <= 32 &&
    cost.p >= 1 &&
    cost.p <= 16;
  if (!isCost)
    throw new SyntaxError(
      'looks like a hash, but is no scrypt$N$r$p$salt$hash value: make one with "xoauth2-relay hash-password"',
    );
  return { ...cost, salt: Buffer.from(salt, 'base64url'), hash: Buffer.from(hash, 'base64url') };
}

export const formatScryptHash = (h: ScryptHash): string =>
  `scrypt$${h.n}$${h.r}$${h.p}$${h.salt.toString('base64url')}$${h.hash.toString('base64url')}`;

/** Hashes a password, with a fresh salt unless one is given; runs outside the event loop. */
export async function hashPassword(
  password: string,
  cost: ScryptCost = KEPT_COST,
  salt: Buffer = randomBytes(SALT_OCTETS),
): Promise<string> {
  return formatScryptHash({ ...cost, salt, hash: await derive(password, salt, HASH_OCTETS, cost) });
}

/** Whether `password` is the one behind `hash`; constant-time in the comparison, off the event loop. */
export async function verifyPassword(hash: string, password: string): Promise<boolean> {
  const kept = parseScryptHash(hash);
  return timingSafeEqual(kept.hash, await derive(password, kept.salt, kept.hash.length, kept));
}

function derive(password: string, salt: Buffer, octets: number, cost: ScryptCost): Promise<Buffer> {
  const options = { N: cost.n, r: cost.r, p: cost.p, maxmem: 256 * cost.n * cost.r + (1 << 20) };
  return new Promise((resolve, reject) => {
    scrypt(password.normalize('NFKC'), salt, octets, options, (error, key) =>
      error === null ? resolve(key) : reject(error),
    );
  });
}
