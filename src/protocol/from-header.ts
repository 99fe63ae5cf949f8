/**
 * The addresses a message claims to be from. In: its header section. Out: the addresses of `From:`
 * (RFC 5322 §3.6.2), or that they cannot be told for certain. Pure. Used to refuse, so doubt is not
 * resolved in the sender's favour.
 */

import { foldAddress } from './text.ts';

/** Nobody writes in the name of more; each has to be looked up. */
const MAX_ADDRESSES = 100;
/** A longer value is not read. */
export const MAX_FROM_CHARACTERS = 32 * 1024;
const FROM = /(?:^|\r\n)from[ \t]*:/gi;

/** The addresses in the one `From:` field, folded; undefined where it is missing, repeated or unreadable. Linear; other fields cost nothing. */
export function parseFromAddresses(header: string): readonly string[] | undefined {
  const [field, ...more] = header.matchAll(FROM);
  if (field === undefined || more.length > 0) return undefined;
  const text = header.slice(field.index + field[0].length);
  const end = text.search(/\r\n(?![ \t])/);
  const value = end < 0 ? text : text.slice(0, end);
  if (value.length > MAX_FROM_CHARACTERS) return undefined;
  return parseMailboxList(value.replaceAll('\r\n', ''));
}

/** A mailbox list, groups included; undefined for anything that is not one. */
export function parseMailboxList(text: string): readonly string[] | undefined {
  const addresses: string[] = [];
  let bare = '';
  let angle: string | undefined;
  let isInside = false;
  const finish = (): boolean => {
    // Some take what stands behind the brackets.
    if (angle !== undefined && bare.trim() !== '') return false;
    const address = foldAddress((angle ?? bare).trim());
    const isEmpty = angle === undefined && bare.trim() === '';
    bare = '';
    angle = undefined;
    if (isEmpty) return true;
    if (addresses.length === MAX_ADDRESSES) return false;
    addresses.push(address);
    return /^(?:"[^"]*"|[^\s"@]+)@[^\s"@]+$/.test(address);
  };
  for (let i = 0; i < text.length; i++) {
    const c = text[i] ?? '';
    if (c === '"' || c === '(') {
      const end = c === '"' ? quoteEnd(text, i) : commentEnd(text, i);
      if (end < 0) return undefined;
      // A quoted string matters only in an address; in a display name it is decoration.
      if (c === '"') {
        if (isInside) angle += text.slice(i, end);
        else bare += text.slice(i, end);
      }
      i = end - 1;
    } else if (c === '<') {
      if (isInside || angle !== undefined) return undefined;
      isInside = true;
      angle = '';
    } else if (c === '>') {
      if (!isInside) return undefined;
      isInside = false;
      bare = '';
    } else if (isInside) angle += c;
    else if (c === ',' || c === ';') {
      if (!finish()) return undefined;
    } else if (c === ':') {
      // The name of a group; some take an address there for one of its own.
      if (bare.includes('@')) return undefined;
      bare = '';
    } else bare += c;
  }
  if (isInside || !finish() || addresses.length === 0) return undefined;
  return addresses;
}

/** The index behind the quoted string that begins at `from`, -1 where it is not closed. */
export function quoteEnd(text: string, from: number): number {
  for (let i = from + 1; i < text.length; i++) {
    if (text[i] === '\\') i += 1;
    else if (text[i] === '"') return i + 1;
  }
  return -1;
}

/** The index behind the comment that begins at `from`, those in it included; -1 where it is not closed. */
export function commentEnd(text: string, from: number): number {
  let depth = 0;
  for (let i = from; i < text.length; i++) {
    if (text[i] === '\\') i += 1;
    else if (text[i] === '(') depth += 1;
    else if (text[i] === ')') {
      depth -= 1;
      if (depth === 0) return i + 1;
    }
  }
  return -1;
}
