/**
 * The header section of a message (RFC 5322 §2.2) while it arrives. In: pieces of content, split
 * anywhere. Out: the section once, when its end is there; its fields. Pure; every octet is looked at once.
 */

import { foldAscii } from './text.ts';

const END = Buffer.from('\r\n\r\n');
const CRLF = Buffer.from('\r\n');

export interface HeaderCollector {
  /**
   * Takes a piece. The section without its last CRLF and the empty line, once that has come; undefined
   * before. A section that is longer than `maxOctets` counts as ended there.
   */
  push(piece: Buffer): Buffer | undefined;
  /** What there is, where the message ends without an empty line. */
  end(): Buffer;
  /** Octets taken so far that belong to the section or the empty line. */
  readonly octets: number;
}

export function createHeaderCollector(maxOctets: number): HeaderCollector {
  const pieces: Buffer[] = [];
  let octets = 0;
  /** The last octets taken, as many as the end may have begun with. */
  let tail: Buffer = CRLF;

  const section = (length: number): Buffer => Buffer.concat(pieces, octets).subarray(0, Math.max(0, length));
  const take = (piece: Buffer): void => {
    pieces.push(piece);
    octets += piece.length;
  };

  return {
    get octets() {
      return octets;
    },
    push(piece) {
      // An empty line right at the start ends a section without fields: the start counts as after CRLF.
      const seam = Buffer.concat([tail, piece.subarray(0, END.length - 1)]);
      const across = seam.indexOf(END);
      const inside = across >= 0 ? -1 : piece.indexOf(END);
      const end = across >= 0 ? across + END.length - tail.length : inside < 0 ? -1 : inside + END.length;
      if (end >= 0 && octets + end <= maxOctets + END.length) {
        take(piece.subarray(0, end));
        return section(octets - END.length);
      }
      if (octets + piece.length >= maxOctets) {
        take(piece.subarray(0, Math.max(0, maxOctets - octets)));
        return section(octets);
      }
      take(piece);
      const kept = END.length - 1;
      tail = (piece.length < kept ? Buffer.concat([tail, piece]) : piece).subarray(-kept);
      return undefined;
    },
    end: () => section(octets),
  };
}

export interface HeaderField {
  /** Lower case. */
  readonly name: string;
  /** Unfolded: line ends inside are gone, blanks are not. */
  readonly value: string;
  /** Where the field stands in the section; `end` is behind its CRLF. */
  readonly start: number;
  readonly end: number;
}

/** The fields of a section given as text, in order; lines that are none belong to no field. Linear. */
export function parseFields(section: string): readonly HeaderField[] {
  const fields: HeaderField[] = [];
  let colon = -1;
  for (let start = 0; start < section.length; ) {
    let end = lineEnd(section, start);
    while (end < section.length && (section[end] === ' ' || section[end] === '\t'))
      end = lineEnd(section, end);
    // Not looked for again in every line: lines without one would be searched to the end each time.
    if (colon < start) colon = section.indexOf(':', start);
    if (colon < 0) break;
    if (colon < end) {
      const name = section.slice(start, colon).trimEnd();
      if (FIELD_NAME.test(name)) {
        const value = section.slice(colon + 1, end).replace(/\r?\n/g, '');
        fields.push({ name: foldAscii(name), value, start, end });
      }
    }
    start = end;
  }
  return fields;
}

/** RFC 5322 §3.6.8. */
const FIELD_NAME = /^[!-9;-~]+$/;

function lineEnd(text: string, from: number): number {
  const lf = text.indexOf('\n', from);
  return lf < 0 ? text.length : lf + 1;
}
