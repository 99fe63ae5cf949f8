/** One account of another tool's file in our keys. In: the entry as read. Out: our entry, and what was left out. Pure. */
import { accountSchemaKeys } from '../accounts/schema.ts';

export interface ConvertedAccount {
  readonly entry: Record<string, unknown>;
  /** In words, key names only. */
  readonly notes: readonly string[];
}

/** Other names of the same thing. */
const RENAMED: Readonly<Record<string, string>> = {
  id: 'account_id',
  address: 'email',
  username: 'user',
  ip_address: 'local_address',
  source_ip: 'local_address',
  max_concurrent_connections: 'max_connections',
  tenant_id: 'tenant',
};

export function convertEarlierAccount(value: unknown): ConvertedAccount {
  const entry: Record<string, unknown> = {};
  const notes: string[] = [];
  const source = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  for (const [key, item] of Object.entries(source)) {
    // Earlier tools write empty text where there is nothing.
    if (item === null || item === '') continue;
    const ours = RENAMED[key] ?? key;
    if (accountSchemaKeys.has(ours)) entry[ours] = item;
    else notes.push(`${key} has no counterpart and was left out`);
  }
  if (typeof entry.provider === 'string') entry.provider = entry.provider.toLowerCase();
  const provider = entry.provider ?? guessProvider(entry);
  if (provider !== undefined) entry.provider = PROVIDER_NAMES[String(provider)] ?? provider;
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

function guessProvider(entry: Readonly<Record<string, unknown>>): string | undefined {
  const hints = [entry.oauth_endpoint, entry.smtp, entry.oauth_token_url, entry.token_url].join(' ');
  if (/gmail|googleapis/i.test(hints)) return 'gmail';
  if (/smtp-mail\.outlook|\/consumers\//i.test(hints)) return 'outlook-personal';
  if (/office365|microsoftonline/i.test(hints)) return 'outlook';
  return undefined;
}
