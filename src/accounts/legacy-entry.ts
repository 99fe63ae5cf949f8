/**
 * What other tools, such as the earlier Python one, call the same thing. In: an entry as read. Out: the entry without
 * what only that tool knew, and the names of what was left out. Pure.
 */
import { accountSchemaKeys } from './schema.ts';

/**
 * Their key → ours. `account import` takes the value over, and a person sees it. `serve` does not: a source address that
 * is not this machine's would hold up all mail of an account that sends today, and that tool's number of connections is
 * beyond what the provider allows.
 */
export const EARLIER_NAMES: ReadonlyMap<string, string> = new Map([
  ['id', 'account_id'],
  ['address', 'email'],
  ['username', 'user'],
  ['ip_address', 'local_address'],
  ['source_ip', 'local_address'],
  ['max_concurrent_connections', 'max_connections'],
  ['tenant_id', 'tenant'],
]);

/** Such tools write empty text, or null, where there is nothing. */
export const isNothing = (value: unknown): boolean => value === null || value === '';

/** Keys that only the earlier tool has; one of them tells such an entry, in which what `serve` does not know is ignored. */
export const EARLIER_MARKS = [
  'ip_address',
  'vmta_name',
  'max_concurrent_connections',
  'max_messages_per_hour',
];

export interface LegacyEntry {
  readonly entry: unknown;
  /** Names of the keys that are ignored; empty for an entry of our own. */
  readonly ignored: readonly string[];
}

export function withoutLegacyKeys(value: unknown): LegacyEntry {
  if (
    typeof value !== 'object' ||
    value === null ||
    !EARLIER_MARKS.some((mark) => Object.hasOwn(value, mark))
  )
    return { entry: value, ignored: [] };
  const ignored: string[] = [];
  const entry: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    if (!accountSchemaKeys.has(key)) ignored.push(key);
    else if (!isNothing(item)) entry[key] = item;
  }
  return { entry, ignored };
}

/** That `serve` does not read a key of such an entry. */
export function explainIgnored(key: string): string {
  const ours = EARLIER_NAMES.get(key);
  return `is a key of the earlier tool and ignored${ours === undefined ? '' : `: ${ours} says it here`}`;
}
