/**
 * Entries of the accounts file that was written for the earlier Python tool. In: an entry as read. Out:
 * the entry without what only that tool knew, and the names of what was left out. Pure.
 */
import { accountSchemaKeys } from './schema.ts';

/** Keys that only that tool has; one of them tells such an entry. */
const MARKS = ['ip_address', 'vmta_name', 'max_concurrent_connections', 'max_messages_per_hour'];

export interface LegacyEntry {
  readonly entry: unknown;
  /** Names of the keys that are ignored; empty for an entry of our own. */
  readonly ignored: readonly string[];
}

export function withoutLegacyKeys(value: unknown): LegacyEntry {
  if (typeof value !== 'object' || value === null || !MARKS.some((mark) => Object.hasOwn(value, mark)))
    return { entry: value, ignored: [] };
  const ignored: string[] = [];
  const entry: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    if (!accountSchemaKeys.has(key)) ignored.push(key);
    // That tool writes empty text, or null, where there is nothing.
    else if (item !== null && item !== '') entry[key] = item;
  }
  return { entry, ignored };
}
