/**
 * Sign-ins under way in the running relay. In: an account, a way, what the person's browser brings back. Out: what
 * to show the person, and in the end a grant that was proved and kept. Owns the sign-ins; each ends by itself.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { SmtpProxy } from '../accounts/account.ts';
import { accountEntries, appendAccount, updateAccount } from '../accounts/accounts-edit.ts';
import type { LoadedAccount } from '../accounts/build-account.ts';
import { Secret } from '../accounts/credential.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { isLoopbackHost } from '../protocol/cidr.ts';
import { cleanText, foldAddress } from '../protocol/text.ts';
import { AccessToken } from '../tokens/access-token.ts';
import type { AdoptedGrant } from '../tokens/adoption.ts';
import { isSameMailbox } from '../tokens/same-consent.ts';
import { editAccounts, findAccount, tryEditing } from './accounts-on-disk.ts';
import { type Draft, draftOf, draftOfNew, type NewAccount, type SignInWay, withGrant } from './draft.ts';
import { OperatorError } from './operator-error.ts';
import { proveAccount } from './prove.ts';
import {
  beginBrowserSignIn,
  loopbackHost,
  parseRedirect,
  type SignedIn,
  signInWithDevice,
} from './sign-in.ts';

export type SignInState =
  /** Nothing under way. */
  | 'idle'
  /** The provider is asked for a code. */
  | 'starting'
  /** For the person. */
  | 'waiting'
  /** The new grant logs in on trial. */
  | 'proving'
  | 'done'
  | 'failed';

export interface SignInProgress {
  readonly state: SignInState;
  readonly way: SignInWay | null;
  readonly offered: readonly SignInWay[];
  /** To be opened by the person; while waiting only. */
  readonly url: string | null;
  /** To be typed there. */
  readonly code: string | null;
  /** When the wait ends, ms since the epoch. */
  readonly until: number | null;
  /** Whether the page after the sign-in comes back by itself; else its address has to be pasted. */
  readonly returns: boolean;
  readonly steps: readonly { readonly stage: string; readonly ok: boolean; readonly detail: string }[];
  /** What went wrong, or what should be known of what went well; in words. */
  readonly note: string | null;
}

export interface SignInsDeps {
  readonly accountsPath: string;
  /** The address under which browsers reach the relay, where the operator gave one. */
  readonly publicUrl: string | undefined;
  readonly heloName: string | undefined;
  /** For SMTP, of the relay. */
  readonly proxy?: SmtpProxy | undefined;
  /** What the token service keeps survives a restart. */
  readonly isKept: boolean;
  readonly log: Log;
  readonly clock?: Clock;
  /** The account as it is served; undefined where its entry cannot be used. */
  readonly served: (id: string) => LoadedAccount | undefined;
  readonly adopt: (id: string, grant: AdoptedGrant) => Promise<void>;
  /** Accounts whose newest refresh token only this process knows. */
  readonly unsaved: () => readonly string[];
  /** Reads the accounts file again; false where it was not taken. */
  readonly reload: () => Promise<boolean>;
  /** The link to it has served. */
  readonly spend: (id: string) => void;
  /** The account is well again. */
  readonly cured: (id: string) => Promise<void>;
}

export interface SignIns {
  /** What can be done for an account, and what is being done. Rejects with `OperatorError`. */
  look(id: string): Promise<SignInProgress>;
  /**
   * `origin`: of the page that asks, `http://127.0.0.1:9090`. `isInvited`: whoever begins it may go on; asked until the
   * grant is kept. Resolves when there is something to show.
   */
  begin(id: string, way: SignInWay, origin: string, isInvited?: () => boolean): Promise<SignInProgress>;
  /** As `begin`, for an account that is to be added. */
  beginNew(account: NewAccount, way: SignInWay, origin: string): Promise<SignInProgress>;
  /** The address the browser ended on, as pasted. Rejects with `OperatorError`. */
  paste(id: string, text: string): Promise<SignInProgress>;
  cancel(id: string): void;
  /** A browser came back; false: from no sign-in of ours. */
  returned(query: URLSearchParams): boolean;
  close(): void;
}

/** A person may have to find a phone. */
const PATIENCE_MS = 600_000;
/** How long an ended sign-in can still be looked at. */
const REMEMBERED_MS = 600_000;
const MAX_SIGN_INS = 100;
/** A loopback redirect that nobody listens to where the relay is elsewhere: its address is pasted. */
const NOBODYS_PORT = 49_151;

interface SignIn {
  readonly accountId: string;
  readonly draft: Draft;
  /** Aborted: nothing more comes of it, whatever still answers. */
  readonly end: AbortController;
  /** Nobody has cancelled it, nor ended the link by which it was begun. */
  readonly isWanted: () => boolean;
  /** How the browser comes back to it, once the page is known. */
  expected: Expected | undefined;
  progress: SignInProgress;
  cancelTimer: () => void;
}

interface Expected {
  readonly redirectUri: string;
  /** Digest of the state that the redirect brings. */
  readonly secret: Buffer;
  readonly take: (url: URL) => void;
}

const LINK_OVER = 'this link is not good any more: ask for another';

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** For the person. */
const NO_PROMPT = { url: null, code: null, until: null };
/** Nothing is under way. */
export const IDLE: SignInProgress = {
  state: 'idle',
  way: null,
  offered: [],
  ...NO_PROMPT,
  returns: true,
  steps: [],
  note: null,
};

const isOver = ({ state }: SignInProgress): boolean => state === 'done' || state === 'failed';

export function createSignIns(deps: SignInsDeps): SignIns {
  const { log, clock = systemClock, accountsPath } = deps;
  const signIns = new Map<string, SignIn>();
  /** By account: one that is cancelled ends with what else it began, though that is being kept and nobody sees it any more. */
  const spans = new Map<string, symbol>();

  const idle = ({ offered }: Draft): SignInProgress => ({ ...IDLE, offered });

  function forget(signIn: SignIn): void {
    signIn.cancelTimer();
    signIn.end.abort();
    if (signIns.get(signIn.accountId) === signIn) signIns.delete(signIn.accountId);
  }

  function move(signIn: SignIn, change: Partial<SignInProgress>): void {
    signIn.progress = { ...signIn.progress, ...change };
    if (!isOver(signIn.progress)) return;
    signIn.cancelTimer();
    signIn.cancelTimer = clock.after(REMEMBERED_MS, () => forget(signIn));
  }

  function fail(signIn: SignIn, error: unknown): void {
    if (isOver(signIn.progress) || signIn.end.signal.aborted) return;
    const words =
      error instanceof Error && error.name !== 'AbortError'
        ? cleanText(error.message)
        : 'nobody signed in in time';
    log.warn({ event: 'sign_in_failed', account: signIn.accountId }, `sign-in failed: ${words}`);
    move(signIn, { state: 'failed', ...NO_PROMPT, note: words });
  }

  /** Where the browser comes back to, and whether that is here. */
  function redirectFor({ target: { profile } }: Draft, origin: string): { uri: string; returns: boolean } {
    const { hostname, port, protocol } = new URL(origin);
    const isHere = isLoopbackHost(hostname);
    if (isHere && protocol === 'http:')
      return { uri: `http://${loopbackHost(profile)}:${port || '80'}/`, returns: true };
    if (deps.publicUrl !== undefined && new URL(deps.publicUrl).origin === origin)
      return { uri: `${origin}/`, returns: true };
    return { uri: `http://${loopbackHost(profile)}:${NOBODYS_PORT}/`, returns: false };
  }

  async function start(
    id: string,
    draft: Draft,
    way: SignInWay,
    origin: string,
    isInvited = (): boolean => true,
  ): Promise<SignInProgress> {
    if (!isInvited()) throw new OperatorError(LINK_OVER);
    if (!draft.offered.includes(way))
      throw new OperatorError(`${draft.target.profile.title} cannot be signed in to by ${way}`);
    const before = signIns.get(id);
    if (before !== undefined) forget(before);
    if (signIns.size >= MAX_SIGN_INS)
      throw new OperatorError('too many sign-ins are under way: try again later');
    const redirect = way === 'browser' ? redirectFor(draft, origin) : undefined;
    const end = new AbortController();
    const span = spans.get(id) ?? Symbol(id);
    spans.set(id, span);
    const signIn: SignIn = {
      accountId: id,
      draft,
      end,
      isWanted: () => spans.get(id) === span && isInvited(),
      expected: undefined,
      progress: { ...idle(draft), state: 'starting', way, returns: redirect?.returns ?? true },
      cancelTimer: () => {},
    };
    // Before anything is waited for: of two that begin at once the later one is known to the earlier.
    signIns.set(id, signIn);
    signIn.cancelTimer = clock.after(PATIENCE_MS, () => {
      fail(signIn, new OperatorError('nobody signed in in time: start again'));
      end.abort();
    });
    log.info({ event: 'sign_in_begun', account: id, way }, 'a person is asked to sign in');
    const prompted = new Promise<void>((resolve) => {
      const wait = (prompt: Partial<SignInProgress>): void => {
        move(signIn, { state: 'waiting', until: clock.now() + PATIENCE_MS, ...prompt });
        resolve();
      };
      const granted =
        redirect === undefined
          ? signInWithDevice(
              draft.target,
              ({ url, code, minutes }) =>
                wait({ url, code, until: clock.now() + Math.min(PATIENCE_MS, minutes * 60_000) }),
              end.signal,
            )
          : signInByRedirect(signIn, redirect.uri, (url) => wait({ url }));
      granted
        .then((signedIn) => take(signIn, signedIn))
        .catch((error: unknown) => fail(signIn, error))
        .finally(resolve);
    });
    await prompted;
    if (end.signal.aborted) throw new OperatorError('another sign-in began meanwhile, or this one was ended');
    return signIn.progress;
  }

  async function signInByRedirect(
    signIn: SignIn,
    redirectUri: string,
    show: (url: string) => void,
  ): Promise<SignedIn> {
    const page = await beginBrowserSignIn(signIn.draft.target, redirectUri);
    const arrived = new Promise<URL>((take) => {
      signIn.expected = { redirectUri, secret: digest(page.state), take };
    });
    show(page.url);
    return page.finish(await arrived);
  }

  /** Proves the grant and keeps it. */
  async function take(signIn: SignIn, signedIn: SignedIn): Promise<void> {
    const { draft, accountId, end } = signIn;
    if (end.signal.aborted) return;
    move(signIn, { state: 'proving', ...NO_PROMPT });
    const { account } = draft.loaded;
    const isGraph = account.transport === 'graph';
    const trial = withGrant(draft, signedIn.refreshToken, isGraph ? undefined : signedIn);
    const proof = await proveAccount(trial, {
      heloName: deps.heloName,
      proxy: deps.proxy,
      signedIn,
      onStep: ({ stage, ok, detail }) =>
        move(signIn, { steps: [...signIn.progress.steps, { stage, ok, detail: cleanText(detail) }] }),
    });
    const wrong = proof.steps.find((step) => !step.ok);
    if (wrong !== undefined) {
      const { what, cure } = wrong.explanation ?? { what: wrong.detail, cure: '' };
      throw new OperatorError(`${what}: ${wrong.detail}${cure === '' ? '' : `. ${cure}`}`);
    }
    if (end.signal.aborted) return;
    if (!signIn.isWanted()) throw new OperatorError(LINK_OVER);
    const now = deps.served(accountId)?.credential;
    if (now?.grant === 'refresh_token' && now.clientId !== draft.target.clientId)
      throw new OperatorError(`${accountId} has another client_id meanwhile: sign in again`);
    const refreshToken = proof.rotated === undefined ? signedIn.refreshToken : new Secret(proof.rotated);
    const note = await keep(signIn, {
      refreshToken,
      accessToken: new AccessToken(signedIn.accessToken.reveal(), signedIn.expiresAt, clock.now()),
      resource: isGraph ? 'graph' : 'smtp',
      user: account.user,
      isWanted: signIn.isWanted,
    });
    log.info({ event: 'sign_in_done', account: accountId }, 'signed in: the new grant was proved and kept');
    // A link that was made while this one was kept is for another sign-in.
    if (!signIn.isWanted()) {
      forget(signIn);
      return deps.cured(accountId);
    }
    // Begun while this one was kept, perhaps by an invitation that is spent now.
    const other = signIns.get(accountId);
    if (other !== undefined && other !== signIn) forget(other);
    signIns.set(accountId, signIn);
    // Nobody hears that it is done before a link is spent for good.
    deps.spend(accountId);
    await deps.cured(accountId);
    move(signIn, { state: 'done', note: note ?? null });
  }

  /** Where it outlives the process: the token store, else the accounts file. Words where it does not. */
  async function keep(
    { accountId, draft, isWanted }: SignIn,
    grant: AdoptedGrant,
  ): Promise<string | undefined> {
    const refresh_token = grant.refreshToken.reveal();
    if (draft.entry !== undefined) {
      const entry = { ...draft.entry, refresh_token };
      await editAccounts(accountsPath, (text) => {
        if (!isWanted()) throw new OperatorError(LINK_OVER);
        if (findAccount(text, accountId) >= 0)
          throw new OperatorError(`${accountId} was added by somebody else meanwhile`);
        return appendAccount(text, entry);
      });
      if (!(await deps.reload()))
        throw new OperatorError('the account was added, but the accounts file was not taken: see the log');
      return undefined;
    }
    if (deps.isKept) {
      await deps.adopt(accountId, grant);
      return deps.unsaved().includes(accountId)
        ? 'in memory only as yet: the token store takes nothing just now, and is offered it again'
        : undefined;
    }
    let changed: OperatorError | undefined;
    const refuse = (what: string): never => {
      changed = new OperatorError(`${accountId} ${what} meanwhile`);
      throw changed;
    };
    try {
      await editAccounts(accountsPath, (text) => {
        if (!isWanted()) refuse('has another invitation');
        const index = findAccount(text, accountId);
        const { user, email, client_id } =
          accountEntries(text)[index] ?? refuse('is gone from the accounts file');
        if (typeof client_id === 'string' && client_id !== draft.target.clientId)
          refuse('has another client_id in the accounts file');
        if (!isSameMailbox(String(user ?? email), draft.loaded.account.user))
          refuse('is another mailbox in the accounts file');
        return updateAccount(text, index, { refresh_token });
      });
      if (await deps.reload()) return undefined;
    } catch (error) {
      if (!(error instanceof OperatorError) || error === changed) throw error;
      log.warn({ event: 'grant_not_kept', account: accountId }, error.message);
    }
    await deps.adopt(accountId, grant);
    return 'kept until the relay stops: the accounts file cannot be written; with --state-dir it survives';
  }

  const drafted = (id: string): Promise<Draft> => draftOf(accountsPath, id, deps.served(id));
  const under = (id: string): SignIn | undefined => signIns.get(foldAddress(id)) ?? signIns.get(id);

  return {
    look: async (id) => under(id)?.progress ?? idle(await drafted(id)),
    begin: async (id, way, origin, isInvited) => start(id, await drafted(id), way, origin, isInvited),
    async beginNew(account, way, origin) {
      const draft = await draftOfNew(accountsPath, account);
      // Nobody is asked for what there is no place for.
      await tryEditing(accountsPath);
      return start(draft.loaded.account.id, draft, way, origin);
    },
    async paste(id, text) {
      const signIn = under(id);
      if (signIn?.progress.state !== 'waiting' || signIn.expected === undefined)
        throw new OperatorError('no sign-in waits for an address: begin again');
      signIn.expected.take(parseRedirect(text, signIn.expected.redirectUri));
      return signIn.progress;
    },
    cancel(id) {
      const signIn = under(id);
      spans.delete(signIn?.accountId ?? id);
      if (signIn !== undefined) forget(signIn);
    },
    returned(query) {
      const secret = digest(query.get('state') ?? '');
      const [signIn] = [...signIns.values()].filter(
        ({ expected }) => expected !== undefined && timingSafeEqual(expected.secret, secret),
      );
      if (signIn?.progress.state !== 'waiting' || signIn.expected === undefined) return false;
      const url = new URL(signIn.expected.redirectUri);
      url.search = query.toString();
      signIn.expected.take(url);
      return true;
    },
    close() {
      for (const signIn of [...signIns.values()]) forget(signIn);
    },
  };
}
