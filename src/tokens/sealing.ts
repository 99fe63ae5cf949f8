/**
 * Encryption of what is stored: AES-256-GCM under the operator's key. In: text and the name it is
 * stored under (bound to it, so that records cannot be swapped). Out: sealed text. Every sealed text
 * names its salt and its key, so that an old key can stay readable while a new one takes over.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  randomBytes,
  type ScryptOptions,
  scrypt,
  scryptSync,
} from 'node:crypto';
import type { Secret } from '../accounts/credential.ts';

export interface Sealer {
  /** Does the costly work for sealing, once: a refresh token must not wait for it. After an `open`, where there is something to open. */
  ready(): Promise<void>;
  /** Under the salt of what was opened last, or one of its own. */
  seal(text: string, name: string): Promise<string>;
  /** `stale`: sealed with an older key or in an older way, to be sealed again. Rejects with `SealError`. */
  open(sealed: string, name: string): Promise<{ readonly text: string; readonly isStale: boolean }>;
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

const PREFIX = 'sealed:v2:';
/** Version 0.1: no salt, keys as they are, passphrases at a low cost. Read, never written. */
const FIRST_PREFIX = 'sealed:v1:';
const KEY_OCTETS = 32;
const SALT_OCTETS = 16;
/** NIST SP 800-38D §8.2: 96 bits, random; far below 2^32 texts under one key. */
const IV_OCTETS = 12;
const TAG_OCTETS = 16;
/** A passphrase shorter than this is guessed from a stolen file. */
const MIN_PASSPHRASE = 16;
/** Fewer different characters than this are a pattern, not a passphrase. */
const MIN_VARIETY = 8;
/** 32 random octets have about 30 different values; fewer than this does not happen by chance in 10^20 keys. */
const MIN_OCTET_VARIETY = 16;
/** 32 MiB and more than 100 ms for each guess, once per key and salt for us. */
const COST: ScryptOptions = { N: 2 ** 15, r: 8, p: 3, maxmem: 64 * 2 ** 20 };
const FIRST_SALT = 'xoauth2-relay state key';

export const isSealed = (text: string): boolean => text.startsWith(PREFIX) || text.startsWith(FIRST_PREFIX);

/**
 * `keys`: one or more, each on a line of its own, the first seals and all open. Each is 32 octets as hex or
 * base64, or a passphrase of at least 16 characters; complete keys may also stand on one line with white
 * space between. Throws `SealError` with `bad_key`, also where the first one could be guessed.
 */
export function createSealer(keys: Secret): Sealer {
  const ring = splitKeys(keys.reveal()).map(createKey);
  const current = ring[0];
  if (current === undefined) throw new SealError('bad_key', 'the state key is empty');
  refuseWeak(current.text);
  let salt: string | undefined;

  const first = current;
  function currentKey(): Promise<Key> {
    salt ??= randomBytes(SALT_OCTETS).toString('base64url');
    return first.under(salt);
  }

  return {
    async ready() {
      await currentKey();
    },
    async seal(text, name) {
      const { id, key } = await currentKey();
      const under = salt;
      const iv = randomBytes(IV_OCTETS);
      const cipher = createCipheriv('aes-256-gcm', key, iv);
      cipher.setAAD(Buffer.from(name));
      const sealed = Buffer.concat([iv, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
      return `${PREFIX}${under}:${id}:${sealed.toString('base64url')}`;
    },
    async open(sealed, name) {
      if (sealed.startsWith(FIRST_PREFIX)) {
        const [id = '', body = ''] = sealed.slice(FIRST_PREFIX.length).split(':');
        const known = ring.map((each) => each.first()).find((each) => each.id === id);
        return { text: openWith(known, id, body, name), isStale: true };
      }
      if (!sealed.startsWith(PREFIX)) throw new SealError('damaged', 'not sealed');
      const [used = '', id = '', body = ''] = sealed.slice(PREFIX.length).split(':');
      if (used.length > 2 * SALT_OCTETS) throw new SealError('damaged', 'the sealed text was changed');
      for (const each of ring) {
        const key = await each.under(used);
        if (key.id !== id) continue;
        const text = openWith(key, id, body, name);
        salt ??= used;
        return { text, isStale: each !== current };
      }
      return { text: openWith(undefined, id, body, name), isStale: true };
    },
  };
}

interface Key {
  /** First octets of a hash of the key: tells keys apart, tells nothing about them. */
  readonly id: string;
  readonly key: Buffer;
}

interface RingKey {
  readonly text: string;
  /** The key under a salt; the work is done once. */
  under(salt: string): Promise<Key>;
  /** As version 0.1 made it. */
  first(): Key;
}

function createKey(text: string): RingKey {
  const octets = octetsOf(text);
  const bySalt = new Map<string, Promise<Key>>();
  let first: Key | undefined;
  return {
    text,
    under(salt) {
      const known = bySalt.get(salt) ?? derive(octets ?? Buffer.from(text), salt);
      bySalt.set(salt, known);
      return known;
    },
    first() {
      first ??= named(octets ?? scryptSync(text, FIRST_SALT, KEY_OCTETS));
      return first;
    },
  };
}

function named(key: Buffer): Key {
  return { id: createHash('sha256').update('key id').update(key).digest('hex').slice(0, 8), key };
}

function derive(secret: Buffer, salt: string): Promise<Key> {
  return new Promise((resolve, reject) => {
    scrypt(secret, salt, KEY_OCTETS, COST, (error, key) => {
      if (error === null) resolve(named(key));
      else reject(error);
    });
  });
}

function openWith(known: Key | undefined, id: string, body: string, name: string): string {
  if (known === undefined)
    throw new SealError('unknown_key', `sealed with the state key ${id.slice(0, 8)}, which was not given`);
  try {
    const octets = Buffer.from(body, 'base64url');
    const decipher = createDecipheriv('aes-256-gcm', known.key, octets.subarray(0, IV_OCTETS), {
      authTagLength: TAG_OCTETS,
    });
    decipher.setAAD(Buffer.from(name));
    decipher.setAuthTag(octets.subarray(-TAG_OCTETS));
    const text = Buffer.concat([decipher.update(octets.subarray(IV_OCTETS, -TAG_OCTETS)), decipher.final()]);
    return text.toString();
  } catch {
    throw new SealError('damaged', 'the sealed text was changed');
  }
}

/** A line is one passphrase, spaces included, unless every word of it would do as a key. */
function splitKeys(text: string): readonly string[] {
  return text.split(/[\r\n]+/).flatMap((line) => {
    const words = line.split(/\s+/).filter((word) => word !== '');
    return words.every(isKey) ? words : [words.join(' ')];
  });
}

const isKey = (text: string): boolean => octetsOf(text) !== undefined || text.length >= MIN_PASSPHRASE;

/** 32 octets as hex or base64; undefined for anything else. */
function octetsOf(text: string): Buffer | undefined {
  if (/^[0-9a-f]{64}$/i.test(text)) return Buffer.from(text, 'hex');
  if (/^[\w+/-]{43}=?$/.test(text)) return Buffer.from(text, 'base64');
  return undefined;
}

function refuseWeak(text: string): void {
  const form = `a state key is 32 random octets as hex or base64 (openssl rand -base64 32), or a passphrase of at least ${MIN_PASSPHRASE} characters`;
  if (!isKey(text)) throw new SealError('bad_key', form);
  const octets = octetsOf(text);
  const variety = new Set<string | number>(octets ?? text).size;
  if (variety < (octets === undefined ? MIN_VARIETY : MIN_OCTET_VARIETY))
    throw new SealError(
      'bad_key',
      `the state key could be guessed: it has only ${variety} different ${octets === undefined ? 'characters' : 'octets'}; ${form}`,
    );
}
