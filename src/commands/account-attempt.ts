/**
 * One attempt of `account add` at a working account. In: what was asked for. Out: the entry as the sign-in made it, proved
 * by a login; a refresh token that came meanwhile is on the disk by then. Rejects with `OperatorError`.
 */
import { dirname } from 'node:path';
import type { EntryObject } from '../accounts/accounts-edit.ts';
import type { LoadedAccount } from '../accounts/build-account.ts';
import { supersededKeys } from '../accounts/build-credential.ts';
import type { ProviderProfile } from '../accounts/providers.ts';
import { proxyOfSetting } from '../accounts/smtp-proxy.ts';
import type { Settings } from '../config.ts';
import { findAccount, parseAt, whyUnusable } from '../enrol/accounts-on-disk.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import type { ProbeStep } from '../enrol/probe.ts';
import { proveAccount } from '../enrol/prove.ts';
import { foldAddress } from '../protocol/text.ts';
import { GrantsUnsavedError } from '../tokens/grants-unsaved.ts';
import type { AccountPlace } from './account-place.ts';
import { signIn } from './account-sign-in.ts';
import { awaitAnswers } from './await-answers.ts';
import { type CommandContext, EXIT_CONFIGURATION } from './definition.ts';
import type { Terminal } from './terminal.ts';

export interface AccountPlan {
  readonly context: CommandContext;
  readonly settings: Settings;
  readonly email: string;
  /** The accounts file as it was at first. */
  readonly text: string;
  readonly place: AccountPlace;
  readonly profile: ProviderProfile;
  /** Of the entry, beside what the sign-in brings. */
  readonly keys: EntryObject;
  /** The client secret that the entry there has, wherever it stands. */
  readonly knownSecret: string | undefined;
  option(name: string): string | undefined;
  /** What was answered in an attempt before. */
  readonly earlier: { clientId?: string };
}

export interface Attempt {
  readonly ok: boolean;
  /** The provider gave another refresh token for the one that was given, which may be no good any more. */
  readonly isReplaced: boolean;
  /** Nobody else has its refresh token. */
  readonly isOnlyHere: boolean;
  /** For the accounts file. */
  readonly entry: EntryObject;
  /** Where a refresh token is that came while the account was proved. */
  readonly held?: string;
}

export async function tryAccount(plan: AccountPlan): Promise<Attempt> {
  const { context, settings, email, profile, option, earlier } = plan;
  const directory = dirname(settings.accounts);
  const { entry: grant, access } = await signIn(context, { email, profile, option, directory, earlier });
  const entry = entryOf(plan, grant);
  // The token of the sign-in serves for the check, so that a refresh token is not spent on it.
  const brought =
    access === undefined || option('transport') === 'graph'
      ? {}
      : { access_token: access.accessToken.reveal(), expires_at: access.expiresAt };
  const loaded = await load(plan, { ...entry, ...brought });
  const isOnlyHere = access !== undefined;
  if (context.options.verify === false) return { ok: true, isReplaced: false, isOnlyHere, entry };

  const { note } = context.terminal;
  const keeper = createKeeper(plan, entry);
  // A person who signed in can do so again; whose token was given has no other one.
  const isGiven = 'refresh_token' in grant && !isOnlyHere;
  const { ok, rotated } = await proveAccount(loaded, {
    proxy: proxyOfSetting(settings.smtpProxy),
    signedIn: access,
    onStep: (step) => noteStep(context.terminal, step),
    use: awaitAnswers(note, (loss) => keeper.trouble?.message ?? loss.message),
    ...(isGiven && { keep: keeper.keep }),
  }).catch(async (error: unknown) => {
    const { newest } = keeper;
    if (!(error instanceof GrantsUnsavedError) || newest === undefined) throw error;
    // Once more, and with word of where it is.
    await keeper.keep(newest);
    return { ok: false, rotated: newest };
  });
  if (rotated === undefined || !('refresh_token' in grant))
    return { ok, isReplaced: false, isOnlyHere, entry };
  const { held } = keeper;
  return {
    ok,
    isReplaced: isGiven,
    isOnlyHere: true,
    entry: { ...entry, refresh_token: rotated },
    ...(held !== undefined && { held }),
  };
}

/** What the entry becomes: undefined takes a key out. */
function entryOf({ place: { before }, keys, knownSecret }: AccountPlan, signedIn: EntryObject): EntryObject {
  // Where it stands elsewhere it stays there.
  const isKnown = signedIn.client_secret !== undefined && signedIn.client_secret === knownSecret;
  const grant = isKnown ? { ...signedIn, client_secret: before.client_secret } : signedIn;
  const superseded = supersededKeys(before, grant).map((key) => [key, undefined]);
  return { ...Object.fromEntries(superseded), ...keys, ...grant };
}

async function load(
  { context, settings, text, place, email }: AccountPlan,
  entry: EntryObject,
): Promise<LoadedAccount> {
  const next = place.change(text, entry);
  const parsed = await parseAt(next, settings.accounts, context.env);
  const loaded = parsed.accounts.find(({ account }) => foldAddress(account.email) === foldAddress(email));
  if (loaded !== undefined) return loaded;
  throw new OperatorError(whyUnusable(parsed, findAccount(next, email)).join('\n'), EXIT_CONFIGURATION);
}

/** Brings a refresh token to the disk that the provider gives while the account is proved. */
function createKeeper({ context, place }: AccountPlan, entry: EntryObject) {
  let newest: string | undefined;
  let held: string | undefined;
  let trouble: OperatorError | undefined;
  return {
    get newest() {
      return newest;
    },
    get held() {
      return held;
    },
    get trouble() {
      return trouble;
    },
    async keep(refreshToken: string): Promise<void> {
      newest = refreshToken;
      held = await place.hold(entry, refreshToken).catch((error: OperatorError) => {
        trouble = error;
        throw error;
      });
      context.terminal.note(`the provider has replaced the refresh token: the new one is kept in ${held}`);
    },
  };
}

function noteStep({ note, paint }: Terminal, { ok, stage, detail, explanation }: ProbeStep): void {
  note(`${ok ? paint.green('ok    ') : paint.red('failed')} ${stage} ${detail}`);
  if (explanation === undefined) return;
  note(`       ${explanation.what}`);
  note(`       cure: ${explanation.cure}`);
}
