/**
 * The accounts file. In: its path or text. Out: accounts with their credentials, and everything that is
 * wrong with path, line and what was expected. One bad account never stops the others; a file that cannot
 * be read as a whole throws. Owns nothing.
 */
import { dirname, resolve } from 'node:path';
import { foldAddress } from '../protocol/text.ts';
import { createSlices, mapInSlices, type Slices } from '../slices.ts';
import { type Account, GRANTS, type GrantType } from './account.ts';
import { buildAccount, type LoadedAccount, limitsOf, placeholderAccount } from './build-account.ts';
import {
  createLineIndex,
  formatPath,
  type JsonNode,
  JsonSyntaxError,
  nodeAt,
  parseJsonInSlices,
} from './json-text.ts';
import { explainIgnored, withoutLegacyKeys } from './legacy-entry.ts';
import { builtInProviders, DEFAULT_LIMITS, type ProviderProfile } from './providers.ts';
import {
  checkAccount,
  checkProvider,
  formatPlaceIn,
  type Issue,
  isSendersReadable,
  type Problem,
} from './schema.ts';
import { resolveCommands } from './secret-command.ts';
import type { SecretPlaces } from './secret-source.ts';
import { parseSmtpUrl } from './smtp-url.ts';
import { readTextAtRest, TextFileError, type TextFileFault } from './text-at-rest.ts';

/** An account whose entry is wrong: known, so that its mail is deferred (4xx) and not refused as unknown. */
export interface UnusableAccount {
  readonly account: Account;
  readonly problems: readonly Problem[];
  /** False where the entry does not say whose it is: `account` has its place in the file as its name then. */
  readonly isNamed: boolean;
}

export interface AccountsFile {
  readonly accounts: readonly LoadedAccount[];
  readonly unusable: readonly UnusableAccount[];
  /** Every entry is among `accounts`. */
  readonly isComplete: boolean;
  /** Of an entry that is not among `accounts` it is not known what it may send as. */
  readonly hidesSenders: boolean;
  /** Each costs an account or a provider. */
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
}

/** The file as a whole cannot be used; the message names it and the cure. */
export class AccountsFileError extends Error {
  override readonly name = 'AccountsFileError';
}

/** Reads and parses the file at `path`. Throws `AccountsFileError`. */
export async function readAccountsFile(
  path: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<AccountsFile> {
  const { text, mode } = await readAccountsText(path);
  const parsed = await parseAccounts(text, { env, directory: dirname(resolve(path)) }).catch(
    (error: unknown) => {
      throw error instanceof AccountsFileError
        ? new AccountsFileError(`${path}: ${error.message}`, { cause: error })
        : error;
    },
  );
  if ((mode & 0o077) === 0) return parsed;
  const open = {
    key: '',
    message: `${path} can be read by other users (mode ${(mode & 0o777).toString(8)}): chmod 600 ${path}`,
  };
  return { ...parsed, warnings: [open, ...parsed.warnings] };
}

const CURES: Readonly<Partial<Record<TextFileFault, string>>> = {
  missing: ': create it with "xoauth2-relay account add", or name another with --accounts',
  directory: ': name the accounts file in it',
  being_written: ': reload when that has ended',
};

/** The text of the file and its mode, never half of one and half of another. Throws `AccountsFileError`. */
export async function readAccountsText(path: string): Promise<{ text: string; mode: number }> {
  try {
    return await readTextAtRest(path);
  } catch (error) {
    if (!(error instanceof TextFileError)) throw error;
    const { code, message } = error;
    const subject = code === 'missing' || code === 'unreadable' ? `cannot read ${path}:` : path;
    throw new AccountsFileError(`${subject} ${message}${CURES[code] ?? ''}`, { cause: error.cause ?? error });
  }
}

/** Parses the text of an accounts file, in slices. Throws `AccountsFileError` when it is no such file at all. */
export async function parseAccounts(text: string, places: SecretPlaces): Promise<AccountsFile> {
  const slices = createSlices();
  const root = await parseRoot(text, slices);
  const problems: Problem[] = [];
  const warnings: Problem[] = [];
  let position: ReturnType<typeof createLineIndex> | undefined;
  const located = (path: readonly PropertyKey[], message: string): Problem => {
    // In a bare array the entries stand one level higher.
    const node = nearestNode(root, root.items === undefined ? path : path.slice(1));
    position ??= createLineIndex(text);
    const line = position(node.start).line;
    const [list, entry, ...rest] = path;
    return list === 'accounts' && typeof entry === 'number'
      ? { entry, key: formatPath(rest), message, line }
      : { key: formatPath(path), message, line };
  };

  if (root.members !== undefined)
    for (const key of root.members.keys())
      if (!['$schema', 'comment', 'providers', 'accounts'].includes(key))
        problems.push(located([key], 'unknown key: remove or correct it'));
  const list = root.items ?? root.members?.get('accounts')?.items;
  if (list === undefined)
    throw new AccountsFileError('expected { "accounts": [ … ] } or [ … ] with one object per account');

  const providers = readProviders(root.members?.get('providers'), (path, message) =>
    problems.push(located(['providers', ...path], message)),
  );

  /** Keys of the earlier tool, by the first entry that has them. */
  const legacyKeys = new Map<string, number>();
  async function build(node: JsonNode, index: number): Promise<Built> {
    const here = (issue: Issue): Problem => located(['accounts', index, ...issue.path], issue.message);
    const { entry, ignored } = withoutLegacyKeys(node.value);
    for (const key of ignored) if (!legacyKeys.has(key)) legacyKeys.set(key, index);
    const { loaded, issues, warnings: doubts } = await buildEntry(entry, providers, places);
    const wrong = issues.map(here);
    problems.push(...wrong);
    warnings.push(...doubts.map(here));
    if (loaded !== undefined)
      return { account: loaded.account, loaded, wrong, isNamed: true, hidesSenders: false };
    const email = node.members?.get('email')?.value;
    const isNamed = typeof email === 'string' && email.includes('@');
    const name = isNamed ? email : formatPlaceIn({ entry: index, key: '' });
    const hidesSenders = !isNamed || !isSendersReadable(entry);
    return { account: await placeholderAccount(node.value, name), wrong, isNamed, hidesSenders };
  }
  // Side by side: programs and hashes of some entries take their time.
  const built = await Promise.all(await mapInSlices(list, build, slices));

  for (const [key, index] of legacyKeys)
    warnings.push(located(['accounts', index, key], explainIgnored(key)));

  const accounts: LoadedAccount[] = [];
  const unusable: UnusableAccount[] = [];
  const claims = createClaims();
  let hidesSenders = built.some((item) => item.hidesSenders);
  for (const [index, item] of built.entries()) {
    const taken = claims.takeIdentity(item.account, index);
    if (taken !== undefined) {
      problems.push(located(['accounts', index, taken.key], taken.message));
      hidesSenders = true;
      continue;
    }
    if (item.loaded === undefined)
      unusable.push({ account: item.account, problems: item.wrong, isNamed: item.isNamed });
    else accounts.push(item.loaded);
    if (slices.isOver) await slices.rest();
  }
  const byLine = (a: Problem, b: Problem): number => (a.line ?? 0) - (b.line ?? 0);
  return {
    accounts,
    unusable,
    isComplete: accounts.length === list.length,
    hidesSenders,
    problems: problems.sort(byLine),
    warnings: warnings.sort(byLine),
  };
}

/** What is known of an entry, usable or not. */
interface Built {
  readonly account: Account;
  readonly loaded?: LoadedAccount;
  readonly wrong: readonly Problem[];
  readonly isNamed: boolean;
  readonly hidesSenders: boolean;
}

async function parseRoot(text: string, slices?: Slices): Promise<JsonNode> {
  if (text.replace(/^\ufeff/, '').trim() === '')
    throw new AccountsFileError(
      'is empty: write { "accounts": [] } or add one with "xoauth2-relay account add"',
    );
  try {
    return await parseJsonInSlices(text, slices);
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    throw new AccountsFileError(`not JSON: ${error.message}`, { cause: error });
  }
}

/** The node at `path`, or the deepest one above it that exists. */
function nearestNode(root: JsonNode, path: readonly PropertyKey[]): JsonNode {
  for (let length = path.length; length > 0; length--) {
    const node = nodeAt(root, path.slice(0, length));
    if (node !== undefined) return node;
  }
  return root;
}

async function buildEntry(
  value: unknown,
  providers: ReadonlyMap<string, ProviderProfile | undefined>,
  places: SecretPlaces,
): ReturnType<typeof buildAccount> {
  const failed = (issues: readonly Issue[]) => ({ loaded: undefined, issues, warnings: [] });
  const checked = checkAccount(value);
  if (!('entry' in checked)) return failed(checked.issues);
  const { entry, issues } = await resolveCommands(checked.entry, places);
  if (issues.length > 0) return failed(issues);
  const profile = providers.get(entry.provider);
  if (profile !== undefined) return buildAccount(entry, profile, places);
  const message = providers.has(entry.provider)
    ? 'names a provider whose own entry is wrong'
    : `expected one of ${[...providers.keys()].join(', ')}`;
  return failed([{ path: ['provider'], message }]);
}

/** Providers that accounts of this text may name; a wrong one maps to undefined. Rejects with `AccountsFileError`. */
export const parseProviders = async (
  text: string,
): Promise<ReadonlyMap<string, ProviderProfile | undefined>> =>
  readProviders((await parseRoot(text)).members?.get('providers'), () => {});

/** Built-in profiles and the operator's; a wrong one maps to undefined. */
function readProviders(
  node: JsonNode | undefined,
  wrong: (path: readonly PropertyKey[], message: string) => void,
): ReadonlyMap<string, ProviderProfile | undefined> {
  const profiles = new Map<string, ProviderProfile | undefined>(builtInProviders);
  if (node === undefined) return profiles;
  if (node.members === undefined) wrong([], 'expected an object: name → provider');
  for (const [name, { value }] of node.members ?? []) {
    if (builtInProviders.has(name))
      wrong([name], `is built in: choose another name and "extends": "${name}"`);
    else
      profiles.set(
        name,
        buildProvider(name, value, (path, message) => wrong([name, ...path], message)),
      );
  }
  return profiles;
}

function buildProvider(
  name: string,
  value: unknown,
  wrong: (path: readonly PropertyKey[], message: string) => void,
): ProviderProfile | undefined {
  const refuse = (key: string, message: string): undefined => void wrong([key], message);
  const checked = checkProvider(value);
  if (!('entry' in checked)) {
    for (const issue of checked.issues) wrong(issue.path, issue.message);
    return undefined;
  }
  const { entry } = checked;
  const base = entry.extends === undefined ? undefined : builtInProviders.get(entry.extends);
  if (entry.extends !== undefined && base === undefined)
    return refuse('extends', `expected one of ${[...builtInProviders.keys()].join(', ')}`);
  const tokenUrl = entry.token_url ?? base?.tokenUrl;
  if (tokenUrl === undefined) return refuse('token_url', 'is missing');
  const smtp = entry.smtp === undefined ? base?.smtp : parseSmtpUrl(entry.smtp);
  if (smtp === undefined) return refuse('smtp', 'is missing');
  return {
    ...base,
    name,
    title: entry.title ?? base?.title ?? name,
    smtp,
    tokenUrl,
    authorizeUrl: entry.authorize_url ?? base?.authorizeUrl,
    deviceUrl: entry.device_url ?? base?.deviceUrl,
    graphUrl: entry.graph_url ?? base?.graphUrl,
    tenant: entry.tenant ?? base?.tenant,
    scopes: scopesOf(entry.grants, entry.scope, base),
    imapScopes: entry.imap_scope === undefined ? base?.imapScopes : everyGrant(entry.imap_scope),
    signInScope: entry.scope ?? base?.signInScope ?? '',
    safetyBufferMs: entry.token_safety_buffer_ms ?? base?.safetyBufferMs ?? 300_000,
    chunking: entry.chunking ?? base?.chunking ?? true,
    smtpProxy: entry.smtp_proxy ?? base?.smtpProxy,
    heloName: entry.helo_name ?? base?.heloName,
    limits: limitsOf(entry, base?.limits ?? DEFAULT_LIMITS),
  };
}

function scopesOf(
  grants: readonly GrantType[] | undefined,
  scope: string | undefined,
  base: ProviderProfile | undefined,
): Partial<Record<GrantType, string>> {
  const offered = grants ?? (base === undefined ? GRANTS : (Object.keys(base.scopes) as GrantType[]));
  return Object.fromEntries(offered.map((grant) => [grant, scope ?? base?.scopes[grant] ?? '']));
}

const everyGrant = (scope: string): Partial<Record<GrantType, string>> =>
  Object.fromEntries(GRANTS.map((grant) => [grant, scope]));

/** Who claimed which identity first. Senders may overlap: such accounts share the mail. */
function createClaims() {
  const identities = new Map<string, number>();
  return {
    takeIdentity(account: Account, index: number): { key: string; message: string } | undefined {
      const names = [
        { key: 'account_id', name: foldAddress(account.id) },
        { key: 'email', name: foldAddress(account.email) },
      ];
      for (const { key, name } of names) {
        const first = identities.get(name);
        if (first !== undefined && first !== index)
          return { key, message: `is already taken by accounts[${first}]: each account needs its own` };
      }
      for (const { name } of names) identities.set(name, index);
      return undefined;
    },
  };
}
