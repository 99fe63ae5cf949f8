/**
 * One checked entry of the accounts file becomes public facts on one side and a credential on the other.
 * In: entry, provider profile, where secrets stand. Out: both, or what is missing. Reads secret files; owns nothing.
 */

import { createHmac, randomBytes } from 'node:crypto';
import { isRecord } from '../protocol/json-object.ts';
import { foldPattern, isCovered } from '../protocol/sender-pattern.ts';
import { foldAddress, foldAscii } from '../protocol/text.ts';
import type { Account, AccountLimits, ClientPassword, Endpoint, GraphTarget } from './account.ts';
import { buildCredential, type Wrong } from './build-credential.ts';
import type { Credential } from './credential.ts';
import { GRAPH_MAX_BYTES, graphScopes, graphTargetOf, isOthersMailbox } from './graph-target.ts';
import { DEFAULT_LIMITS, type ProviderProfile } from './providers.ts';
import type { AccountEntry, Issue, ProviderEntry, SecretSource } from './schema.ts';
import { formatScryptHash, hashPassword, isPasswordHash, MEMORY_COST, parseScryptHash } from './scrypt.ts';
import { readSecretText, type SecretPlaces } from './secret-source.ts';
import { parseSmtpProxy } from './smtp-proxy.ts';
import { parseHostPort, parseSmtpUrl } from './smtp-url.ts';

export interface LoadedAccount {
  readonly account: Account;
  readonly credential: Credential;
}

export interface BuiltAccount {
  /** Undefined when there are issues. */
  readonly loaded: LoadedAccount | undefined;
  readonly issues: readonly Issue[];
  readonly warnings: readonly Issue[];
}

/** Builds an account; never throws for what the operator wrote. */
export async function buildAccount(
  entry: AccountEntry,
  profile: ProviderProfile,
  places: SecretPlaces,
): Promise<BuiltAccount> {
  const issues: Issue[] = [];
  const warnings: Issue[] = [];
  const wrong = (key: string, message: string): undefined => {
    issues.push({ path: [key], message });
    return undefined;
  };
  const credential = buildCredential(entry, profile, places, { wrong, warnings });
  const clientPassword = await buildClientPassword(entry.password, places).catch((error: unknown) =>
    wrong('password', (error as Error).message),
  );
  const upstream = upstreamOf(entry, profile, wrong);
  const smtpProxy = smtpProxyOf(entry.smtp_proxy ?? profile.smtpProxy, places, wrong);
  const graph = graphTargetOf(entry, profile, credential?.tokenUrl ?? '', wrong);
  const limits = graphLimits(limitsOf(entry, profile.limits), entry.transport);
  if (limits.minConnections > limits.maxConnections)
    wrong('min_connections', `must not exceed max_connections (${limits.maxConnections})`);
  const denied = new Set(patternsOf(entry.deny ?? []));
  for (const [index, sender] of (entry.senders ?? []).entries())
    if (isCovered(foldPattern(sender) ?? '', denied))
      issues.push({ path: ['senders', index], message: 'can never match: deny refuses all of it' });
  if (issues.length > 0 || credential === undefined || upstream === undefined)
    return { loaded: undefined, issues, warnings };
  const email = entry.email;
  const account: Account = {
    id: entry.account_id ?? foldAscii(email),
    email,
    provider: profile.name,
    grant: credential.grant,
    user: entry.user ?? email,
    senders: [foldAddress(email), ...patternsOf(entry.senders ?? []).filter((s) => s !== foldAddress(email))],
    ...(entry.deny === undefined ? {} : { deny: patternsOf(entry.deny) }),
    ...(entry.preference === undefined ? {} : { preference: entry.preference }),
    ...(entry.rewrite_sender === undefined ? {} : { rewriteSender: entry.rewrite_sender }),
    ...(entry.rewrite_from === undefined ? {} : { rewriteFrom: entry.rewrite_from }),
    ...(entry.complete_header === undefined ? {} : { completeHeader: entry.complete_header }),
    clientPassword,
    upstream,
    transport: entry.transport ?? 'smtp',
    ...(graph === undefined ? {} : { graph }),
    chunking: entry.chunking ?? profile.chunking,
    checkFromHeader: entry.check_from_header ?? false,
    ...(entry.first_recipient === undefined ? {} : { firstRecipient: entry.first_recipient }),
    localAddress: entry.local_address,
    ...(smtpProxy === undefined ? {} : { smtpProxy }),
    heloName: entry.helo_name ?? profile.heloName,
    limits,
  };
  return {
    loaded: { account, credential: withFurtherScopes(credential, entry, { profile, graph }) },
    issues,
    warnings,
  };
}

/** By Graph alone no message may be larger than Graph takes. */
const graphLimits = (limits: AccountLimits, transport: AccountEntry['transport']): AccountLimits =>
  transport === 'graph' ? { ...limits, maxBytes: Math.min(limits.maxBytes, GRAPH_MAX_BYTES) } : limits;

/** One grant serves all resources, with a token for each. */
function withFurtherScopes(
  credential: Credential,
  entry: AccountEntry,
  { profile, graph }: { readonly profile: ProviderProfile; readonly graph: GraphTarget | undefined },
): Credential {
  const imap = entry.imap_scope ?? profile.imapScopes?.[credential.grant];
  const scopes = imap === undefined ? credential.scopes : { ...credential.scopes, imap };
  if (graph === undefined) return scopes === undefined ? credential : { ...credential, scopes };
  const isOnly = entry.transport === 'graph';
  const scope =
    (isOnly ? entry.scope : undefined) ??
    (credential.grant === 'client_credentials'
      ? `${graph.resource}/.default`
      : graphScopes(graph.resource, graph.permissions, isOthersMailbox(profile, entry.email, entry.user)));
  return { ...credential, scopes: { ...scopes, graph: scope }, ahead: isOnly ? ['graph'] : ['smtp'] };
}

/** In the form in which they are looked up; the schema has refused those that can never match. */
const patternsOf = (patterns: readonly string[]): string[] => [
  ...new Set(patterns.map(foldPattern).filter((pattern) => pattern !== undefined)),
];

/** Limits with what an entry or provider sets in place of `defaults`; 0 messages a minute or day is no limit. */
export function limitsOf(entry: AccountEntry | ProviderEntry, defaults: AccountLimits): AccountLimits {
  const rate = (own: number | undefined, inherited: number | undefined): number | undefined =>
    own === undefined ? inherited : own === 0 ? undefined : own;
  const maxConnections = entry.max_connections ?? defaults.maxConnections;
  return {
    maxConnections,
    // A lowered maximum alone must not clash with the default minimum.
    minConnections: entry.min_connections ?? Math.min(defaults.minConnections, maxConnections),
    messagesPerMinute: rate(entry.messages_per_minute, defaults.messagesPerMinute),
    messagesPerDay: rate(entry.messages_per_day, defaults.messagesPerDay),
    recipientsPerDay: rate(entry.recipients_per_day, defaults.recipientsPerDay),
    maxRecipients: entry.max_recipients ?? defaults.maxRecipients,
    messagesPerConnection: entry.messages_per_connection ?? defaults.messagesPerConnection,
    idleMs: entry.idle_timeout_ms ?? defaults.idleMs,
    maxAgeMs: entry.max_age_ms ?? defaults.maxAgeMs,
    loginIntervalMs: entry.login_interval_ms ?? defaults.loginIntervalMs,
    maxBytes: entry.max_message_bytes ?? defaults.maxBytes,
  };
}

function upstreamOf(entry: AccountEntry, profile: ProviderProfile, wrong: Wrong): Endpoint | undefined {
  if (entry.smtp !== undefined && entry.oauth_endpoint !== undefined)
    return wrong('oauth_endpoint', 'smtp says the same thing: keep one of the two');
  const key = entry.smtp === undefined ? 'oauth_endpoint' : 'smtp';
  try {
    if (entry.smtp !== undefined) return parseSmtpUrl(entry.smtp);
    if (entry.oauth_endpoint !== undefined) return parseHostPort(entry.oauth_endpoint);
    return profile.smtp;
  } catch (error) {
    return wrong(key, (error as Error).message);
  }
}

function smtpProxyOf(
  source: SecretSource | undefined,
  places: SecretPlaces,
  wrong: Wrong,
): Account['smtpProxy'] {
  try {
    return source === undefined ? undefined : parseSmtpProxy(readSecretText(source, places));
  } catch (error) {
    return wrong('smtp_proxy', (error as Error).message);
  }
}

// Salted by the password itself and a key of this process, so that reading the file again gives the same
// hash and an unchanged account counts as unchanged.
const PROCESS_KEY = randomBytes(32);

async function buildClientPassword(
  source: SecretSource | undefined,
  places: SecretPlaces,
): Promise<ClientPassword | undefined> {
  if (source === undefined) return undefined;
  const text = readSecretText(source, places);
  if (isPasswordHash(text)) return { hash: formatScryptHash(parseScryptHash(text)) };
  const salt = createHmac('sha256', PROCESS_KEY).update(text).digest().subarray(0, 16);
  return { hash: await hashPassword(text, MEMORY_COST, salt) };
}

/** An account that cannot be used until its entry is corrected, but whose mail must wait, not bounce. */
export async function placeholderAccount(value: unknown, email: string): Promise<Account> {
  const entry = isRecord(value) ? value : {};
  const texts = (list: unknown): string[] =>
    Array.isArray(list) ? list.filter((item): item is string => typeof item === 'string') : [];
  const text = (key: string): string | undefined => texts([entry[key]])[0];
  return {
    id: text('account_id') ?? foldAscii(email),
    email,
    provider: text('provider') ?? 'unknown',
    grant: 'refresh_token',
    user: text('user') ?? email,
    senders: [foldAddress(email), ...patternsOf(texts(entry.senders))],
    // Whoever had to present a password still has to; none is right until the entry is.
    clientPassword:
      entry.password === undefined
        ? undefined
        : { hash: await hashPassword(randomBytes(32).toString('base64'), MEMORY_COST) },
    upstream: { host: 'unknown.invalid', port: 587, tls: 'starttls' },
    transport: 'smtp',
    chunking: false,
    localAddress: undefined,
    limits: { ...DEFAULT_LIMITS, maxConnections: 1, minConnections: 0 },
  };
}
