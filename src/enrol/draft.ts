/**
 * An account that somebody is to sign in to. In: the accounts file, and of a new account what was asked for. Out:
 * whom to ask, and the account as it will be. Reads the accounts file; owns nothing.
 */
import { accountEntries, appendAccount, type EntryObject, textIn } from '../accounts/accounts-edit.ts';
import { parseProviders } from '../accounts/accounts-file.ts';
import type { LoadedAccount } from '../accounts/build-account.ts';
import type { RefreshTokenCredential, Secret } from '../accounts/credential.ts';
import type { ProviderProfile } from '../accounts/providers.ts';
import { foldAddress } from '../protocol/text.ts';
import { findAccount, parseAt, readOrEmpty, whyUnusable } from './accounts-on-disk.ts';
import { consentOf } from './consent.ts';
import { OperatorError } from './operator-error.ts';
import type { SignInTarget } from './sign-in.ts';

export type SignInWay = 'device' | 'browser';

/** Keys of a new entry; all as in the accounts file. */
export interface NewAccount {
  readonly email: string;
  readonly provider: string;
  /** Without one: that of the first account of the provider. */
  readonly client_id?: string | undefined;
  readonly client_secret?: string | undefined;
  readonly tenant?: string | undefined;
}

export interface Draft {
  readonly loaded: LoadedAccount & { readonly credential: RefreshTokenCredential };
  readonly target: SignInTarget;
  readonly offered: readonly SignInWay[];
  /** The entry to append; undefined for an account that is there. */
  readonly entry: EntryObject | undefined;
}

/** Stands in an entry until there is a grant. */
const NO_GRANT_YET = 'none yet';

/** Of an account of the file. Throws `OperatorError`. */
export async function draftOf(path: string, id: string, loaded: LoadedAccount | undefined): Promise<Draft> {
  const text = await readOrEmpty(path);
  const entry = accountEntries(text)[findAccount(text, id)];
  if (entry === undefined || loaded === undefined)
    throw new OperatorError(
      'its entry in the accounts file cannot be used: correct it first (xoauth2-relay check names what is wrong)',
    );
  return complete(text, entry, loaded, undefined);
}

/** Of an account that the file does not have yet. Throws `OperatorError`. */
export async function draftOfNew(path: string, wanted: NewAccount): Promise<Draft> {
  const text = await readOrEmpty(path);
  if (findAccount(text, wanted.email) >= 0)
    throw new OperatorError(`${wanted.email} is there already: sign in to it again instead`);
  const given = Object.fromEntries(
    Object.entries(wanted).filter(([, value]) => value !== undefined && value !== ''),
  );
  const client = given.client_id === undefined ? clientOf(text, wanted.provider) : {};
  const entry = { ...client, ...given };
  const next = appendAccount(text, { ...entry, refresh_token: NO_GRANT_YET });
  const parsed = await parseAt(next, path, process.env);
  const folded = foldAddress(wanted.email);
  const loaded = parsed.accounts.find(({ account }) => foldAddress(account.email) === folded);
  if (loaded === undefined)
    throw new OperatorError(whyUnusable(parsed, accountEntries(next).length - 1).join('; '));
  return complete(text, entry, loaded, entry);
}

/** The OAuth client that other accounts of the provider use. */
function clientOf(text: string, provider: string): EntryObject {
  const other = accountEntries(text).find(
    (entry) => entry.provider === provider && entry.client_id !== undefined && entry.grant === undefined,
  );
  if (other === undefined)
    throw new OperatorError(`client_id is needed: no other account of ${provider} has one`);
  const { client_id, client_secret, tenant } = other;
  return {
    client_id,
    ...(client_secret === undefined ? {} : { client_secret }),
    ...(tenant === undefined ? {} : { tenant }),
  };
}

async function complete(
  text: string,
  entry: EntryObject,
  { account, credential }: LoadedAccount,
  fresh: EntryObject | undefined,
): Promise<Draft> {
  if (credential.grant !== 'refresh_token')
    throw new OperatorError(
      `${account.email} is the application's own account (${credential.grant}): nobody signs in to it`,
    );
  const profile = (await parseProviders(text)).get(account.provider);
  if (profile === undefined) throw new OperatorError(`no provider ${account.provider}`);
  const read = textIn(entry);
  return {
    loaded: { account, credential },
    target: {
      profile,
      tenant: read('tenant'),
      clientId: credential.clientId,
      clientSecret: credential.clientSecret,
      email: account.user,
      tokenUrl: credential.tokenUrl,
      ...consentOf(profile, {
        email: account.email,
        user: account.user,
        transport: account.transport,
        tokenUrl: credential.tokenUrl,
        graphPermissions: read('graph_permissions'),
        // Whose entry names it has programs that read, which a new sign-in must not take it from.
        imap: read('imap_scope') !== undefined,
        imapScope: read('imap_scope'),
      }),
    },
    offered: waysOf(profile),
    entry: fresh,
  };
}

const waysOf = (profile: ProviderProfile): readonly SignInWay[] => [
  ...(profile.deviceUrl === undefined ? [] : (['device'] as const)),
  ...(profile.authorizeUrl === undefined ? [] : (['browser'] as const)),
];

/** The account as it would be with this grant. */
export function withGrant(
  { loaded }: Draft,
  refreshToken: Secret,
  access: { readonly accessToken: Secret; readonly expiresAt: number } | undefined,
): LoadedAccount {
  const { initial: _old, ...credential } = loaded.credential;
  return {
    account: loaded.account,
    credential: { ...credential, refreshToken, ...(access === undefined ? {} : { initial: access }) },
  };
}
