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
