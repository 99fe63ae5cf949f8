/** The sign-in of `account add`. In: options, answers of a person. Out: the grant's keys for the accounts file. */
import { resolve } from 'node:path';
import { Secret } from '../accounts/credential.ts';
import type { ProviderProfile } from '../accounts/providers.ts';
import { readSmallFile, SecretSourceError } from '../accounts/secret-source.ts';
import { readVariable, type Variable } from '../config/variables.ts';
import { consentOf } from '../enrol/consent.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { type SignedIn, type SignInTarget, signInWithBrowser, signInWithDevice } from '../enrol/sign-in.ts';
import { type CommandContext, EXIT_CONFIGURATION, isSet, numberOption, textOption } from './definition.ts';
import { askUntil, oneOf, oneWord } from './questions.ts';

export const SIGN_INS = [
  'device',
  'browser',
  'refresh-token',
  'service-account',
  'client-credentials',
] as const;
type SignIn = (typeof SIGN_INS)[number];
/** A person may have to find a phone. */
const SIGN_IN_TIMEOUT_MS = 600_000;

/** What is known of the account before anybody signs in. */
export interface SignInFacts {
  readonly email: string;
  readonly profile: ProviderProfile;
  option(name: string): string | undefined;
  /** Of the accounts file. */
  readonly directory: string;
  /** What was answered before an attempt that failed. */
  readonly earlier?: { clientId?: string };
}

export interface SignInResult {
  /** Keys for the accounts file. */
  readonly entry: Record<string, unknown>;
  readonly access?: SignedIn;
}

/** Asks for what is not given. Rejects with an `OperatorError` where the sign-in failed. */
export async function signIn(context: CommandContext, facts: SignInFacts): Promise<SignInResult> {
  const { terminal } = context;
  const { profile, option, email } = facts;
  const way = (option('signIn') ?? (await chooseSignIn(context, profile))) as SignIn;
  if (way === 'service-account') {
    const file =
      textOption(context, 'serviceAccountFile') ??
      (await askUntil(terminal, () => terminal.ask('Key file of the service account'), readableFile));
    return { entry: { grant: 'jwt_bearer', service_account_file: fromDirectory(file, facts.directory) } };
  }
  if (option('clientId') === undefined && profile.clientsAt !== undefined && terminal.isInteractive)
    terminal.note(
      `The OAuth client is one that you register once: ${profile.clientsAt} (steps: docs/first-account.md).`,
    );
  const clientId =
    option('clientId') ??
    (await askUntil(
      terminal,
      () => terminal.ask('Client id', facts.earlier?.clientId),
      oneWord('a client id'),
    ));
  if (facts.earlier !== undefined) facts.earlier.clientId = clientId;
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
          imap: isSet(context, 'imap') || option('imapScope') !== undefined,
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
  return askUntil(
    terminal,
    () => terminal.ask(`Way to sign in (${offered.join(', ')})`, first),
    oneOf('way to sign in', offered),
  );
}

function browserPrompt(context: CommandContext) {
  const { terminal } = context;
  return {
    port: numberOption(context, 'redirectPort', 0),
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
  variable: Variable,
  { question, given, mayBeEmpty = false }: SecretQuestion,
): Promise<Secret | undefined> {
  const file = textOption(context, fileOption);
  if (file !== undefined) return new Secret(readFileText(file));
  const text = readVariable(context.env, variable) || given;
  if (text) return new Secret(text);
  if (mayBeEmpty && !context.terminal.isInteractive) return undefined;
  const { terminal } = context;
  const answer = await askUntil(
    terminal,
    async () => (await terminal.askSecret(question)).trim(),
    (text) => {
      if (text === '' && !mayBeEmpty) throw new OperatorError(`${question} is needed`, EXIT_CONFIGURATION);
      return text;
    },
  );
  return answer === '' ? undefined : new Secret(answer);
}

function readFileText(path: string): string {
  try {
    return readSmallFile(path);
  } catch (error) {
    if (!(error instanceof SecretSourceError)) throw error;
    throw new OperatorError(error.message, EXIT_CONFIGURATION, { cause: error });
  }
}

function readableFile(path: string): string {
  readFileText(oneWord('a file')(path));
  return path;
}

/** A path of the accounts file counts from there, one on the command line from here. */
const fromDirectory = (path: string, directory: string): string =>
  resolve(path) === resolve(directory, path) ? path : resolve(path);
