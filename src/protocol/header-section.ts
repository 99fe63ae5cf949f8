/**
 * The header section of a message (RFC 5322 §2.2) while it arrives. In: pieces of content, split
 * anywhere. Out: the section once, when its end is there; its fields. Pure; every octet is looked at once.
 */

const END = Buffer.from('\r\n\r\n');
const CRLF = Buffer.from('\r\n');
const CR = 0x0d;

export interface HeaderCollector {
  /**
   * Takes a piece. The section without its last CRLF and the empty line, once that has come; undefined
   * before. A section that is longer than `maxOctets` counts as ended there.
   */
  push(piece: Buffer): Buffer | undefined;
  /** What there is, where the message ends without an empty line. */
  end(): Buffer;
  /** Octets taken so far that belong to the section or the empty line. */
  octets(): number;
  /** The section goes on behind what was judged. */
  isTooLong(): boolean;
}

export function createHeaderCollector(maxOctets: number): HeaderCollector {
  const pieces: Buffer[] = [];
  let octets = 0;
  let isTooLong = false;
  /** The last octets taken, as many as the end may have begun with. */
  let tail: Buffer = CRLF;

  /** A view of the piece where there is one. */
  const section = (length: number): Buffer =>
    (pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces, octets)).subarray(
      0,
      Math.max(0, length),
    );
  const take = (piece: Buffer): void => {
    pieces.push(piece);
    octets += piece.length;
  };

  return {
    octets: () => octets,
    isTooLong: () => isTooLong,
    push(piece) {
      // An empty line right at the start ends a section without fields: the start counts as after CRLF.
      const across =
        octets === 0 && piece[0] !== CR
          ? -1
          : Buffer.concat([tail, piece.subarray(0, END.length - 1)]).indexOf(END);
      const inside = across >= 0 ? -1 : piece.indexOf(END);
      const end = across >= 0 ? across + END.length - tail.length : inside < 0 ? -1 : inside + END.length;
      if (end >= 0 && octets + end <= maxOctets + END.length) {
        take(piece.subarray(0, end));
        return section(octets - END.length);
      }
      if (octets + piece.length >= maxOctets) {
        isTooLong = true;
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
