/**
 * The body after DATA as it stands on the wire, turned into content. In: chunks, split anywhere. Out:
 * content octets with dot-stuffing removed (RFC 5321 §4.5.2) and where the body ends. Only `CRLF.CRLF`
 * (or `.CRLF` right at the start) ends it. Pure; nothing is copied, pieces are views of the chunks.
 */

const CR = 0x0d;
const LF = 0x0a;
const DOT = 0x2e;
const CRLF_DOT = Buffer.from('\r\n.');
const LONE_CR = Buffer.from('\r');

/** What the last octet seen makes of the next one; `dot` and `dotCr` are withheld until it is known. */
type Position = 'lineStart' | 'text' | 'cr' | 'dot' | 'dotCr';

export interface BodyDecoder {
  /**
   * Appends the content of `chunk` from octet `from` on to `pieces`. Returns the index after the end of
   * the body, -1 while it goes on. The CRLF that ends the last line is content, `.CRLF` is not.
   */
  decode(chunk: Buffer, from: number, pieces: Buffer[]): number;
  /** Whether a CR without LF or a LF without CR was seen (RFC 5321 §2.3.8); only where asked for. */
  readonly hasBareLineEnd: boolean;
}

/** A decoder for one body. `seekBare`: also look for bare CR and LF, at the cost of a look at every line. */
export function createBodyDecoder(seekBare: boolean): BodyDecoder {
  let position: Position = 'lineStart';
  let hasBareLineEnd = false;
  let seeking = seekBare;

  const foundBare = (): void => {
    if (!seeking) return;
    hasBareLineEnd = true;
    // One is enough; going on would cost a scan of the rest for every line.
    seeking = false;
  };

  /** The first octet after the withheld ones decides. Returns the end of the body, or undefined to go on. */
  function settleDot(chunk: Buffer, from: number, pieces: Buffer[]): number | undefined {
    if (position === 'dot' && chunk[from] === CR) {
      if (from + 1 >= chunk.length) {
        position = 'dotCr';
        return -1;
      }
      if (chunk[from + 1] === LF) return from + 2;
    } else if (position === 'dotCr') {
      if (chunk[from] === LF) return from + 1;
      pieces.push(LONE_CR);
      foundBare();
    }
    position = 'text';
    return undefined;
  }

  /** Where the next line starts, or -1; leaves `position` as the end of the chunk makes it. */
  function nextLine(chunk: Buffer, from: number): number {
    const { length } = chunk;
    let next: number;
    if (seeking) {
      const lf = chunk.indexOf(LF, from);
      const cr = chunk.indexOf(CR, from);
      next = lf;
      if (cr >= 0 && cr + 1 === lf) next = lf + 1;
      else if (lf < 0 && (cr < 0 || cr === length - 1)) next = -1;
      else {
        foundBare();
        return nextLine(chunk, from);
      }
      if (next >= 0 && next < length) return next;
    } else {
      const hit = chunk.indexOf(CRLF_DOT, from);
      if (hit >= 0) return hit + 2;
    }
    const last = chunk[length - 1];
    if (last === CR) position = 'cr';
    else position = last === LF && length - 2 >= from && chunk[length - 2] === CR ? 'lineStart' : 'text';
    return -1;
  }

  return {
    get hasBareLineEnd() {
      return hasBareLineEnd;
    },
    decode(chunk, from, pieces) {
      const { length } = chunk;
      if (from >= length) return -1;
      if (position === 'dot' || position === 'dotCr') {
        const end = settleDot(chunk, from, pieces);
        if (end !== undefined) return end;
      }
      let start = from;
      let at = from;
      let isLineStart = position === 'lineStart';
      if (position === 'cr') {
        if (chunk[at] === LF) {
          at += 1;
          isLineStart = true;
        } else foundBare();
      }
      const keep = (end: number): void => {
        if (end > start) pieces.push(start === 0 && end === length ? chunk : chunk.subarray(start, end));
      };
      for (;;) {
        if (isLineStart && at >= length) {
          keep(length);
          position = 'lineStart';
          return -1;
        }
        if (isLineStart && chunk[at] === DOT) {
          keep(at);
          if (at + 1 >= length) {
            position = 'dot';
            return -1;
          }
          if (chunk[at + 1] === CR) {
            if (at + 2 >= length) {
              position = 'dotCr';
              return -1;
            }
            if (chunk[at + 2] === LF) return at + 3;
          }
          at += 1;
          start = at;
        }
        const next = nextLine(chunk, at);
        if (next < 0) {
          keep(length);
          return -1;
        }
        at = next;
        isLineStart = true;
      }
    },
  };
}
