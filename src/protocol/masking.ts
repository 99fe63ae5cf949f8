/**
 * Keeps secrets out of texts that others wrote. In: the secrets an account has, and a text. Out: the text
 * with every secret in it replaced, also a part of one, also base64- or URL-encoded. Pure, linear.
 */

import { foldAscii } from './text.ts';

const MASK = '[secret]';
/** A part this long gives a secret away; shorter secrets are masked whole. */
const PART = 8;
/** Shorter than this a text is no secret: it would be found everywhere. */
const MIN_SECRET = 4;
/** A secret longer than this (a PEM key) is recognised by its beginning: nobody quotes more of it. */
const MAX_SECRET = 16_384;

/** What must not be told of a login, whoever repeats it. The user may be anybody's name and stays. */
export function secretsOfLogin(user: string, password: string): readonly string[] {
  if (password.length >= MIN_SECRET) return [password];
  // So short it is looked for beside its user alone.
  const pair = [user, password];
  return [pair.join(':'), pair.map(encodeURIComponent).join(':')];
}

/** One account's mask; made once, used for many texts. */
export type Mask = (text: string) => string;

export function createMask(secrets: readonly string[]): Mask {
  const parts = new Set<string>();
  const wholes: string[] = [];
  for (const secret of secrets) {
    if (secret.length < MIN_SECRET) continue;
    for (const form of formsOf(secret.slice(0, MAX_SECRET))) {
      const folded = foldAscii(form);
      if (folded.length < PART) wholes.push(folded);
      for (let at = 0; at + PART <= folded.length; at += 1) parts.add(folded.slice(at, at + PART));
    }
  }
  if (parts.size === 0 && wholes.length === 0) return (text) => text;
  return (text) => replaceRanges(text, rangesOf(foldAscii(text), parts, wholes));
}

/** `text` without any of `secrets`. */
export const maskSecrets = (text: string, secrets: readonly string[]): string => createMask(secrets)(text);

/**
 * As `createMask`, for texts that hardly ever hold a secret and come with every message: some kilobytes an
 * account, nanoseconds a character. A whole secret or 15 characters in a row of one give it away; then all its
 * parts are masked. What it looks for is prepared at the first text.
 */
export function createWatch(secrets: readonly string[]): Mask {
  let marks: Marks | undefined;
  return (text) => {
    marks ??= marksOf(secrets);
    return mayHold(text, marks) ? createMask(secrets)(text) : text;
  };
}

/** Fingerprints of every eighth run of eight characters, in a table with open addressing; 0: free. */
interface Marks {
  readonly table: Uint16Array;
  readonly wholes: readonly string[];
}

const BASE = 0x01000193;
/** `BASE` to the power of `PART`: what the character that leaves a run counts. */
const LEAVING = Array.from({ length: PART }).reduce<number>((power) => Math.imul(power, BASE), 1);

const fold = (code: number): number => (code >= 0x41 && code <= 0x5a ? code + 0x20 : code);
const mix = (hash: number): number => Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0;

function marksOf(secrets: readonly string[]): Marks {
  const hashes: number[] = [];
  const wholes: string[] = [];
  for (const secret of secrets) {
    if (secret.length < MIN_SECRET) continue;
    for (const form of formsOf(secret.slice(0, MAX_SECRET))) {
      if (form.length < PART) wholes.push(foldAscii(form));
      else
        for (let at = 0; at < form.length; at += PART)
          hashes.push(hashAt(form, Math.min(at, form.length - PART)));
    }
  }
  const table = new Uint16Array(2 ** Math.ceil(Math.log2(2 * hashes.length + 1)));
  for (const hash of hashes) {
    let slot = hash & (table.length - 1);
    while (table[slot] !== 0) slot = (slot + 1) & (table.length - 1);
    table[slot] = hash >>> 16 || 1;
  }
  return { table, wholes };
}

function hashAt(text: string, at: number): number {
  let hash = 0;
  for (let i = at; i < at + PART; i += 1) hash = (Math.imul(hash, BASE) + fold(text.charCodeAt(i))) | 0;
  return mix(hash);
}

function mayHold(text: string, { table, wholes }: Marks): boolean {
  const last = table.length - 1;
  let hash = 0;
  for (let at = 0; at < text.length; at += 1) {
    hash = (Math.imul(hash, BASE) + fold(text.charCodeAt(at))) | 0;
    if (at >= PART) hash = (hash - Math.imul(fold(text.charCodeAt(at - PART)), LEAVING)) | 0;
    if (at < PART - 1) continue;
    const mixed = mix(hash);
    const mark = mixed >>> 16 || 1;
    for (let slot = mixed & last; table[slot] !== 0; slot = (slot + 1) & last)
      if (table[slot] === mark) return true;
  }
  if (wholes.length === 0) return false;
  const folded = foldAscii(text);
  return wholes.some((whole) => folded.includes(whole));
}

/** How a secret may be spelled by whoever echoes it. */
function formsOf(secret: string): ReadonlySet<string> {
  const forms = new Set([
    secret,
    encodeURIComponent(secret),
    new URLSearchParams({ s: secret }).toString().slice(2),
    JSON.stringify(secret).slice(1, -1),
    Buffer.from(secret).toString('hex'),
  ]);
  // Inside a longer text its base64 depends on where in a group of three octets it begins.
  for (const before of [0, 1, 2]) {
    const octets = Buffer.concat([Buffer.alloc(before), Buffer.from(secret)]);
    for (const encoding of ['base64', 'base64url'] as const) {
      const encoded = octets.toString(encoding).replace(/={1,2}$/, '');
      // The first and last characters also carry bits of what stands beside it.
      forms.add(encoded.slice(before === 0 ? 0 : before + 1, octets.length % 3 === 0 ? undefined : -1));
    }
  }
  return forms;
}

type Range = readonly [from: number, to: number];

function rangesOf(text: string, parts: ReadonlySet<string>, wholes: readonly string[]): Range[] {
  const ranges: Range[] = [];
  for (let at = 0; at + PART <= text.length; at += 1)
    if (parts.has(text.slice(at, at + PART))) ranges.push([at, at + PART]);
  for (const whole of wholes)
    for (let at = text.indexOf(whole); at !== -1; at = text.indexOf(whole, at + whole.length))
      ranges.push([at, at + whole.length]);
  return ranges.sort((a, b) => a[0] - b[0]);
}

function replaceRanges(text: string, ranges: readonly Range[]): string {
  let out = '';
  let end = 0;
  for (const [from, to] of ranges) {
    if (from > end || (from === 0 && end === 0)) out += text.slice(end, from) + MASK;
    end = Math.max(end, to);
  }
  return out + text.slice(end);
}
