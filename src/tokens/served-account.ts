/** One account as the token service serves it: its credential, its grant, and a slot for every resource asked for. */
import type { Account, AccountStatus } from '../accounts/account.ts';
import type { Credential, TokenResource } from '../accounts/credential.ts';
import type { Clock } from '../clock.ts';
import type { Grant } from './grant.ts';
import { credentialFingerprint, grantFingerprint, tokenFingerprint } from './grant-form.ts';
import type { GrantKeeper } from './grant-keeper.ts';
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

interface ServedAccountDeps {
  readonly keeper: GrantKeeper;
  readonly clock: Clock;
  readonly onSlot: (slot: Slot) => void;
}

export const createServedAccount = (entry: AccountCredential, deps: ServedAccountDeps): ServedAccount =>
  new Served(entry, deps);

const SMTP: readonly TokenResource[] = ['smtp'];

/** A class, because there is one for every account. */
class Served implements ServedAccount {
  account: Account;
  readonly credential: Credential;
  readonly grant: Grant;
  readonly ahead: readonly Slot[];
  told: AccountStatus | undefined;
  readonly #deps: ServedAccountDeps;
  #slots: readonly Slot[] = [];

  constructor({ account, credential }: AccountCredential, deps: ServedAccountDeps) {
    this.account = account;
    this.credential = credential;
    this.#deps = deps;
    const isConsent = credential.grant === 'refresh_token';
    const user = isConsent ? account.user : undefined;
    this.grant = deps.keeper.of(account.id, grantFingerprint(credential), isConsent, user);
    this.ahead = (credential.ahead ?? SMTP).flatMap((resource) => this.slot(resource) ?? []);
  }

  get fingerprint(): string {
    return credentialFingerprint(this.credential);
  }

  slot(resource: TokenResource): Slot | undefined {
    const known = this.#slots.find((slot) => slot.resource === resource);
    if (known !== undefined) return known;
    const { credential, account, grant } = this;
    const { clock, onSlot } = this.#deps;
    const scope = resource === 'smtp' ? credential.scope : credential.scopes?.[resource];
    if (scope === undefined) return undefined;
    // Where one token is good for both, there is one.
    if (resource !== 'smtp' && scope === credential.scope) return this.slot('smtp');
    const fingerprint = tokenFingerprint(credential, scope);
    const made = createSlot({
      account,
      credential,
      resource,
      scope,
      grant,
      tokenFingerprint: fingerprint,
      clock,
    });
    this.#slots = [...this.#slots, made];
    const brought = resource === 'smtp' ? initialToken(credential, clock.now()) : undefined;
    if (brought !== undefined) made.bring(brought, 'accounts-file');
    onSlot(made);
    return made;
  }

  slots(): readonly Slot[] {
    return this.#slots;
  }

  secrets(): readonly string[] {
    const { credential, grant } = this;
    return [
      'clientSecret' in credential ? credential.clientSecret : undefined,
      'refreshToken' in credential ? credential.refreshToken : undefined,
      grant.refreshToken,
      grant.spare?.refreshToken,
      ...this.#slots.map((each) => each.token),
    ].flatMap((secret) => secret?.reveal() ?? []);
  }

  setAccount(account: Account): void {
    this.account = account;
    for (const each of this.#slots) each.account = account;
  }
}
