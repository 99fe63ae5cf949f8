/**
 * Address lists of a header field (RFC 5322 §3.4): groups, comments, folding, encoded words. In: the
 * unfolded value. Out: the addresses in it, or that they cannot be told for certain. nodemailer's
 * parser reads; what it had to guess is no certainty. Pure.
 */
import addressparser from 'nodemailer/lib/addressparser';
import { trimBlanks } from './message-header.ts';
import { foldDomain } from './text.ts';

export interface AddressList {
  /** In the form of `normalAddress`, in order. */
  readonly addresses: readonly string[];
  /** Every reader would find the same addresses. */
  readonly certain: boolean;
  /** It is written as RFC 5322 has it: readers of the bare grammar find them too. */
  readonly plain: boolean;
}

/** Where the closing quote is missing, all that follows: so each octet is looked at once. */
const QUOTED = /"(?:[^"\\]|\\.)*("?)/gs;
const WORD = /[^\s<>(),;:"]+/g;
const isAddressLike = (word: string): boolean => /^.[^@]*@./s.test(word);
const NORMAL = /^(?:"(?:[^"\\]|\\.)+"|[^\s<>(),;:"@\\]+)@[^\s<>(),;:"@\\]+$/;

/**
 * An address as it is compared: local part exactly (RFC 5321 §2.4) but without quotes it does not
 * need, domain in lower-case ASCII.
 */
export function normalAddress(address: string): string {
  const at = address.lastIndexOf('@');
  if (at < 0) return address;
  let local = address.slice(0, at);
  const domain = address.slice(at + 1);
  if (/^".*"$/.test(local)) {
    const bare = local.slice(1, -1).replace(/\\(.)/g, '$1');
    if (/^[^\s<>(),;:"@\\]+$/.test(bare)) local = bare;
  }
  return `${local}@${foldDomain(domain)}`;
}

export function parseAddressList(value: string): AddressList {
  const addresses: string[] = [];
  let certain = (value.match(/(?<!\\)"/g) ?? []).length % 2 === 0;
  const outside = value.replace(QUOTED, (_quoted, end: string) => {
    if (end === '') certain = false;
    return '""';
  });
  if (!isBalanced(outside)) certain = false;
  for (const { address } of addressparser(value, { flatten: true })) {
    if (!NORMAL.test(address)) certain = false;
    else addresses.push(normalAddress(address));
  }
  // What stands in quotes is a name; an address elsewhere that the parser took for a name is a guess.
  const found = new Set(addresses);
  for (const [word] of outside.matchAll(WORD))
    if (isAddressLike(word) && !found.has(normalAddress(word))) certain = false;
  return { addresses, certain, plain: isPlain(outside) };
}

/**
 * A name and an address in angle brackets, or an address; of a quoted string the quotes are left. Half an address in a
 * name (`eve (home)@e.test`) is a whole one for whoever drops a comment or a blank: a name with one is nothing but an
 * address. What is a blank outside ASCII is none here.
 */
const ATOM = /[^\s<>(),;:"@]+/.source;
const ADDRESS = `(?:""|${ATOM})@${ATOM}`;
const MAILBOX = new RegExp(`^(?:(?:[^<>@]*|${ATOM}@${ATOM}[ \\t]*)<[ \\t]*${ADDRESS}[ \\t]*>|${ADDRESS})?$`);

/** A list of mailboxes and groups; elements may be empty (RFC 5322 §4.4). Without its comments. */
function isPlain(outside: string): boolean {
  let isGroup = false;
  let element = '';
  const bare = withoutComments(outside);
  // Brackets belong to domains alone: for some readers they take what follows.
  if (/[\\[\]]/.test(bare)) return false;
  /** Behind it comes a comma. */
  let isGroupOver = false;
  for (const [part] of bare.matchAll(/[,:;]|[^,:;]+/g)) {
    if (isGroupOver && part !== ',' && trimBlanks(part) !== '') return false;
    isGroupOver = part === ';' || (isGroupOver && part !== ',');
    if (part === ':') {
      if (isGroup || element.trim() === '' || element.includes('@')) return false;
      isGroup = true;
    } else if (part === ',' || part === ';') {
      if (!MAILBOX.test(trimBlanks(element))) return false;
      if (part === ';' && !isGroup) return false;
      if (part === ';') isGroup = false;
    } else {
      element = part;
      continue;
    }
    element = '';
  }
  return !isGroup && MAILBOX.test(trimBlanks(element));
}

function withoutComments(text: string): string {
  let bare = '';
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i] ?? '';
    if (c === '\\' && depth > 0) i++;
    else if (c === '(') depth++;
    else if (c === ')') depth--;
    // What a comment parts is no longer one word.
    if (depth === 0) bare += c === ')' ? ' ' : c;
  }
  return bare;
}

/** Each bracket is closed: one that is not takes for some readers all that follows. */
function isBalanced(outside: string): boolean {
  let comments = 0;
  let angles = 0;
  for (let i = 0; i < outside.length; i++) {
    const c = outside[i];
    if (c === '\\') i++;
    else if (c === '(') comments++;
    else if (c === ')') comments--;
    else if (comments === 0 && c === '<') angles++;
    else if (comments === 0 && c === '>') angles--;
    if (comments < 0 || angles < 0 || angles > 1) return false;
  }
  return comments === 0 && angles === 0;
}
