/**
 * Encryption of what is stored: AES-256-GCM under the operator's key. In: text and the name it is
 * stored under (bound to it, so that records cannot be swapped). Out: sealed text. Every sealed text
 * names its key, so that an old key can stay readable while a new one takes over.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes, scryptSync } from 'node:crypto';
import type { Secret } from '../accounts/credential.ts';

export interface Sealer {
  seal(text: string, name: string): string;
  /** `stale`: sealed with an older key, to be sealed again. Throws `SealError`. */
  open(sealed: string, name: string): { readonly text: string; readonly stale: boolean };
}

/** `unknown_key`: sealed with a key that was not given. `damaged`: changed, cut, or another record's. */
export class SealError extends Error {
  override readonly name = 'SealError';
  readonly code: 'unknown_key' | 'damaged' | 'bad_key';
  constructor(code: 'unknown_key' | 'damaged' | 'bad_key', message: string) {
    super(message);
    this.code = code;
  }
}

const PREFIX = 'sealed:v1:';
const KEY_OCTETS = 32;
/** NIST SP 800-38D §8.2: 96 bits, random; far below 2^32 texts under one key. */
const IV_OCTETS = 12;
const TAG_OCTETS = 16;
/** A passphrase shorter than this is guessed from a stolen file. */
const MIN_PASSPHRASE = 16;
/** The same passphrase must give the same key on every host, so the salt cannot be random. */
const PASSPHRASE_SALT = 'xoauth2-relay state key';

export const isSealed = (text: string): boolean => text.startsWith(PREFIX);

/**
 * `keys`: one or more, white space between, the first seals and all open. Each is 32 octets as hex or
 * base64, or a passphrase of at least 16 characters. Throws `SealError` with `bad_key`.
 */
export function createSealer(keys: Secret): Sealer {
  const ring = keys
    .reveal()
    .split(/\s+/)
    .filter((text) => text !== '')
    .map(parseKey);
  const current = ring[0];
  if (current === undefined) throw new SealError('bad_key', 'the state key is empty');
  return {
    seal(text, name) {
      const iv = randomBytes(IV_OCTETS);
      const cipher = createCipheriv('aes-256-gcm', current.key, iv);
      cipher.setAAD(Buffer.from(name));
      const sealed = Buffer.concat([iv, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
      return `${PREFIX}${current.id}:${sealed.toString('base64url')}`;
    },
    open(sealed, name) {
      if (!isSealed(sealed)) throw new SealError('damaged', 'not sealed');
      const [id = '', body = ''] = sealed.slice(PREFIX.length).split(':');
      const known = ring.find((key) => key.id === id);
      if (known === undefined) {
        throw new SealError(
          'unknown_key',
          `sealed with the state key ${id.slice(0, 8)}, which was not given`,
        );
      }
      try {
        const octets = Buffer.from(body, 'base64url');
        const decipher = createDecipheriv('aes-256-gcm', known.key, octets.subarray(0, IV_OCTETS), {
          authTagLength: TAG_OCTETS,
        });
        decipher.setAAD(Buffer.from(name));
        decipher.setAuthTag(octets.subarray(-TAG_OCTETS));
        const text = Buffer.concat([
          decipher.update(octets.subarray(IV_OCTETS, -TAG_OCTETS)),
          decipher.final(),
        ]);
        return { text: text.toString(), stale: known !== current };
      } catch {
        throw new SealError('damaged', 'the sealed text was changed');
      }
    },
  };
}

interface Key {
  /** First octets of a hash of the key: tells keys apart, tells nothing about them. */
  readonly id: string;
  readonly key: Buffer;
}

function parseKey(text: string): Key {
  const key = octetsOf(text);
  const id = createHash('sha256').update('key id').update(key).digest('hex').slice(0, 8);
  return { id, key };
}

function octetsOf(text: string): Buffer {
  if (/^[0-9a-f]{64}$/i.test(text)) return Buffer.from(text, 'hex');
  if (/^[\w+/-]{43}=?$/.test(text)) return Buffer.from(text, 'base64');
  if (text.length >= MIN_PASSPHRASE) return scryptSync(text, PASSPHRASE_SALT, KEY_OCTETS);
  throw new SealError(
    'bad_key',
    `a state key is 32 octets as hex or base64 (openssl rand -base64 32), or a passphrase of at least ${MIN_PASSPHRASE} characters`,
  );
}
