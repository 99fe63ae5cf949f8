/**
 * `account add`: from an address to a working account. In: options and answers. Out: a verified entry in the
 * accounts file. Nothing is written before the account has logged in (without sending), unless forced.
 */
import { isDeepStrictEqual } from 'node:util';
import { accountEntries, appendAccount, updateAccount } from '../accounts/accounts-edit.ts';
import { parseProviders } from '../accounts/accounts-file.ts';
import { Secret } from '../accounts/credential.ts';
import type { ProviderProfile } from '../accounts/providers.ts';
import { readSmallFile } from '../accounts/secret-source.ts';
import { editAccounts, findAccount, parseAt, readOrEmpty } from '../enrol/accounts-on-disk.ts';
import { consentOf } from '../enrol/consent.ts';
import type { ProbeStep } from '../enrol/probe.ts';
import { proveAccount } from '../enrol/prove.ts';
import { type SignedIn, type SignInTarget, signInWithBrowser, signInWithDevice } from '../enrol/sign-in.ts';
import { foldAddress } from '../protocol/text.ts';
import {
  type CommandContext,
  type CommandDefinition,
  CommandError,
  EXIT_CONFIGURATION,
  isSet,
  numberOption,
  textOption,
} from './definition.ts';
import { reloadRunning } from './reload-running.ts';
import { commandSettings, settingOptions } from './setting-options.ts';
import type { Terminal } from './terminal.ts';

const SIGN_INS = ['device', 'browser', 'refresh-token', 'service-account', 'client-credentials'] as const;
type SignIn = (typeof SIGN_INS)[number];
/** A person may have to find a phone. */
const SIGN_IN_TIMEOUT_MS = 600_000;

export const accountAdd: CommandDefinition = {
  name: 'account add',
  summary: 'sign in to a mailbox and add it to the accounts file',
  details: [
    'Ways to sign in: "device" shows a code to type on any device (Microsoft); "browser" opens a page and takes its answer on a loopback port, or the address of the page you end on pasted here (Google, Microsoft); "refresh-token" takes one you have; "service-account" takes the key file of a Google service account; "client-credentials" uses the application itself (Microsoft).',
    'The account is verified up to AUTH and MAIL FROM; nothing is sent. Secrets are asked for without echo, or read from a file or from XOAUTH2_RELAY_CLIENT_SECRET and XOAUTH2_RELAY_REFRESH_TOKEN.',
  ],
  arguments: [{ name: '[address]', help: 'the mailbox' }],
  options: [
    { flags: '--provider <name>', help: 'gmail, outlook, outlook-personal, or one of the accounts file' },
    { flags: '--sign-in <way>', help: 'how to obtain tokens', choices: SIGN_INS },
    { flags: '--client-id <id>', help: 'id of the OAuth client' },
    {
      flags: '--client-secret-file <path>',
      help: 'file with its secret; leave out for a public client',
      isPath: true,
    },
    { flags: '--refresh-token-file <path>', help: 'file with a refresh token', isPath: true },
    { flags: '--service-account-file <path>', help: 'key file of a Google service account', isPath: true },
    { flags: '--tenant <id>', help: 'Microsoft tenant: its id or domain' },
    { flags: '--user <name>', help: 'XOAUTH2 user, if it is not the address (shared mailbox)' },
    {
      flags: '--transport <way>',
      help: 'by which way mail leaves: smtp, graph (Microsoft Graph), smtp_then_graph',
      choices: ['smtp', 'graph', 'smtp_then_graph'],
    },
    {
      flags: '--graph-permissions <name>',
      help: 'what the application may do by Graph: read_write (Mail.ReadWrite and Mail.Send), send (Mail.Send alone)',
      choices: ['read_write', 'send'],
    },
    {
      flags: '--imap',
      help: 'ask for consent to read by IMAP, too, for programs that get tokens of the relay (token --for imap)',
    },
    { flags: '--smtp <url>', help: 'starttls://host:587 or smtps://host:465, if not the provider’s' },
    { flags: '--token-url <url>', help: 'token endpoint, if not the provider’s' },
    { flags: '--redirect-port <number>', help: 'port of the loopback redirect (default a free one)' },
    { flags: '--replace', help: 'sign in again for an account that is there; its other keys stay' },
    { flags: '--force', help: 'write the account even if it cannot be verified' },
    { flags: '--no-verify', help: 'do not connect to the provider' },
    ...settingOptions(['accounts', 'adminHost', 'adminPort', 'adminToken']),
  ],
  examples: [
    'xoauth2-relay account add alice@gmail.com --client-id ID.apps.googleusercontent.com --client-secret-file secret',
    'xoauth2-relay account add bob@example.org --provider outlook --client-id ID',
    'xoauth2-relay account add shop@example.com --provider gmail --sign-in service-account --service-account-file key.json',
    'xoauth2-relay account add bob@example.org --provider outlook --transport graph --client-id ID',
    'xoauth2-relay account add bob@example.org --replace',
  ],
  exitCodes: { 1: 'sign-in or verification failed, nothing was written' },
  run: addAccount,
};

async function addAccount(context: CommandContext): Promise<number> {
  const { terminal } = context;
  const settings = await commandSettings(context);
  const path = settings.accounts;
  const text = await readOrEmpty(path);
  const email = context.arguments[0] ?? (await terminal.ask('Address of the mailbox'));
  const index = findAccount(text, email);
  if (index >= 0 && !isSet(context, 'replace'))
    throw new CommandError(
      `${email} is in ${path} already: use --replace to sign in again`,
      EXIT_CONFIGURATION,
    );

  const existing = index < 0 ? {} : existingOptions(text, index);
  const option = (name: string): string | undefined => textOption(context, name) ?? existing[name];
  const providers = parseProviders(text);
  const providerName =
    option('provider') ??
    guessProvider(email) ??
    (await terminal.ask(`Provider (${[...providers.keys()].join(', ')})`));
  const profile = providers.get(providerName);
  if (profile === undefined)
    throw new CommandError(
      `no provider ${providerName}: use ${[...providers.keys()].join(', ')}`,
      EXIT_CONFIGURATION,
    );

  const entry: Record<string, unknown> = { email, provider: profile.name };
  for (const [key, name] of [
    ['user', 'user'],
    ['tenant', 'tenant'],
    ['smtp', 'smtp'],
    ['token_url', 'tokenUrl'],
    ['transport', 'transport'],
    ['graph_permissions', 'graphPermissions'],
  ] as const)
    if (option(name) !== undefined) entry[key] = option(name);
  const { entry: signedIn, access } = await signIn(context, { email, profile, option });
  Object.assign(entry, signedIn);

  const before = entryAt(text, index);
  /** The file with the account in it; the file may have become another one since the dialogue began. */
  const change = (current: string, extra: Record<string, unknown>): string => {
    const now = findAccount(current, email);
    if (!isDeepStrictEqual(entryAt(current, now), before))
      throw new CommandError(
        `${email} was ${index < 0 ? 'added' : now < 0 ? 'removed' : 'changed'} in ${path} by somebody else meanwhile: nothing was written; look at it and run this again${index < 0 ? ' with --replace' : ''}`,
      );
    return now < 0
      ? appendAccount(current, { ...entry, ...extra })
      : updateAccount(current, now, { ...entry, email: before.email, ...extra });
  };
  // The token of the sign-in serves for the check, so that a refresh token is not spent on it.
  const brought =
    access === undefined || option('transport') === 'graph'
      ? {}
      : { access_token: access.accessToken.reveal(), expires_at: access.expiresAt };
  const parsed = await parseAt(change(text, brought), path, context.env);
  const loaded = parsed.accounts.find(({ account }) => foldAddress(account.email) === foldAddress(email));
  if (loaded === undefined)
    throw new CommandError(
      parsed.problems.map((problem) => `${problem.path} ${problem.message}`).join('\n'),
      EXIT_CONFIGURATION,
    );

  let extra: Record<string, unknown> = {};
  if (context.options.verify !== false) {
    const { ok, rotated } = await proveAccount(loaded, { onStep: (step) => noteStep(terminal, step) });
    if (
      !ok &&
      !isSet(context, 'force') &&
      !(terminal.isInteractive && (await terminal.confirm('Keep it nevertheless?', false)))
    ) {
      terminal.note('nothing was written');
      return 1;
    }
    if (rotated !== undefined && entry.refresh_token !== undefined) extra = { refresh_token: rotated };
  }
  await editAccounts(path, (current) => change(current, extra));
  terminal.print(`${email} ${index < 0 ? 'added to' : 'updated in'} ${path}`);
  await reloadRunning(settings, terminal);
  return 0;
}

/** What `--replace` takes over from the entry that is there. */
function existingOptions(text: string, index: number): Record<string, string | undefined> {
  const entry = entryAt(text, index);
  const read = (key: string): string | undefined =>
    typeof entry[key] === 'string' ? (entry[key] as string) : undefined;
  const grant = read('grant');
  return {
    provider: read('provider'),
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

function entryAt(text: string, index: number): Record<string, unknown> {
  return { ...(accountEntries(text)[index] ?? {}) };
}

/** Domains whose provider is plain. */
function guessProvider(email: string): string | undefined {
  const domain = email.slice(email.lastIndexOf('@') + 1).toLowerCase();
  if (/^(?:gmail|googlemail)\.com$/.test(domain)) return 'gmail';
  if (/^(?:outlook|hotmail|live|msn)\.[a-z.]+$/.test(domain)) return 'outlook-personal';
  return undefined;
}

interface SignInFacts {
  readonly email: string;
  readonly profile: ProviderProfile;
  option(name: string): string | undefined;
}

interface SignInResult {
  /** Keys for the accounts file. */
  readonly entry: Record<string, unknown>;
  readonly access?: SignedIn;
}

async function signIn(context: CommandContext, facts: SignInFacts): Promise<SignInResult> {
  const { terminal } = context;
  const { profile, option, email } = facts;
  const way = (option('signIn') ?? (await chooseSignIn(context, profile))) as SignIn;
  if (way === 'service-account') {
    const file =
      textOption(context, 'serviceAccountFile') ?? (await terminal.ask('Key file of the service account'));
    return { entry: { grant: 'jwt_bearer', service_account_file: file } };
  }
  const clientId = option('clientId') ?? (await terminal.ask('Client id'));
  const clientSecret = await secretOption(context, 'clientSecretFile', 'XOAUTH2_RELAY_CLIENT_SECRET', {
    question: 'Client secret (empty for a public client)',
    given: option('clientSecret'),
    mayBeEmpty: true,
  });
  const client = { client_id: clientId, ...(clientSecret && { client_secret: clientSecret.reveal() }) };
  switch (way) {
    case 'client-credentials':
      return { entry: { grant: 'client_credentials', ...client } };
    case 'refresh-token': {
      const token = await secretOption(context, 'refreshTokenFile', 'XOAUTH2_RELAY_REFRESH_TOKEN', {
        question: 'Refresh token',
      });
      return { entry: { ...client, refresh_token: token?.reveal() } };
    }
    case 'device':
    case 'browser': {
      const target: SignInTarget = {
        profile,
        tenant: option('tenant'),
        clientId,
        clientSecret,
        email: option('user') ?? email,
        tokenUrl: option('tokenUrl'),
        ...consentOf(profile, {
          email,
          user: option('user'),
          transport: option('transport'),
          tokenUrl: option('tokenUrl'),
          graphPermissions: option('graphPermissions'),
          imap: isSet(context, 'imap'),
          imapScope: option('imapScope'),
        }),
      };
      const access =
        way === 'device'
          ? await signInWithDevice(target, (prompt) => {
              terminal.note(`Open ${terminal.paint.bold(prompt.url)} on any device, sign in as ${email}`);
              terminal.note(
                `and type the code ${terminal.paint.bold(prompt.code)} (valid for ${prompt.minutes} min). Waiting …`,
              );
            })
          : await signInWithBrowser(target, browserPrompt(context));
      return { entry: { ...client, refresh_token: access.refreshToken.reveal() }, access };
    }
    default:
      return way satisfies never;
  }
}

async function chooseSignIn({ terminal }: CommandContext, profile: ProviderProfile): Promise<string> {
  const offered = SIGN_INS.filter((way) => {
    if (way === 'device') return profile.deviceUrl !== undefined;
    if (way === 'browser') return profile.authorizeUrl !== undefined;
    if (way === 'service-account') return profile.scopes.jwt_bearer !== undefined;
    if (way === 'client-credentials') return profile.scopes.client_credentials !== undefined;
    return true;
  });
  const [first = 'refresh-token'] = offered;
  if (!terminal.isInteractive) return first;
  const answer = await terminal.ask(`Way to sign in (${offered.join(', ')})`, first);
  if (!offered.some((way) => way === answer))
    throw new CommandError(`no such way: ${answer}`, EXIT_CONFIGURATION);
  return answer;
}

function browserPrompt(context: CommandContext) {
  const { terminal } = context;
  return {
    port: numberOption(context, 'redirectPort', '--redirect-port', 0),
    timeoutMs: SIGN_IN_TIMEOUT_MS,
    show: (url: string, port: number) => {
      terminal.note('Open this address in a browser and sign in:');
      terminal.note(`\n  ${url}\n`);
      terminal.note(
        `If the browser runs on another machine, forward the port first: ssh -L ${port}:127.0.0.1:${port} THIS_HOST`,
      );
      terminal.note('Or paste here the address of the page you end on, even if it could not be loaded.');
    },
    askRedirect: (signal: AbortSignal) => terminal.ask('Address', undefined, signal),
  };
}

interface SecretQuestion {
  readonly question: string;
  readonly given?: string | undefined;
  readonly mayBeEmpty?: boolean;
}

/** From the file, the environment, what is there already, or the person. */
async function secretOption(
  context: CommandContext,
  fileOption: string,
  variable: string,
  { question, given, mayBeEmpty = false }: SecretQuestion,
): Promise<Secret | undefined> {
  const file = textOption(context, fileOption);
  if (file !== undefined) return new Secret(readSmallFile(file));
  const fromEnv = context.env[variable] ?? given;
  if (fromEnv !== undefined && fromEnv !== '') return new Secret(fromEnv);
  if (mayBeEmpty && !context.terminal.isInteractive) return undefined;
  const answer = await context.terminal.askSecret(question);
  if (answer === '' && !mayBeEmpty) throw new CommandError(`${question} is needed`, EXIT_CONFIGURATION);
  return answer === '' ? undefined : new Secret(answer);
}

function noteStep({ note, paint }: Terminal, { ok, stage, detail, explanation }: ProbeStep): void {
  note(`${ok ? paint.green('ok    ') : paint.red('failed')} ${stage} ${detail}`);
  if (explanation === undefined) return;
  note(`       ${explanation.what}`);
  note(`       cure: ${explanation.cure}`);
}
