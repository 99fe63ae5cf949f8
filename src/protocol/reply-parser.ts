/**
 * Reads replies off a byte stream, however it is split. In: chunks. Out: whole replies in order.
 * RFC 5321 §4.2.1 (multi-line replies). Pure; owns the bytes of an unfinished line.
 */
import type { Mask } from './masking.ts';
import type { Reply } from './reply.ts';
import { cleanText, MAX_JUDGED } from './text.ts';

/** A parsed reply with its text lines (code stripped), for EHLO. */
export interface ParsedReply extends Reply {
  readonly lines: readonly string[];
}

/** The peer does not speak SMTP: the connection must be closed. `message` holds no reply text. */
export class ReplySyntaxError extends Error {
  override readonly name = 'ReplySyntaxError';
}

/** Longest line taken: Microsoft's SendAsDenied exceeds 2 kB, RFC 4954 §4 allows 12,288 octets for a challenge. */
const MAX_LINE_OCTETS = 16_384;
/** A whole reply longer than this comes from a peer that never ends one: the longest seen has 4 kB. */
const MAX_REPLY_OCTETS = 65_536;
/** A reply of more lines than this is a peer that never ends one. */
const MAX_LINES = 200;

/** Code, separator and an enhanced code are read of every line. */
const MIN_LINE_KEPT = 16;

const LINE = /^[2-5]\d\d(?:[ -]|$)/;
const ENHANCED = /^[245]\.\d{1,3}\.\d{1,3}(?:\s|$)/;

const BLANK = /\s/;

const LF = 0x0a;

/** The class of an enhanced code must match the reply's (RFC 2034 §4): `550 2.0.0` is text. */
function enhancedOf(code: number, line: string): string | undefined {
  if (!ENHANCED.test(line) || line.charCodeAt(0) !== 0x30 + Math.floor(code / 100)) return undefined;
  const blank = line.search(BLANK);
  return blank < 0 ? line : line.slice(0, blank);
}

/** Makes the reply of its lines: the enhanced code of the first line, removed from each, texts joined by a space. */
function assemble(code: number, lines: readonly string[], mask: Mask): ParsedReply {
  const codes = lines.map((line) => enhancedOf(code, line));
  const enhanced = codes.find((own) => own !== undefined);
  const of = (text: string, shown: readonly string[]): ParsedReply =>
    enhanced === undefined ? { code, text, lines: shown } : { code, enhanced, text, lines: shown };
  const texts = lines.map((line, i) => line.slice(codes[i]?.length ?? 0).trim());
  if (texts.length === 1) return of(texts[0] ?? '', lines);
  // What is broken over lines stands in none of them.
  const unbroken = texts.join('');
  const masked = mask(unbroken);
  return masked === unbroken ? of(texts.filter((t) => t !== '').join(' '), lines) : of(masked, [masked]);
}

export interface ReplyParser {
  /** Takes bytes, returns the replies they completed. Throws `ReplySyntaxError`. */
  feed(chunk: Buffer): ParsedReply[];
  /** Whether part of a reply is waiting for its rest. */
  readonly unfinished: boolean;
}

/** `mask` takes out of each line what must not be told. */
export function createReplyParser(mask: Mask = (text) => text): ReplyParser {
  let rest: Buffer | undefined;
  let code = 0;
  let lines: string[] = [];
  /** Of the reply that is being read. */
  let octets = 0;

  /** One line without its end. Of a long reply only the start is kept, which decides; the rest is dropped unread. */
  function takeLine(bytes: Buffer, start: number, end: number, replies: ParsedReply[]): void {
    const room = Math.max(MAX_JUDGED - octets, MIN_LINE_KEPT);
    octets += end - start;
    if (octets > MAX_REPLY_OCTETS) throw new ReplySyntaxError('a reply that is too long');
    const line = bytes.toString('utf8', start, Math.min(end, start + room));
    if (!LINE.test(line)) throw new ReplySyntaxError('a line that is no SMTP reply');
    const lineCode = Number(line.slice(0, 3));
    if (lines.length > 0 && lineCode !== code)
      throw new ReplySyntaxError('a multi-line reply that changes its code');
    code = lineCode;
    lines.push(mask(cleanText(line.slice(4), MAX_JUDGED)));
    if (line[3] === '-') {
      if (lines.length > MAX_LINES) throw new ReplySyntaxError('a reply that does not end');
      return;
    }
    const complete = lines;
    lines = [];
    octets = 0;
    replies.push(assemble(lineCode, complete, mask));
  }

  return {
    feed(chunk) {
      const bytes = rest === undefined ? chunk : Buffer.concat([rest, chunk]);
      rest = undefined;
      const replies: ParsedReply[] = [];
      let start = 0;
      for (let lf = bytes.indexOf(LF); lf >= 0; lf = bytes.indexOf(LF, start)) {
        const end = lf > start && bytes[lf - 1] === 0x0d ? lf - 1 : lf;
        if (end - start > MAX_LINE_OCTETS) throw new ReplySyntaxError('a reply line that is too long');
        takeLine(bytes, start, end, replies);
        start = lf + 1;
      }
      if (start < bytes.length) {
        if (bytes.length - start > MAX_LINE_OCTETS)
          throw new ReplySyntaxError('a reply line that is too long');
        rest = start === 0 ? bytes : bytes.subarray(start);
      }
      return replies;
    },
    get unfinished() {
      return rest !== undefined || lines.length > 0;
    },
  };
}

/** A reply from text as other libraries keep it (lines separated by LF). Undefined where it is none. */
export function parseReply(text: string, mask?: Mask): ParsedReply | undefined {
  try {
    return createReplyParser(mask).feed(Buffer.from(`${text.trimEnd()}\r\n`))[0];
  } catch {
    return undefined;
  }
}
