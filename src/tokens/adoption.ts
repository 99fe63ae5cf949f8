/**
 * What is brought beside the accounts file: the grant of a new sign-in, an access token, what another relay has got.
 * In: such a thing. Out: the account serves with it, and the store has it. Owns nothing.
 */
import type { Secret, TokenResource } from '../accounts/credential.ts';
import type { Log } from '../log.ts';
import { type AccessToken, TokenError } from './access-token.ts';
import { storedToken } from './grant-asker.ts';
import type { GrantKeeper } from './grant-keeper.ts';
import { isSameMailbox } from './same-consent.ts';
import type { ServedAccount } from './served-account.ts';
import type { Refresher } from './token-refresher.ts';
import type { Slot } from './token-slot.ts';

/** What came of a sign-in. */
export interface AdoptedGrant {
  readonly refreshToken: Secret;
  readonly accessToken: AccessToken;
  readonly resource: TokenResource;
  /** The mailbox it was made for; undefined: that of the account. */
  readonly user?: string;
  /** Asked once more when nobody else has the grant under way. */
  readonly isWanted?: () => boolean;
}

export interface Adoption {
  /**
   * A person has signed in anew: this grant serves from now on, in the store too, until the operator gives another
   * one in the accounts file. Rejects with `TokenError`: no such account, not a grant of a person, still busy.
   */
  adopt(accountId: string, grant: AdoptedGrant): Promise<void>;
  /** An access token that somebody brought, used while it lives. Rejects with `TokenError`: no such account, an older one. */
  bring(accountId: string, token: AccessToken): Promise<void>;
  /** Another relay's operator had it refreshed: takes what that one has saved, and asks again where it was refused before. Never rejects. */
  refreshedElsewhere(accountId: string): Promise<void>;
}

export function createAdoption(deps: {
  readonly accounts: { get(accountId: string): ServedAccount | undefined };
  readonly refresher: Pick<Refresher, 'adopt' | 'lookAgain'>;
  readonly keeper: Pick<GrantKeeper, 'saveToken'>;
  readonly log: Log;
  readonly isServing: () => boolean;
  readonly plan: (slot: Slot) => void;
  readonly announce: (accountId: string) => void;
  /** Asks again for a slot that failed. Never rejects. */
  readonly fetch: (slot: Slot, origin: 'operator' | 'on-demand') => Promise<void>;
}): Adoption {
  const { accounts, refresher, keeper, log } = deps;
  const slotOf = (accountId: string, resource: TokenResource): Slot => {
    const slot = accounts.get(accountId)?.slot(resource);
    if (slot === undefined || !deps.isServing())
      throw new TokenError('unknown_account', `no account ${accountId}`);
    return slot;
  };
  return {
    async adopt(accountId, { refreshToken, accessToken, resource, user, isWanted = () => true }) {
      const slot = slotOf(accountId, resource);
      if (user !== undefined && !isSameMailbox(user, slot.account.user))
        throw new TokenError(
          'bad_request',
          `${accountId} is the mailbox ${slot.account.user} now, and this sign-in is for ${user}: sign in again`,
        );
      if (slot.credential.grant !== 'refresh_token')
        throw new TokenError(
          'bad_request',
          `${accountId} is an application's own account: nobody signs in to it`,
        );
      const judge = (): void => {
        if (!isWanted()) throw new TokenError('bad_request', `${accountId} has another invitation meanwhile`);
      };
      if (!(await refresher.adopt(slot, refreshToken, accessToken, judge)))
        throw new TokenError(
          'provider_fault',
          'the token endpoint still owes an answer: try again in a minute',
        );
      for (const each of accounts.get(accountId)?.slots() ?? []) {
        deps.plan(each);
        if (each !== slot && each.trouble !== undefined) void deps.fetch(each, 'operator');
      }
      log.info({ event: 'signed_in', account: accountId }, 'a person signed in: new grant taken');
      deps.announce(accountId);
    },
    async bring(accountId, token) {
      const slot = slotOf(accountId, 'smtp');
      if (!slot.bring(token, 'operator'))
        throw new TokenError(
          'bad_request',
          'this token has ended, was refused, or ends before the one in use',
        );
      await keeper.saveToken(slot.grant, 'smtp', storedToken(slot, token));
      deps.plan(slot);
      deps.announce(accountId);
    },
    async refreshedElsewhere(accountId) {
      for (const slot of accounts.get(accountId)?.slots() ?? []) {
        const wasRefused = slot.trouble !== undefined;
        await refresher.lookAgain(slot, true);
        if (slot.isRetired || slot.flight !== undefined || !deps.isServing()) continue;
        if (wasRefused && slot.trouble !== undefined) await deps.fetch(slot, 'on-demand');
        else deps.plan(slot);
        deps.announce(accountId);
      }
    },
  };
}
