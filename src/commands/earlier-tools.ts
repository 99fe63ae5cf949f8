/** One account of another tool's file in our keys. In: the entry as read. Out: our entry, and what was left out. Pure. */
import { EARLIER_NAMES, isNothing } from '../accounts/legacy-entry.ts';
import { accountSchemaKeys } from '../accounts/schema.ts';
import { guessProvider } from './guess-provider.ts';

export interface ConvertedAccount {
  readonly entry: Record<string, unknown>;
  /** What became of keys that are not ours, in words, key names only. */
  readonly notes: readonly string[];
}

export function convertEarlierAccount(value: unknown): ConvertedAccount {
  const entry: Record<string, unknown> = {};
  const notes: string[] = [];
  const source = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  for (const [key, item] of Object.entries(source)) {
    if (isNothing(item)) continue;
    const ours = EARLIER_NAMES.get(key) ?? key;
    if (accountSchemaKeys.has(ours)) {
      entry[ours] = item;
      if (ours !== key) notes.push(`${key} became ${ours}`);
    } else notes.push(`${key} has no counterpart and was left out`);
  }
  if (typeof entry.provider === 'string') entry.provider = entry.provider.toLowerCase();
  const provider =
    entry.provider ??
    guessProvider(entry.email, [entry.oauth_endpoint, entry.smtp, entry.oauth_token_url, entry.token_url]);
  if (typeof provider === 'string') entry.provider = PROVIDER_NAMES[provider] ?? provider;
  return { entry, notes };
}

const PROVIDER_NAMES: Readonly<Record<string, string>> = {
  google: 'gmail',
  'google-workspace': 'gmail',
  microsoft: 'outlook',
  microsoft365: 'outlook',
  office365: 'outlook',
  hotmail: 'outlook-personal',
};
