/**
 * The header section of a message as lines of octets. In: a message. Out: its fields in order, and the
 * octets for another header section. Pure. Text is latin1, one character an octet, so that what is not
 * touched goes out as it came in.
 */

export interface HeaderField {
  /** Lower-cased, without the colon; empty for a line that is no field. */
  readonly name: string;
  /** Everything after the colon, folding included, without the last CRLF; latin1. */
  readonly value: string;
  /** The field as it stands, last CRLF included; latin1. */
  readonly raw: string;
}

export interface MessageHeader {
  readonly fields: readonly HeaderField[];
  /** Where the empty line begins that ends the section; the length of the message where there is none. */
  readonly end: number;
  /** A lone CR or LF stands in it, or a line that is neither a field nor its continuation: two readers may see two headers. */
  readonly ambiguous: boolean;
}

const FIELD = /^([!-9;-~]+)[ \t]*:/;

/** Reads the header section (RFC 5322 §2.2). Never throws. */
export function parseHeader(message: Buffer): MessageHeader {
  const end = headerEnd(message);
  const text = message.toString('latin1', 0, end);
  const fields: HeaderField[] = [];
  let ambiguous = /\r(?!\n)|(?<!\r)\n|\0/.test(text);
  const lines = text.split('\r\n');
  // What follows the last CRLF is no line.
  lines.pop();
  for (let at = 0; at < lines.length; ) {
    const first = at++;
    while (/^[ \t]/.test(lines[at] ?? '')) at++;
    const folded = lines.slice(first, at);
    const raw = `${folded.join('\r\n')}\r\n`;
    const name = FIELD.exec(raw)?.[1];
    // A line of white space alone ends the header for some readers and continues a field for others.
    if (name === undefined || folded.some((line) => line.trim() === '')) ambiguous = true;
    fields.push({
      name: name?.toLowerCase() ?? '',
      value: name === undefined ? raw.slice(0, -2) : raw.slice(raw.indexOf(':') + 1, -2),
      raw,
    });
  }
  return { fields, end, ambiguous };
}

function headerEnd(message: Buffer): number {
  if (message.subarray(0, 2).toString('latin1') === '\r\n') return 0;
  const blank = message.indexOf('\r\n\r\n');
  return blank < 0 ? message.length : blank + 2;
}

/** Value of a field as text: unfolded (RFC 5322 §2.2.3), octets read as UTF-8 (RFC 6532). */
export const unfold = (field: HeaderField): string =>
  Buffer.from(field.value, 'latin1')
    .toString()
    .replace(/\r\n(?=[ \t])/g, '')
    .trim();

/** The message with another header section. */
export const withHeader = (message: Buffer, header: MessageHeader, fields: readonly string[]): Buffer =>
  Buffer.concat([Buffer.from(fields.join(''), 'latin1'), message.subarray(header.end)]);
