/**
 * `account add`: from an address to a working account. In: options and answers. Out: a verified entry in the
 * accounts file. Nothing is written before the account has logged in (without sending), unless forced.
 */
import { dirname } from 'node:path';
import { type EntryObject, textIn } from '../accounts/accounts-edit.ts';
import { parseProviders } from '../accounts/accounts-file.ts';
import { builtInProviders, type ProviderProfile } from '../accounts/providers.ts';
import { type AccountEntry, isAddress, type SecretSource } from '../accounts/schema.ts';
import { resolveCommands } from '../accounts/secret-command.ts';
import { readSecretText } from '../accounts/secret-source.ts';
import { readVariable } from '../config/variables.ts';
import { findAccount, readOrEmpty, tryEditing } from '../enrol/accounts-on-disk.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { isRecord } from '../protocol/json-object.ts';
import { type Attempt, tryAccount } from './account-attempt.ts';
import { createAccountPlace, wordOf } from './account-place.ts';
import { SIGN_INS } from './account-sign-in.ts';
import {
  type CommandContext,
  type CommandDefinition,
  EXIT_CONFIGURATION,
  isSet,
  option,
  textOption,
} from './definition.ts';
import { guessProvider } from './guess-provider.ts';
import { noteOtherFile } from './other-file.ts';
import { askUntil, oneOf } from './questions.ts';
import { reloadRunning } from './reload-running.ts';
import { adminOptions, commandSettings } from './setting-options.ts';

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
    1: 'sign-in or verification failed; nothing was written, unless the provider had replaced the refresh token that was given: the new one is in the entry where that is new, else in a file that is named',
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
  const place = createAccountPlace(path, email, text);
  const { before } = place;
  const isThere = Object.keys(before).length > 0;
  const existing = existingOptions(before);
  const isOther =
    existing.clientId !== undefined &&
    ![undefined, existing.clientId].includes(textOption(context, 'clientId'));
  if (
    !isOther &&
    textOption(context, 'clientSecretFile') === undefined &&
    !readVariable(context.env, 'XOAUTH2_RELAY_CLIENT_SECRET')
  )
    existing.clientSecret = await secretIn(before.client_secret, path, context.env);
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

  // What a sign-in brings must not be lost for want of a place: nobody is asked before there is one.
  await tryEditing(path);
  const knownSecret = existing.clientSecret;
  const plan = { context, settings, email, text, place, profile, keys, knownSecret, option, earlier: {} };
  const kept = await untilKept(context, () => tryAccount(plan));
  if (kept === undefined) {
    terminal.note('nothing was written');
    return 1;
  }
  const { entry, isOnlyHere, held = path } = kept;
  const isUnproved = kept.isReplaced && !kept.ok && !isSet(context, 'force');
  if (isUnproved && isThere) {
    terminal.note(`${email} stays as it is in ${path}; ${wordOf(held)}`);
    return 1;
  }
  await (isOnlyHere ? place.keep(entry, String(entry.refresh_token)) : place.write(entry));
  terminal.print(`${email} ${isThere ? 'updated in' : 'added to'} ${path}`);
  await reloadRunning(settings, terminal);
  if (!isUnproved) return 0;
  terminal.note(
    'the provider has replaced the refresh token that was given: the new one is kept, check the account when this is cured',
  );
  return 1;
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
    if (made !== undefined && (made.ok || made.isReplaced || isSet(context, 'force'))) return made;
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

/** The client secret of an entry, wherever it stands. Rejects with `OperatorError`, so that nobody signs in for nothing. */
async function secretIn(
  source: unknown,
  path: string,
  env: CommandContext['env'],
): Promise<string | undefined> {
  // What is neither is told when the entry is read as a whole.
  if (!isRecord(source)) return typeof source === 'string' ? source : undefined;
  const places = { env, directory: dirname(path) };
  const refused = (why: string, cause?: unknown): OperatorError =>
    new OperatorError(
      `client_secret of the account: ${why}; run this where it can be had, or give another in its place with --client-secret-file`,
      EXIT_CONFIGURATION,
      { cause },
    );
  const { entry, issues } = await resolveCommands({ client_secret: source } as AccountEntry, places);
  if (issues[0] !== undefined) throw refused(issues[0].message);
  try {
    return readSecretText(entry.client_secret as SecretSource, places);
  } catch (error) {
    throw refused((error as Error).message, error);
  }
}
