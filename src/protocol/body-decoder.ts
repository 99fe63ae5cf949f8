/**
 * The body after DATA as it stands on the wire, turned into content. In: chunks, split anywhere. Out:
 * content octets with dot-stuffing removed (RFC 5321 §4.5.2) and where the body ends. Only `CRLF.CRLF`
 * as the client sent it (or `.CRLF` right at the start) ends it. Pure; pieces are views of the chunks
 * except where octets change.
 */

import { findOddOctet, indexOrEnd } from './line-scan.ts';

/**
 * What a CR without LF or a LF without CR means (RFC 5321 §2.3.8). `normalize`: LF is taken for CRLF, CR
 * is a fault. `reject`: both are faults. `pass`: both are content.
 */
export type BareLineEnds = 'normalize' | 'reject' | 'pass';
export type BodyFault = 'bare_cr' | 'bare_lf';

export interface BodyDecoder {
  /**
   * Appends the content of `chunk` from octet `from` on to `pieces`. Returns the index after the end of
   * the body, -1 while it goes on. The CRLF that ends the last line is content, `.CRLF` is not. What
   * stands behind a fault is never appended.
   */
  decode(chunk: Buffer, from: number, pieces: Buffer[]): number;
  /** The first fault, where there was one; nothing of the message may be delivered then. */
  fault(): BodyFault | undefined;
  /** Whether a LF became CRLF, so that the content is longer than what the client counted. */
  isLonger(): boolean;
}

const CR = 0x0d;
const LF = 0x0a;
const DOT = 0x2e;
const CRLF_DOT = Buffer.from('\r\n.');

/**
 * What the octets seen make of the next one. `cr`, `dot`, `dotCr`, `lfDot` are withheld until it is known.
 * `lfStart` and `lfDot` come after a LF that became CRLF: those who end lines so may or may not double
 * their dots, so there one dot is content and two are one.
 */
type Position = 'lineStart' | 'text' | 'cr' | 'dot' | 'dotCr' | 'lfStart' | 'lfDot';

/** Beyond so many removed dots in a chunk the rest is copied: views of a few octets cost more than they save. */
const MAX_VIEWS = 8;

/** What stands before the next CR or LF is looked for in one go behind so many octets. */
const SHORT_OCTETS = 24;

/** Where octets that change are put together; copied out, so one serves all bodies. */
let scratch = Buffer.allocUnsafe(4 * 1024);

/** A decoder for one body. */
export function createBodyDecoder(mode: BareLineEnds): BodyDecoder {
  let position: Position = 'lineStart';
  let fault: BodyFault | undefined;
  let isLonger = false;
  /** Behind a fault only the end matters. */
  let seeks = mode !== 'pass';

  function failed(kind: BodyFault): void {
    fault ??= kind;
    seeks = false;
  }

  /**
   * Line by line, and octet by octet where one ends or begins, from `at`. Returns as `decode` does, or where the octets can be looked at in bulk
   * again as `-2 - index`.
   */
  function walk(chunk: Buffer, from: number, pieces: Buffer[], untilPlain: boolean): number {
    // At most one octet more for each, and two that were withheld.
    const most = 2 * (chunk.length - from) + 2;
    if (scratch.length < most) scratch = Buffer.allocUnsafe(most);
    const out = scratch;
    let length = 0;
    let at = from;
    let end = -1;
    let lf = -1;
    let cr = -1;
    for (; at < chunk.length; at++) {
      if (untilPlain && (position === 'text' || position === 'lineStart')) {
        end = -2 - at;
        break;
      }
      const isStart = position === 'lineStart' || position === 'lfStart';
      if (position === 'text' || (isStart && chunk[at] !== DOT)) {
        // Short lines octet by octet: a call for each would cost more than it saves.
        const near = Math.min(at + SHORT_OCTETS, chunk.length);
        const start = at;
        while (at < near && chunk[at] !== CR && chunk[at] !== LF) out[length++] = chunk[at++] as number;
        if (at === near) {
          if (lf < at) lf = indexOrEnd(chunk, LF, at);
          if (cr < at) cr = indexOrEnd(chunk, CR, at);
          const stop = Math.min(lf, cr);
          length += chunk.copy(out, length, at, stop);
          at = stop;
        }
        if (at > start) position = 'text';
        if (at === chunk.length) break;
      }
      const octet = chunk[at] as number;
      if (position === 'dotCr' && octet === LF) {
        position = 'lineStart';
        end = at + 1;
        break;
      }
      if (position === 'dot') {
        if (octet === CR) {
          position = 'dotCr';
          continue;
        }
        // A line of one dot that a LF ends is no end of data, so it is content.
        if (octet === LF && seeks && mode === 'normalize') out[length++] = DOT;
      } else if (position === 'lfDot') {
        if (octet !== DOT) out[length++] = DOT;
      } else if (position === 'cr' || position === 'dotCr') {
        if (octet !== LF && seeks) {
          length = flush(out, length, pieces);
          failed('bare_cr');
        }
        out[length++] = CR;
      } else if (octet === DOT) {
        if (position === 'lineStart') {
          position = 'dot';
          continue;
        }
        if (position === 'lfStart') {
          position = 'lfDot';
          continue;
        }
      }
      if (octet === CR) position = 'cr';
      else if (octet !== LF) {
        out[length++] = octet;
        position = 'text';
      } else if (position === 'cr') {
        out[length++] = LF;
        position = 'lineStart';
      } else if (!seeks) {
        out[length++] = LF;
        position = 'text';
      } else if (mode === 'reject') {
        length = flush(out, length, pieces);
        failed('bare_lf');
        position = 'text';
      } else {
        isLonger = true;
        out[length++] = CR;
        out[length++] = LF;
        position = 'lfStart';
      }
    }
    flush(out, length, pieces);
    return end;
  }

  /** Copied out of the scratch memory, so that what is held is no larger than what it holds. */
  function flush(out: Buffer, length: number, pieces: Buffer[]): 0 {
    if (length > 0 && fault === undefined) pieces.push(Buffer.from(out.subarray(0, length)));
    return 0;
  }

  return {
    fault: () => fault,
    isLonger: () => isLonger,
    decode(chunk, from, pieces) {
      const { length } = chunk;
      let at = from;
      if (position !== 'text' && position !== 'lineStart') {
        const end = walk(chunk, at, pieces, true);
        if (end >= -1) return end;
        at = -2 - end;
      }
      let start = at;
      const keep = (end: number): void => {
        if (end > start && fault === undefined)
          pieces.push(start === 0 && end === length ? chunk : chunk.subarray(start, end));
      };
      let views = 0;
      for (;;) {
        if (at >= length) {
          keep(length);
          return -1;
        }
        if (position === 'lineStart' && chunk[at] === DOT) {
          keep(at);
          const next = chunk[at + 1];
          if (next === CR && chunk[at + 2] === LF) return at + 3;
          if (++views > MAX_VIEWS || next === undefined || next === CR || next === LF)
            return walk(chunk, at, pieces, false);
          position = 'text';
          at += 1;
          start = at;
        }
        const odd = seeks ? findOddOctet(chunk, at, position === 'lineStart') : dotAfterCrLf(chunk, at);
        if (odd === length) {
          if (chunk[length - 1] === CR) return leave(length - 1, 'cr');
          const isLine = length - 2 >= at && chunk[length - 1] === LF && chunk[length - 2] === CR;
          return leave(length, isLine ? 'lineStart' : 'text');
        }
        const before = odd > at ? chunk[odd - 1] : undefined;
        if (before !== CR && chunk[odd] === DOT) {
          at = odd;
          position = 'lineStart';
          continue;
        }
        // A CR or LF that stands alone.
        const alone = before === CR ? odd - 1 : odd;
        if (alone > at) position = chunk[alone - 1] === LF ? 'lineStart' : 'text';
        keep(alone);
        return walk(chunk, alone, pieces, false);
      }

      function leave(end: number, as: Position): -1 {
        keep(end);
        position = as;
        return -1;
      }
    },
  };
}

/** Where `CRLF.` has its dot; the length where there is none. */
function dotAfterCrLf(chunk: Buffer, from: number): number {
  const hit = chunk.indexOf(CRLF_DOT, from);
  return hit < 0 ? chunk.length : hit + 2;
}
