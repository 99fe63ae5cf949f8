/**
 * Shortens the long texts of a JSON document on its way, so that of an answer with somebody's whole message in it no
 * more is held than is read. In: octets in pieces. Out: what is kept of them, JSON again where they were. Pure.
 */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const LETTER_U = 0x75;

/** Where in the document the next octet stands. */
type Place = 'between' | 'text' | 'escape' | 'dropped' | 'dropped escape';

/** A piece of the document, in order; answers what is kept of it. Of each text about `maxOctets` are kept. */
export function createJsonShortener(maxOctets: number): (piece: Buffer) => Buffer {
  let place: Place = 'between';
  /** Of the text that it is in. */
  let octets = 0;
  /** Hexadecimal digits that an escape still has. */
  let digits = 0;

  function isKept(octet: number): boolean {
    octets++;
    switch (place) {
      case 'between':
        if (octet === QUOTE) place = 'text';
        octets = 0;
        return true;
      case 'text':
        // Not in the middle of a sign of UTF-8, which would be another one then.
        if (octets > maxOctets && (octet & 0xc0) !== 0x80) {
          place = 'dropped';
          return isKept(octet);
        }
        if (octet === QUOTE) place = 'between';
        else if (octet === BACKSLASH) place = 'escape';
        return true;
      case 'escape':
        if (digits > 0) digits--;
        else if (octet === LETTER_U) digits = 4;
        if (digits === 0) place = 'text';
        return true;
      case 'dropped':
        if (octet === BACKSLASH) place = 'dropped escape';
        if (octet !== QUOTE) return false;
        place = 'between';
        return true;
      case 'dropped escape':
        place = 'dropped';
        return false;
      default:
        return place satisfies never;
    }
  }

  return (piece) => {
    const kept = Buffer.allocUnsafe(piece.length);
    let length = 0;
    for (let i = 0; i < piece.length; i++) {
      // Most of what is dropped, without asking for each octet.
      if (place === 'dropped') while (i < piece.length && piece[i] !== QUOTE && piece[i] !== BACKSLASH) i++;
      if (i === piece.length) break;
      const octet = piece[i] as number;
      if (isKept(octet)) kept[length++] = octet;
    }
    // Not a view, which would hold all that was dropped.
    return Buffer.from(kept.subarray(0, length));
  };
}
