/**
 * Accounts that come, go and are signed in to again while the relay runs. In: settings, tokens, the accounts served.
 * Out: what the admin room offers of it. Owns the sign-ins under way and the invitations.
 */

import { removeAccount } from './accounts/accounts-edit.ts';
import type { LoadedAccount } from './accounts/build-account.ts';
import { proxyOfSetting } from './accounts/smtp-proxy.ts';
import type { AdminBackend, SignInAnswer } from './admin/backend.ts';
import type { SignInRow } from './admin/shapes.ts';
import type { Settings } from './config.ts';
import { editAccounts, findAccount } from './enrol/accounts-on-disk.ts';
import { createInvites, type ToldInvite } from './enrol/invites.ts';
import { OperatorError } from './enrol/operator-error.ts';
import { createSignIns, IDLE, type SignInProgress } from './enrol/sign-ins.ts';
import type { KeptPart } from './kept-state.ts';
import type { Log } from './log.ts';
import { foldAscii } from './protocol/text.ts';
import { AccessToken, TokenError } from './tokens/access-token.ts';
import { isSameMailbox } from './tokens/same-consent.ts';
import type { TokenService } from './tokens/token-service.ts';

export interface AppSignInsDeps {
  readonly settings: Settings;
  readonly log: Log;
  readonly tokens: Pick<TokenService, 'adopt' | 'bring' | 'unsaved'>;
  readonly accounts: {
    /** Undefined: not known, or its entry cannot be used. */
    loadedOf(id: string): LoadedAccount | undefined;
    /** It is in the accounts file, whether it can be used or not. */
    isKnown(id: string): boolean;
  };
  /** False: the accounts file was not taken. */
  readonly reload: () => Promise<boolean>;
  /** The account is worth a new try. */
  readonly cured: (id: string) => void;
  /** The invitation to an account was made, spent or ended (undefined). */
  readonly onInvite: (id: string, invite: ToldInvite | undefined) => void;
  /** What is kept outlives a crash once it resolves. */
  readonly save: () => Promise<void>;
}

export interface AppSignIns extends Pick<AdminBackend, 'signIns' | 'giveToken' | 'removeAccount'> {
  /** The account is gone, and with it who was invited to it and what was begun. */
  forget(id: string): void;
  /** Invitations are good for a day, restarts or not. */
  readonly kept: KeptPart;
  /** Another relay invited, or an invitation is spent or has ended (undefined). Throws where it is none. */
  inviteHeard(id: string, invite: unknown): void;
  close(): Promise<void>;
}

export function createAppSignIns(deps: AppSignInsDeps): AppSignIns {
  const { settings, tokens, accounts } = deps;
  const invites = createInvites({ isKnown: accounts.isKnown, onChange: deps.onInvite });
  const signIns = createSignIns({
    ...deps,
    served: accounts.loadedOf,
    accountsPath: settings.accounts,
    publicUrl: settings.adminUrl,
    heloName: settings.heloName,
    proxy: proxyOfSetting(settings.smtpProxy),
    isKept:
      settings.store === undefined ? settings.stateDir !== undefined : settings.store.reveal() !== 'memory',
    adopt: tokens.adopt,
    unsaved: tokens.unsaved,
    spend: invites.spend,
    async cured(id) {
      deps.cured(id);
      await deps.save();
    },
  });

  const userOf = (id: string): string | undefined => accounts.loadedOf(id)?.account.user;

  const rowOf = (account: string, progress: SignInProgress, isShown: boolean): SignInRow => ({
    account,
    ...progress,
    ...(isShown ? {} : { url: null, code: null }),
    until: progress.until === null ? null : new Date(progress.until).toISOString(),
  });

  async function tell(id: string, ask: Promise<SignInProgress>, isShown = true): Promise<SignInAnswer> {
    try {
      return { ok: true, row: rowOf(id, await ask, isShown) };
    } catch (error) {
      if (error instanceof OperatorError) return { ok: false, error: error.message };
      throw error;
    }
  }

  const orWords = async (work: Promise<unknown>): Promise<{ ok: boolean; error?: string }> => {
    try {
      await work;
      return { ok: true };
    } catch (error) {
      if (error instanceof OperatorError || error instanceof TokenError)
        return { ok: false, error: error.message };
      throw error;
    }
  };

  async function remove(id: string): Promise<void> {
    await editAccounts(settings.accounts, (text) => {
      const index = findAccount(text, id);
      if (index < 0) throw new OperatorError(`${id} is not in the accounts file`);
      return removeAccount(text, index);
    });
    if (!(await deps.reload()))
      throw new OperatorError('removed from the accounts file, which was not taken: see the log');
  }

  return {
    signIns: {
      look: (id) => tell(id, signIns.look(id), false),
      begin: (id, way, origin, isInvited) => tell(id, signIns.begin(id, way, origin, isInvited)),
      add: (account, way, origin) => tell(foldAscii(account.email), signIns.beginNew(account, way, origin)),
      paste: (id, url) => tell(id, signIns.paste(id, url)),
      cancel(id) {
        signIns.cancel(id);
        return rowOf(id, IDLE, true);
      },
      returned: signIns.returned,
      async invite(id) {
        // Begun by whoever held the earlier link, perhaps.
        signIns.cancel(id);
        const { key, until } = invites.make(id, userOf(id) ?? id);
        await deps.save();
        return { key, until: new Date(until).toISOString() };
      },
      invited(key) {
        const invite = invites.find(key);
        if (invite === undefined) return undefined;
        const { accountId: account, user, state } = invite;
        return isSameMailbox(userOf(account) ?? user, user) ? { account, state } : undefined;
      },
    },
    giveToken: (id, { accessToken, expiresInS }) =>
      orWords(tokens.bring(id, new AccessToken(accessToken, Date.now() + expiresInS * 1000, Date.now()))),
    removeAccount: (id) => orWords(remove(id)),
    forget(id) {
      invites.forget(id);
      signIns.cancel(id);
    },
    kept: invites,
    inviteHeard: invites.take,
    close: async () => signIns.close(),
  };
}
