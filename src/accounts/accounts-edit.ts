/**
 * Changes the text of an accounts file and leaves everything else as the operator wrote it: order,
 * indentation, line ends, byte order mark. In: text and one account. Out: new text. Pure; the text must
 * be parseable (`parseJsonText` throws where it is not).
 */
import { type JsonNode, parseJsonText } from './json-text.ts';

export type EntryObject = Readonly<Record<string, unknown>>;

/** What a new file starts as. */
export const EMPTY_ACCOUNTS_TEXT = '{\n  "accounts": []\n}\n';

/** Reads the texts of an entry by key; undefined for what is none. */
export const textIn =
  (entry: EntryObject) =>
  (key: string): string | undefined =>
    typeof entry[key] === 'string' ? entry[key] : undefined;

/** The entries of the file, as read; for finding one. */
export function accountEntries(text: string): readonly EntryObject[] {
  return accountList(parseJsonText(text)).items?.map((node) => node.value as EntryObject) ?? [];
}

/** Appends an account. */
export function appendAccount(text: string, entry: EntryObject): string {
  const root = parseJsonText(text);
  const list = accountList(root);
  const last = list.items?.at(-1);
  const style = styleOf(text, last ?? list);
  if (last === undefined) {
    const outer = lineIndent(text, list.start);
    const inner = outer + style.unit;
    const body = `[${style.newline}${inner}${format(entry, inner, style)}${style.newline}${outer}]`;
    return splice(text, list.start, list.end, body);
  }
  if (!startsItsLine(text, last.start)) return splice(text, last.end, last.end, `, ${JSON.stringify(entry)}`);
  const indent = lineIndent(text, last.start);
  return splice(text, last.end, last.end, `,${style.newline}${indent}${format(entry, indent, style)}`);
}

/** Sets the given keys of the account at `index`; undefined removes a key, all other keys stay. */
export function updateAccount(text: string, index: number, changes: EntryObject): string {
  return Object.entries(changes).reduce((current, [key, value]) => {
    const node = itemAt(current, index);
    const member = node.members?.get(key);
    if (value === undefined) return member === undefined ? current : removeMember(current, node, key);
    if (member !== undefined) {
      const indent = lineIndent(current, member.start);
      return splice(current, member.start, member.end, format(value, indent, styleOf(current, node)));
    }
    return addMember(current, node, key, value);
  }, text);
}

/** Removes the account at `index`. */
export function removeAccount(text: string, index: number): string {
  const list = accountList(parseJsonText(text));
  const items = list.items ?? [];
  const item = items[index];
  if (item === undefined) throw new RangeError(`no account ${index}`);
  const next = items[index + 1];
  const previous = items[index - 1];
  if (next !== undefined) return splice(text, item.start, next.start, '');
  if (previous !== undefined) return splice(text, previous.end, item.end, '');
  return splice(text, list.start, list.end, '[]');
}

function accountList(root: JsonNode): JsonNode {
  const list = root.items === undefined ? root.members?.get('accounts') : root;
  if (list?.items === undefined) throw new SyntaxError('expected { "accounts": [ … ] } or [ … ]');
  return list;
}

function itemAt(text: string, index: number): JsonNode {
  const item = accountList(parseJsonText(text)).items?.[index];
  if (item?.members === undefined) throw new RangeError(`no account ${index}`);
  return item;
}

function addMember(text: string, node: JsonNode, key: string, value: unknown): string {
  const style = styleOf(text, node);
  const members = [...(node.members?.values() ?? [])];
  const last = members.at(-1);
  if (last === undefined)
    return splice(text, node.start, node.end, format({ [key]: value }, lineIndent(text, node.start), style));
  const keyLineIndent = lineIndent(text, last.start);
  const isOnOneLine = !text.slice(node.start, last.start).includes('\n');
  const separator = isOnOneLine ? ', ' : `,${style.newline}${keyLineIndent}`;
  return splice(
    text,
    last.end,
    last.end,
    `${separator}${JSON.stringify(key)}: ${format(value, keyLineIndent, style)}`,
  );
}

function removeMember(text: string, node: JsonNode, key: string): string {
  const keys = [...(node.members?.keys() ?? [])];
  const index = keys.indexOf(key);
  const endOf = (name: string | undefined): number =>
    name === undefined ? node.start + 1 : (node.members?.get(name)?.end ?? node.start + 1);
  const from = endOf(keys[index - 1]);
  const to = endOf(key);
  // The first member leaves with the comma behind it, any other with the comma before it.
  if (index > 0) return splice(text, from, to, '');
  const comma = /^\s*,/.exec(text.slice(to));
  return splice(text, from, to + (comma?.[0].length ?? 0), '');
}

interface Style {
  readonly newline: string;
  /** One step of indentation. */
  readonly unit: string;
}

function styleOf(text: string, near: JsonNode): Style {
  const newline = text.includes('\r\n') ? '\r\n' : '\n';
  // The step from an object to its members, else the file's first indentation, else two spaces.
  const firstMember = near.members?.values().next().value;
  if (firstMember !== undefined && text.slice(near.start, firstMember.start).includes('\n')) {
    const step = lineIndent(text, firstMember.start).slice(lineIndent(text, near.start).length);
    if (step !== '') return { newline, unit: step };
  }
  const [, indent] = /\n([ \t]+)\S/.exec(text) ?? [];
  return { newline, unit: indent ?? '  ' };
}

const format = (value: unknown, indent: string, { newline, unit }: Style): string =>
  JSON.stringify(value, null, unit).replaceAll('\n', newline + indent);

const lineStart = (text: string, offset: number): number => text.lastIndexOf('\n', offset - 1) + 1;

const lineIndent = (text: string, offset: number): string =>
  /^[ \t]*/.exec(text.slice(lineStart(text, offset)).replace(/^\ufeff/, ''))?.[0] ?? '';

const startsItsLine = (text: string, offset: number): boolean =>
  text.slice(lineStart(text, offset), offset).trim() === '' && lineStart(text, offset) > 0;

const splice = (text: string, start: number, end: number, replacement: string): string =>
  text.slice(0, start) + replacement + text.slice(end);
