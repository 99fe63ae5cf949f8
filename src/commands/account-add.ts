/**
 * `account add`: from an address to a working account. In: options and answers. Out: a verified entry in the
 * accounts file. Nothing is written before the account has logged in (without sending), unless forced.
 */
import { dirname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import {
  accountEntries,
  appendAccount,
  type EntryObject,
  textIn,
  updateAccount,
} from '../accounts/accounts-edit.ts';
import { parseProviders } from '../accounts/accounts-file.ts';
import { supersededKeys } from '../accounts/build-credential.ts';
import { builtInProviders, type ProviderProfile } from '../accounts/providers.ts';
import { isAddress } from '../accounts/schema.ts';
import { proxyOfSetting } from '../accounts/smtp-proxy.ts';
import { editAccounts, findAccount, parseAt, readOrEmpty } from '../enrol/accounts-on-disk.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import type { ProbeStep } from '../enrol/probe.ts';
import { proveAccount } from '../enrol/prove.ts';
import { foldAddress } from '../protocol/text.ts';
import { SIGN_INS, signIn } from './account-sign-in.ts';
import {
  type CommandContext,
  type CommandDefinition,
  EXIT_CONFIGURATION,
  isSet,
  option,
  textOption,
} from './definition.ts';
import { noteOtherFile } from './other-file.ts';
import { askUntil, oneOf } from './questions.ts';
import { reloadRunning } from './reload-running.ts';
import { adminOptions, commandSettings } from './setting-options.ts';
import type { Terminal } from './terminal.ts';

export const accountAdd: CommandDefinition = {
  name: 'account add',
  summary: 'sign in to a mailbox and add it to the accounts file',
  details: [
    'Ways to sign in: "device" shows a code to type on any device (Microsoft); "browser" opens a page and takes its answer on a loopback port, or the address of the page you end on pasted here (Google, Microsoft); "refresh-token" takes one you have; "service-account" takes the key file of a Google service account; "client-credentials" uses the application itself (Microsoft).',
    'The account is verified up to AUTH and MAIL FROM; nothing is sent. Secrets are asked for without echo, or read from a file or from XOAUTH2_RELAY_CLIENT_SECRET and XOAUTH2_RELAY_REFRESH_TOKEN.',
  ],
  arguments: [{ name: '[address]', help: 'the mailbox' }],
  options: [
    option('--provider <name>', `${[...builtInProviders.keys()].join(', ')}, or one of the accounts file`),
    option('--sign-in <way>', 'how to obtain tokens', { choices: SIGN_INS }),
    option('--client-id <id>', 'id of the OAuth client'),
    option('--client-secret-file <path>', 'file with its secret; leave out for a public client', {
      isPath: true,
    }),
    option('--refresh-token-file <path>', 'file with a refresh token', { isPath: true }),
    option('--service-account-file <path>', 'key file of a Google service account', { isPath: true }),
    option('--tenant <id>', 'Microsoft tenant: its id or domain'),
    option('--user <name>', 'XOAUTH2 user, if it is not the address (shared mailbox)'),
    option('--transport <way>', 'by which way mail leaves: smtp, graph (Microsoft Graph), smtp_then_graph', {
      choices: ['smtp', 'graph', 'smtp_then_graph'],
    }),
    option(
      '--graph-permissions <name>',
      'what the application may do by Graph: read_write (Mail.ReadWrite and Mail.Send), send (Mail.Send alone)',
      { choices: ['read_write', 'send'] },
    ),
    option(
      '--imap',
      'ask for consent to read by IMAP, too, for programs that get tokens of the relay (token --for imap)',
    ),
    option('--smtp <url>', 'starttls://host:587 or smtps://host:465, if not the provider’s'),
    option('--token-url <url>', 'token endpoint, if not the provider’s'),
    option('--redirect-port <number>', 'port of the loopback redirect (default a free one)'),
    option('--replace', 'sign in again for an account that is there; its other keys stay'),
    option('--force', 'write the account even if it cannot be verified'),
    option('--no-verify', 'do not connect to the provider'),
    ...adminOptions('accounts', 'smtpProxy'),
  ],
  examples: [
    'xoauth2-relay account add alice@gmail.com --client-id ID.apps.googleusercontent.com --client-secret-file secret',
    'xoauth2-relay account add bob@example.org --provider outlook --client-id ID',
    'xoauth2-relay account add shop@example.com --provider gmail --sign-in service-account --service-account-file key.json',
    'xoauth2-relay account add bob@example.org --provider outlook --transport graph --client-id ID',
    'xoauth2-relay account add bob@example.org --replace',
  ],
  exitCodes: {
    1: 'sign-in or verification failed; nothing was written, unless the provider had replaced the refresh token that was given',
  },
  run: addAccount,
};

async function addAccount(context: CommandContext): Promise<number> {
  const { terminal } = context;
  const settings = await commandSettings(context);
  const path = settings.accounts;
  await noteOtherFile(settings, terminal);
  const text = await readOrEmpty(path);
  const email = await chooseAddress(context, text, path);
  const index = findAccount(text, email);
  const before = entryAt(text, index);
  const existing = index < 0 ? {} : existingOptions(before);
  const option = (name: string): string | undefined => textOption(context, name) ?? existing[name];
  const profile = await chooseProvider(context, text, option('provider') ?? guessProvider(email));

  const keys: Record<string, unknown> = { email, provider: profile.name };
  for (const [key, name] of [
    ['user', 'user'],
    ['tenant', 'tenant'],
    ['smtp', 'smtp'],
    ['token_url', 'tokenUrl'],
    ['transport', 'transport'],
    ['graph_permissions', 'graphPermissions'],
  ] as const)
    if (option(name) !== undefined) keys[key] = option(name);

  /** The file with the account in it; the file may have become another one since the dialogue began. */
  const change = (current: string, entry: Record<string, unknown>): string => {
    const now = findAccount(current, email);
    if (!isDeepStrictEqual(entryAt(current, now), before))
      throw new OperatorError(
        `${email} was ${index < 0 ? 'added' : now < 0 ? 'removed' : 'changed'} in ${path} by somebody else meanwhile: nothing was written; look at it and run this again${index < 0 ? ' with --replace' : ''}`,
      );
    return now < 0
      ? appendAccount(current, entry)
      : updateAccount(current, now, { ...entry, email: before.email });
  };

  // What a sign-in brings must not be lost for want of a place: nobody is asked before there is one.
  await editAccounts(path, () => undefined);
  const earlier = {};
  const attempt = async (): Promise<Attempt> => {
    const { entry: grant, access } = await signIn(context, {
      email,
      profile,
      option,
      directory: dirname(path),
      earlier,
    });
    const superseded = supersededKeys(before, grant).map((key) => [key, undefined]);
    const entry = { ...Object.fromEntries(superseded), ...keys, ...grant };
    // The token of the sign-in serves for the check, so that a refresh token is not spent on it.
    const brought =
      access === undefined || option('transport') === 'graph'
        ? {}
        : { access_token: access.accessToken.reveal(), expires_at: access.expiresAt };
    const parsed = await parseAt(change(text, { ...entry, ...brought }), path, context.env);
    const loaded = parsed.accounts.find(({ account }) => foldAddress(account.email) === foldAddress(email));
    if (loaded === undefined)
      throw new OperatorError(
        parsed.problems.map((problem) => `${problem.path} ${problem.message}`).join('\n'),
        EXIT_CONFIGURATION,
      );
    if (context.options.verify === false) return { ok: true, isReplaced: false, entry };
    const { ok, rotated } = await proveAccount(loaded, {
      proxy: proxyOfSetting(settings.smtpProxy),
      signedIn: access,
      onStep: (step) => noteStep(terminal, step),
    });
    if (rotated === undefined || !('refresh_token' in grant)) return { ok, isReplaced: false, entry };
    // A person who signed in can do so again; whose token was given has no other one.
    return { ok, isReplaced: access === undefined, entry: { ...entry, refresh_token: rotated } };
  };

  const kept = await untilKept(context, attempt);
  if (kept === undefined) {
    terminal.note('nothing was written');
    return 1;
  }
  await editAccounts(path, (current) => change(current, kept.entry));
  terminal.print(`${email} ${index < 0 ? 'added to' : 'updated in'} ${path}`);
  await reloadRunning(settings, terminal);
  return kept.ok || !kept.isReplaced || isSet(context, 'force') ? 0 : 1;
}

interface Attempt {
  readonly ok: boolean;
  /** The provider gave another refresh token for the one that was given, which may be no good any more. */
  readonly isReplaced: boolean;
  /** For the accounts file. */
  readonly entry: Record<string, unknown>;
}

/** Tries until the account works or a person decides otherwise; undefined: nothing is to be kept. */
async function untilKept(
  context: CommandContext,
  attempt: () => Promise<Attempt>,
): Promise<Attempt | undefined> {
  const { terminal } = context;
  for (;;) {
    let made: Attempt | undefined;
    try {
      made = await attempt();
    } catch (error) {
      if (!(error instanceof OperatorError) || !terminal.isInteractive) throw error;
      terminal.note(terminal.paint.red(error.message));
    }
    if (made?.ok || (made !== undefined && isSet(context, 'force'))) return made;
    if (made?.isReplaced) {
      terminal.note(
        'the provider has replaced the refresh token that was given: the new one is kept, check the account when this is cured',
      );
      return made;
    }
    if (!terminal.isInteractive) return undefined;
    const choices = made === undefined ? (['again', 'stop'] as const) : (['again', 'keep', 'stop'] as const);
    const choice = await askUntil(
      terminal,
      () =>
        terminal.ask(
          `Try again${made === undefined ? '' : ', keep it nevertheless'} or stop (${choices.join(', ')})`,
          'again',
        ),
      oneOf('choice', choices),
    );
    if (choice === 'keep') return made;
    if (choice === 'stop') return undefined;
  }
}

async function chooseAddress(context: CommandContext, text: string, path: string): Promise<string> {
  const { terminal } = context;
  const check = async (email: string): Promise<string> => {
    if (!isAddress(email))
      throw new OperatorError(
        email === ''
          ? 'an address is needed'
          : `${email} is no address: name a mailbox such as alice@example.com`,
        EXIT_CONFIGURATION,
      );
    if (findAccount(text, email) < 0 || isSet(context, 'replace')) return email;
    if (
      terminal.isInteractive &&
      (await terminal.confirm(`${email} is in ${path} already. Sign in again?`, true))
    )
      return email;
    throw new OperatorError(
      `${email} is in ${path} already: use --replace to sign in again`,
      EXIT_CONFIGURATION,
    );
  };
  const [given] = context.arguments;
  if (given !== undefined) return check(given);
  return askUntil(terminal, () => terminal.ask('Address of the mailbox'), check);
}

async function chooseProvider(
  { terminal }: CommandContext,
  text: string,
  named: string | undefined,
): Promise<ProviderProfile> {
  const profiles = await parseProviders(text);
  const find = (answer: string): ProviderProfile => {
    const profile = profiles.get(oneOf('provider', [...profiles.keys()])(answer));
    if (profile === undefined)
      throw new OperatorError(
        `the entry of provider ${answer} is wrong: see "xoauth2-relay check --offline"`,
        EXIT_CONFIGURATION,
      );
    return profile;
  };
  if (named !== undefined) return find(named);
  return askUntil(terminal, () => terminal.ask(`Provider (${[...profiles.keys()].join(', ')})`), find);
}

/** What `--replace` takes over from the entry that is there. */
function existingOptions(entry: EntryObject): Record<string, string | undefined> {
  const read = textIn(entry);
  const grant = read('grant');
  return {
    provider: read('provider'),
    user: read('user'),
    clientId: read('client_id'),
    clientSecret: read('client_secret'),
    tenant: read('tenant'),
    tokenUrl: read('token_url') ?? read('oauth_token_url'),
    transport: read('transport'),
    graphPermissions: read('graph_permissions'),
    imapScope: read('imap_scope'),
    signIn:
      grant === 'jwt_bearer'
        ? 'service-account'
        : grant === 'client_credentials'
          ? 'client-credentials'
          : undefined,
  };
}

function entryAt(text: string, index: number): EntryObject {
  return { ...(accountEntries(text)[index] ?? {}) };
}

/** Domains whose provider is plain. */
function guessProvider(email: string): string | undefined {
  const domain = email.slice(email.lastIndexOf('@') + 1).toLowerCase();
  if (/^(?:gmail|googlemail)\.com$/.test(domain)) return 'gmail';
  if (/^(?:outlook|hotmail|live|msn)\.[a-z.]+$/.test(domain)) return 'outlook-personal';
  return undefined;
}

function noteStep({ note, paint }: Terminal, { ok, stage, detail, explanation }: ProbeStep): void {
  note(`${ok ? paint.green('ok    ') : paint.red('failed')} ${stage} ${detail}`);
  if (explanation === undefined) return;
  note(`       ${explanation.what}`);
  note(`       cure: ${explanation.cure}`);
}
