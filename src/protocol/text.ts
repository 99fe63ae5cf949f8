/**
 * Text from outside. In: what a client, a provider or a token endpoint sent. Out: text that may be
 * judged, kept, logged, shown and answered; names folded for comparison. Pure. Whatever is read off
 * the network passes `cleanText` at the door, before anything else looks at it.
 */
import { domainToASCII, domainToUnicode } from 'node:url';

/** Octets of a peer's text that are looked at: twice Microsoft's longest diagnosis. */
export const MAX_JUDGED = 4096;
/** Characters of a peer's text that are kept beyond the answer itself: what a person reads. */
export const MAX_KEPT = 1024;

/**
 * What steers a terminal or hides text: C0, DEL, C1, zero-width characters, line and paragraph
 * separators, bidirectional controls, byte order mark, interlinear annotation, lone surrogates.
 */
const UNSAFE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: cleaning them is the purpose
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]+/gu;
const PLAIN = /^[\u0020-\u007e]*$/;

/** One printable line of at most `max` UTF-16 units; runs of anything else become one space. Linear. */
export function cleanText(text: string, max: number = MAX_KEPT): string {
  if (text.length <= max) return PLAIN.test(text) ? text : text.replace(UNSAFE, ' ');
  // Through a buffer, so that the short text does not keep the long one in memory.
  return Buffer.from(text.slice(0, max).replace(UNSAFE, ' ')).toString();
}

/**
 * Lower case of A to Z and nothing else. `toLowerCase()` also folds U+212A (Kelvin) to `k`, so that one
 * mailbox passes for another.
 */
export const foldAscii = (text: string): string =>
  /[A-Z]/.test(text) ? text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) : text;

/**
 * A domain as it is compared: its A-labels (RFC 5890 §2.3.2.1). One that IDNA would first have to map
 * (full-width letters, long s) is no other name's equal and stays as it is.
 */
export function foldDomain(domain: string): string {
  const folded = foldAscii(domain);
  if (PLAIN.test(folded)) return folded;
  const ascii = domainToASCII(folded);
  return ascii !== '' && domainToUnicode(ascii) === folded ? ascii : folded;
}

const NEEDS_NO_QUOTES = /^[^\s"(),:;<>@[\\\]]+$/;

/** A local part without quotes it does not need: `"a\b"` and `ab` are one mailbox (RFC 5321 §4.1.2). */
function unquote(local: string): string {
  if (local.length < 2 || !local.startsWith('"') || !local.endsWith('"')) return local;
  const content = local.slice(1, -1).replace(/\\(.)/gs, '$1');
  return NEEDS_NO_QUOTES.test(content) ? content : `"${content.replace(/["\\]/g, '\\$&')}"`;
}

/** A mailbox as it is compared: local part without needless quotes by `foldAscii`, domain by `foldDomain`. */
export function foldAddress(address: string): string {
  const at = address.lastIndexOf('@');
  return at < 0
    ? foldAscii(address)
    : `${foldAscii(unquote(address.slice(0, at)))}@${foldDomain(address.slice(at + 1))}`;
}

/**
 * The peer's own words, as far as they are judged: an address in them, which whoever sent or receives
 * the message has chosen, must decide nothing. Linear.
 */
export const ownWords = (text: string): string =>
  text
    .slice(0, MAX_JUDGED)
    .replace(/<[^<>]*>/g, ' ')
    .replace(/"[^"]*"/g, (quoted) => ' '.repeat(quoted.length))
    .replace(/\S+/g, (word) => (word.includes('@') ? '' : word));
