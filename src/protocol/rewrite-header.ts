/**
 * A header section with another From: or with what is missing added. In: the section as it came. Out: the
 * section to send, or that nothing changes. Only the lines concerned change; every other octet stays, and
 * so do 8-bit text and encoded words in the name. Pure; text is latin1, one character an octet.
 */
import { commentEnd, MAX_FROM_CHARACTERS, parseMailboxList, quoteEnd } from './from-header.ts';
import { type HeaderField, parseHeader } from './message-header.ts';

export interface HeaderChanges {
  readonly from?: {
    /** `foreign`: only where an address in it is not the account's own. */
    readonly mode: 'foreign' | 'always';
    readonly email: string;
    isOwn(address: string): boolean;
  };
  /** Values of the fields that are added where there are none (RFC 6409 §8). */
  readonly missing?: { readonly date: string; readonly messageId: string };
}

/** RFC 5322 §2.1.1: lines should be no longer. */
const MAX_LINE = 78;

/** The changed section, undefined where nothing changes. `section` ends with the CRLF of its last field. */
export function changeHeader(section: Buffer, changes: HeaderChanges): Buffer | undefined {
  const { fields } = parseHeader(section);
  const has = (name: string): boolean => fields.some((field) => field.name === name);
  const added: string[] = [];
  // A section that begins with a blank would continue what is put before it, and some do not take it for one.
  if (changes.missing !== undefined && !/^[ \t]/.test(fields[0]?.raw ?? '')) {
    if (!has('date')) added.push(`Date: ${changes.missing.date}\r\n`);
    if (!has('message-id')) added.push(`Message-ID: ${changes.missing.messageId}\r\n`);
  }
  const [from, ...more] = fields.filter(({ name }) => name === 'from');
  // Which of two is meant nobody can say; the provider will refuse it.
  const replaced =
    changes.from === undefined || from === undefined || more.length > 0
      ? undefined
      : replaceFrom(from, changes.from, has('reply-to'));
  if (added.length === 0 && replaced === undefined) return undefined;
  const kept = fields.map((field) => (field === from && replaced !== undefined ? replaced : field.raw));
  return Buffer.from([...added, ...kept].join(''), 'latin1');
}

function replaceFrom(
  field: HeaderField,
  { mode, email, isOwn }: NonNullable<HeaderChanges['from']>,
  hasReplyTo: boolean,
): string | undefined {
  const value = field.value.length > MAX_FROM_CHARACTERS ? '' : field.value.replace(/\r\n[ \t]/g, ' ');
  const addresses = value === '' ? undefined : parseMailboxList(Buffer.from(value, 'latin1').toString());
  if (mode === 'foreign' && addresses?.every(isOwn) === true) return undefined;
  const { name, address } = firstMailbox(value);
  const own = Buffer.from(email).toString('latin1');
  if (address === own && addresses?.length === 1) return undefined;
  const shown = displayName(name, address === own ? '' : address);
  const from = fold(`From: ${shown === '' ? '' : `${shown} `}<${own}>`);
  // What cannot be read is nothing to answer to.
  return hasReplyTo || addresses === undefined ? from : `${from}Reply-To:${field.value}\r\n`;
}

/** `"Name (root@host)"`; encoded words (RFC 2047) may not stand in quotes and stay before them. What is no phrase as it stands is quoted. */
function displayName(name: string, address: string): string {
  const words = name.match(PHRASE) ?? [];
  const isEncoded = (phrase: readonly string[]): boolean => phrase.some((word) => ENCODED_WORD.test(word));
  // A name and an address without brackets.
  if (name === '' && isEncoded(address.match(PHRASE) ?? [])) return displayName(address, '');
  if (name === '') return address === '' ? '' : quoted(address);
  if (isEncoded(words)) {
    const phrase = words.map((word) => (IS_WORD.test(word) ? word : quoted(unquoted(word))));
    return [...phrase, ...(address === '' ? [] : [quoted(`(${address})`)])].join(' ');
  }
  if (address === '' && words.every((word) => IS_WORD.test(word))) return name;
  return quoted(`${unquoted(name)}${address === '' ? '' : ` (${address})`}`);
}

/** What stands between blanks; blanks in quotes part nothing. */
const PHRASE = /(?:"(?:[^"\\]|\\.)*"?|[^\s"])+/gs;
const ENCODED_WORD = /^=\?[^\s?]+\?[bq]\?[^\s?]*\?=$/i;
/** An atom (8-bit text too), an encoded word or a quoted string (RFC 5322 §3.2.5). */
const IS_WORD = /^(?:[!#-'*+\-/-9=?A-Z^-~\x80-\xff]+|"(?:[^"\\]|\\.)*")$/s;

const quoted = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: none may stand in a header
  `"${text.replace(/[\x00-\x1f\x7f]+/g, ' ').replace(/["\\]/g, '\\$&')}"`;
const unquoted = (phrase: string): string =>
  phrase.replace(/"((?:[^"\\]|\\.)*)"?/g, (_, text: string) => text.replace(/\\(.)/g, '$1'));

/** The first mailbox of a list: its name as written, its address; both empty where it cannot be read. Linear. */
function firstMailbox(value: string): { readonly name: string; readonly address: string } {
  /** Of the length of `value`: what stands in quotes or comments as blanks. */
  let outside = '';
  /** Without comments, up to the first comma. */
  let first = '';
  let comma = -1;
  let comment: string | undefined;
  for (let at = 0; at < value.length; ) {
    const c = value[at] ?? '';
    const end = c === '(' ? commentEnd(value, at) : c === '"' ? quoteEnd(value, at) : at + 1;
    // It takes all that follows.
    if (end < 0) return { name: '', address: '' };
    if (c === ',' && comma < 0) comma = at;
    if (comma < 0 && c === '(') comment ??= value.slice(at + 1, end - 1);
    else if (comma < 0) first += value.slice(at, end);
    outside += end === at + 1 ? c : ' '.repeat(end - at);
    at = end;
  }
  const angle = outside.indexOf('<');
  if (angle < 0 || (comma >= 0 && comma < angle))
    return { name: comment?.trim() ?? '', address: first.trim() };
  const close = outside.indexOf('>', angle);
  return {
    name: value.slice(0, angle).trim(),
    address: value.slice(angle + 1, close < 0 ? value.length : close).trim(),
  };
}

/** Folded at blanks (RFC 5322 §2.2.3), with CRLF. */
function fold(line: string): string {
  const lines: string[] = [];
  let current = '';
  for (const word of line.split(' ')) {
    if (current !== '' && current.trim() !== '' && current.length + 1 + word.length > MAX_LINE) {
      lines.push(current);
      current = ` ${word}`;
    } else current = current === '' ? word : `${current} ${word}`;
  }
  return `${[...lines, current].join('\r\n')}\r\n`;
}
