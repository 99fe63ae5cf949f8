/** One account as the token service serves it: its credential, its grant, and a slot for every resource asked for. */
import type { Account, AccountStatus } from '../accounts/account.ts';
import type { Credential, TokenResource } from '../accounts/credential.ts';
import type { Clock } from '../clock.ts';
import { credentialFingerprint, grantFingerprint, tokenFingerprint } from './grant-form.ts';
import type { Grant, GrantKeeper } from './grant-keeper.ts';
import { createSlot, initialToken, type Slot } from './token-slot.ts';

export interface ServedAccount {
  readonly account: Account;
  readonly credential: Credential;
  /** Of the credential. */
  readonly fingerprint: string;
  readonly grant: Grant;
  /** Fetched ahead of need. */
  readonly ahead: readonly Slot[];
  /** Made when it is first asked for; undefined where the account has no scope for it. */
  slot(resource: TokenResource): Slot | undefined;
  /** The status that was announced last. */
  told: AccountStatus | undefined;
  /** Those there are. */
  slots(): readonly Slot[];
  /** What is sent to servers: grant, client secret, access tokens. A private key never is. */
  secrets(): readonly string[];
  /** The same account with other public facts. */
  setAccount(account: Account): void;
}

export interface AccountCredential {
  readonly account: Account;
  readonly credential: Credential;
}

export function createServedAccount(
  { account: first, credential }: AccountCredential,
  deps: { readonly keeper: GrantKeeper; readonly clock: Clock; readonly onSlot: (slot: Slot) => void },
): ServedAccount {
  const grant = deps.keeper.of(first.id, grantFingerprint(credential));
  const slots = new Map<TokenResource, Slot>();
  let account = first;

  function scopeOf(resource: TokenResource): string | undefined {
    return resource === 'smtp' ? credential.scope : credential.scopes?.[resource];
  }

  function slot(resource: TokenResource): Slot | undefined {
    const known = slots.get(resource);
    if (known !== undefined) return known;
    const scope = scopeOf(resource);
    if (scope === undefined) return undefined;
    // Where one token is good for both, there is one.
    if (resource !== 'smtp' && scope === credential.scope) return slot('smtp');
    const fingerprint = tokenFingerprint(credential, scope);
    const made = createSlot({
      account,
      credential,
      resource,
      scope,
      grant,
      tokenFingerprint: fingerprint,
      clock: deps.clock,
    });
    slots.set(resource, made);
    const brought = resource === 'smtp' ? initialToken(credential, deps.clock.now()) : undefined;
    if (brought !== undefined) made.bring(brought, 'accounts-file');
    deps.onSlot(made);
    return made;
  }

  const ahead = (credential.ahead ?? ['smtp']).flatMap((resource) => slot(resource) ?? []);
  return {
    get account() {
      return account;
    },
    credential,
    get fingerprint() {
      return credentialFingerprint(credential);
    },
    grant,
    told: undefined,
    ahead,
    slot,
    slots: () => [...slots.values()],
    secrets: () =>
      [
        'clientSecret' in credential ? credential.clientSecret : undefined,
        'refreshToken' in credential ? credential.refreshToken : undefined,
        grant.refreshToken,
        grant.spare,
        ...[...slots.values()].map((each) => each.token),
      ].flatMap((secret) => secret?.reveal() ?? []),
    setAccount(next) {
      account = next;
      for (const each of slots.values()) each.account = next;
    },
  };
}
