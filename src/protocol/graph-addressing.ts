/**
 * Envelope and header of a message for a way that has no envelope: whoever To, Cc and Bcc name gets it.
 * In: message, recipients of the transaction. Out: a message that names exactly them, or why it must
 * not go. Pure.
 */
import { type AddressList, normalAddress, parseAddressList } from './address-list.ts';
import { type HeaderField, type MessageHeader, parseHeader, unfold, withHeader } from './message-header.ts';

/** What to do where a header names somebody who is not in the transaction. */
export type ForeignRecipients = 'refuse' | 'rewrite';

export type Addressed =
  | { readonly kind: 'ready'; readonly message: Buffer; readonly changed: boolean }
  /** The header names these, the transaction does not. */
  | { readonly kind: 'foreign'; readonly addresses: readonly string[] }
  /** Whom the header names cannot be told for certain. */
  | { readonly kind: 'unreadable'; readonly reason: string };

const RECIPIENT_FIELDS = new Set(['to', 'cc', 'bcc']);
/** Whether these are mailed too is not documented, so they may not name anybody else either. */
const RESENT_FIELDS = new Set(['resent-to', 'resent-cc', 'resent-bcc']);

/** Microsoft takes at most 1,000 recipients a message; this is room for them and their names. */
const MAX_RECIPIENT_OCTETS = 64 * 1024;
/** Each may end an address that has to be read, or begin a name, bracket or comment. */
const MAX_SEPARATORS = 2_000;
const MAX_OPENINGS = 4_000;
/** RFC 5322 §3.6 allows one of each. */
const MAX_RECIPIENT_FIELDS = 50;

interface Read {
  readonly field: HeaderField;
  readonly addresses: readonly string[];
  readonly certain: boolean;
  readonly plain: boolean;
}

/** Makes the message name exactly `recipients` (addresses as in RCPT). */
export function addressMessage(
  message: Buffer,
  recipients: readonly string[],
  foreign: ForeignRecipients,
): Addressed {
  const header = parseHeader(message);
  if (header.ambiguous)
    return { kind: 'unreadable', reason: 'the header section holds a line that is no header field' };
  // `<Postmaster>` (RFC 5321 §4.1.1.3) in a header is no address.
  const bare = recipients.find((r) => !r.includes('@'));
  if (bare !== undefined) return { kind: 'unreadable', reason: `recipient ${bare} has no domain` };
  const wanted = new Map(recipients.map((r) => [normalAddress(r), r]));
  const naming = header.fields.filter(({ name }) => RECIPIENT_FIELDS.has(name) || RESENT_FIELDS.has(name));
  const total = (count: (value: string) => number): number =>
    naming.reduce((sum, { value }) => sum + count(value), 0);
  if (
    naming.length > MAX_RECIPIENT_FIELDS ||
    total((value) => value.length) > MAX_RECIPIENT_OCTETS ||
    total((value) => value.match(/[,:;]/g)?.length ?? 0) > MAX_SEPARATORS ||
    total((value) => value.match(/["<(]/g)?.length ?? 0) > MAX_OPENINGS
  )
    return { kind: 'unreadable', reason: 'To, Cc and Bcc are longer than those of 1,000 recipients' };
  const read = naming.map((field): Read => ({ field, ...readField(field) }));
  const wrong = read.filter((r) => !r.certain || r.addresses.some((a) => !wanted.has(a)));
  // Nobody is told by these who should not be, but a strict reader might find less.
  const loose = read.filter((r) => r.certain && !r.plain && !wrong.includes(r));
  if (wrong.length > 0 && foreign === 'refuse') {
    const doubtful = wrong.find((r) => !r.certain);
    if (doubtful !== undefined)
      return {
        kind: 'unreadable',
        reason: `the addresses of ${doubtful.field.name}: cannot be told for certain`,
      };
    return {
      kind: 'foreign',
      addresses: [...new Set(wrong.flatMap((r) => r.addresses.filter((a) => !wanted.has(a))))],
    };
  }
  const named = new Set(read.filter((r) => RECIPIENT_FIELDS.has(r.field.name)).flatMap((r) => r.addresses));
  const unnamed = [...wanted].filter(([normal]) => !named.has(normal)).map(([, address]) => address);
  const names = read.map((r) => r.field.name).filter((name) => RECIPIENT_FIELDS.has(name));
  if (
    unnamed.length === 0 &&
    wrong.length === 0 &&
    loose.length === 0 &&
    !header.fields.some((field) => written(field) !== field.raw) &&
    new Set(names).size === names.length
  )
    return { kind: 'ready', message, changed: false };
  return {
    kind: 'ready',
    message: withHeader(message, header, fieldsFor(header, new Set([...wrong, ...loose]), wanted, unnamed)),
    changed: true,
  };
}

function readField(field: HeaderField): AddressList {
  const value = unfold(field);
  return value === '' ? { addresses: [], certain: true, plain: true } : parseAddressList(value);
}

/** Of To, Cc and Bcc one each: which of two fields counts readers do not agree on (RFC 5322 §3.6 allows one). */
function fieldsFor(
  header: MessageHeader,
  wrong: ReadonlySet<Read>,
  wanted: ReadonlyMap<string, string>,
  unnamed: readonly string[],
): string[] {
  const replaced = new Map([...wrong].map((r) => [r.field, r]));
  const fields: string[] = [];
  /** By name: where it stands among `fields`, and what it will hold. */
  const merged = new Map<string, { readonly at: number; readonly name: string; readonly lists: string[] }>();
  const merge = (name: string, list: string): void => {
    const known = merged.get(name.toLowerCase());
    if (known !== undefined) known.lists.push(list);
    else merged.set(name.toLowerCase(), { at: fields.push('') - 1, name, lists: [list] });
  };
  // In front: whatever stands at the end of the section cannot swallow it.
  if (unnamed.length > 0) merge('Bcc', listOf(unnamed));
  for (const field of header.fields) {
    const name = field.raw.slice(0, field.name.length);
    const instead = replaced.get(field);
    if (instead !== undefined) {
      const kept = instead.addresses.flatMap((a) => wanted.get(a) ?? []);
      if (kept.length > 0) merge(name, listOf([...new Set(kept)]));
      // A blind copy stays blind.
      if (!field.name.endsWith('bcc')) fields.push(`X-Original-${written(field)}`);
    } else if (RECIPIENT_FIELDS.has(field.name)) merge(name, field.value);
    else fields.push(written(field));
  }
  for (const { at, name, lists } of merged.values()) {
    const named = lists.filter((list) => list.trim() !== '');
    fields[at] = `${name}:${(named.length === 0 ? lists.slice(0, 1) : named).map(folded).join(',\r\n')}\r\n`;
  }
  return fields;
}

/** Without blanks before the colon (RFC 5322 §4.5): for some readers such a line is none, or ends the header. */
const written = ({ raw, name, value }: HeaderField): string => `${raw.slice(0, name.length)}:${value}\r\n`;

/** It may be continued on a line of its own. */
const folded = (list: string): string => (/^[ \t]/.test(list) || list === '' ? list : ` ${list}`);

/** One address a line: a line has at most 998 octets (RFC 5322 §2.1.1), an address at most 256. */
const listOf = (addresses: readonly string[]): string =>
  ` ${addresses.map((a) => Buffer.from(`<${a}>`).toString('latin1')).join(',\r\n ')}`;
