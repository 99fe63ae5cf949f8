/**
 * Patterns of `senders` and `deny`: which addresses in MAIL FROM an account may use. In: patterns and
 * addresses. Out: keys to look up, so that a match is an equality and no search. Pure.
 */
import { hasNonAscii, parsePathArgument } from './path.ts';
import { foldAddress, foldAscii, foldDomain } from './text.ts';

/** From most to least exact; a sender that only `any` matches is foreign to the account. */
const EXACTNESS = ['address', 'subaddress', 'domain', 'subdomain', 'any'] as const;
export type Exactness = (typeof EXACTNESS)[number];

export interface SenderKey {
  readonly key: string;
  readonly exactness: Exactness;
}

/** What the null sender's pattern is written as. */
export const NULL_SENDER = '<>';

/**
 * A pattern in the form in which it is looked up; undefined for one that can never match: an address,
 * `prefix+*@domain`, `*@domain`, `*@*.domain`, `*`, or `<>`.
 */
export function foldPattern(pattern: string): string | undefined {
  if (pattern === '*' || pattern === NULL_SENDER) return pattern;
  const [, wild, sub, domain] = /^(\*|[^@*]*\+\*)@(\*\.)?([^@*]+)$/.exec(pattern) ?? [];
  // An asterisk elsewhere is a mistake, although it may stand in a local part.
  if (wild === undefined || domain === undefined)
    return isAddress(pattern) && !pattern.includes('*') ? foldAddress(pattern) : undefined;
  const local = wild === '*' ? 'a' : wild.slice(0, -2);
  if ((sub !== undefined && wild !== '*') || !isAddress(`${local}@${domain}`)) return undefined;
  // No pattern takes a domain that is not in its own spelling, see below; a quoted local part has its `+` inside.
  const folded = foldDomain(domain);
  if (hasNonAscii(folded) || wild.includes('"')) return undefined;
  return `${foldAscii(wild)}@${sub ?? ''}${folded}`;
}

const isAddress = (text: string): boolean => {
  const parsed = parsePathArgument('MAIL', `<${text}>`);
  return 'address' in parsed && parsed.address === text && text !== '';
};

/** Under which patterns an address may stand, the most exact first. */
export function senderKeys(address: string): readonly SenderKey[] {
  if (address === '') return [{ key: NULL_SENDER, exactness: 'address' }];
  const folded = foldAddress(address);
  const at = folded.lastIndexOf('@');
  if (at < 0) return [{ key: folded, exactness: 'address' }];
  const local = folded.slice(0, at);
  const domain = folded.slice(at + 1);
  const keys: SenderKey[] = [{ key: folded, exactness: 'address' }];
  // Some server will read a domain that is not in its own spelling (full-width) as another's.
  if (hasNonAscii(domain)) return keys;
  for (let plus = local.lastIndexOf('+'); plus > 0; plus = local.lastIndexOf('+', plus - 1))
    keys.push({ key: `${local.slice(0, plus)}+*@${domain}`, exactness: 'subaddress' });
  keys.push({ key: `*@${domain}`, exactness: 'domain' });
  for (let dot = domain.indexOf('.'); dot >= 0; dot = domain.indexOf('.', dot + 1))
    keys.push({ key: `*@*${domain.slice(dot)}`, exactness: 'subdomain' });
  keys.push({ key: '*', exactness: 'any' });
  return keys;
}

/** Whether what `pattern` (as `foldPattern` made it) matches is matched by one of `others`, all of it. */
export function isCovered(pattern: string, others: ReadonlySet<string>): boolean {
  if (others.size === 0 || pattern === '*' || pattern === NULL_SENDER) return others.has(pattern);
  const keys = senderKeys(pattern.replace('@*.', '@x.').replace('*', 'x'));
  return keys.slice(keys.findIndex(({ key }) => key === pattern)).some(({ key }) => others.has(key));
}
