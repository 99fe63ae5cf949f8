/**
 * `token`: an access token of the running relay for another program. In: its token socket; with `--git` git's credential
 * protocol on stdin. Out: the token on stdout and nothing else there.
 */
import { stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { text as readAll } from 'node:stream/consumers';
import { OperatorError } from '../enrol/operator-error.ts';
import { parseTokenReply, type TokenQuestion, type TokenReply } from '../programs/token-wire.ts';
import { cleanText, foldAddress } from '../protocol/text.ts';
import { TOKEN_RESOURCES } from '../protocol/vocabulary.ts';
import {
  type CommandContext,
  type CommandDefinition,
  EXIT_CONFIGURATION,
  isSet,
  option,
  textOption,
  timeoutOf,
  timeoutOption,
} from './definition.ts';
import { commandSettings, settingOptions } from './setting-options.ts';

/** A token is at hand as a rule; a slow token endpoint is waited for by the relay. */
const TIMEOUT_MS = 60_000;
/** Octets of an answer: a token of 16 kB and what stands around it. */
const MAX_REPLY = 64 * 1024;

const GIT_ACTIONS = ['get', 'store', 'erase'];
/** What git calls the way to a mail server, and what the token must be for. */
const GIT_PROTOCOLS: Readonly<Record<string, TokenQuestion['resource']>> = {
  smtp: 'smtp',
  smtps: 'smtp',
  imap: 'imap',
  imaps: 'imap',
};

export const token: CommandDefinition = {
  name: 'token',
  summary: 'print an access token of the running relay, for another mail program',
  details: [
    'For msmtp, mutt, mbsync and others that speak XOAUTH2 or OAUTHBEARER themselves (docs/tokens-for-programs.md). The relay must have been started with --token-socket PATH; only its own user and root may open that socket. Whoever has a token may send and read as the account for about an hour.',
    'With --git it is a credential helper of git (get, store, erase; gitcredentials(7)): it answers for smtp and imap servers of the account and for nothing else, and erase has a refused token replaced.',
  ],
  arguments: [
    { name: '[account]', help: 'id or address; with --git the username that git asks for is enough' },
    { name: '[action]', help: 'with --git, as git gives it: get, store or erase' },
  ],
  options: [
    option('--for <resource>', 'what the token must be good for (default smtp)', {
      choices: TOKEN_RESOURCES,
    }),
    option('--git', 'speak git’s credential protocol on standard input and output'),
    option('--json', 'print account, user, access_token and expires_at as JSON'),
    timeoutOption('for the answer', TIMEOUT_MS),
    ...settingOptions(['tokenSocket']),
  ],
  examples: [
    'xoauth2-relay token alice@example.com --token-socket /run/user/1000/xoauth2-relay.sock',
    'xoauth2-relay token bob@example.org --for imap',
    "git config credential.helper '!xoauth2-relay token --git'",
  ],
  exitCodes: {
    1: 'no relay answers, it has no such account, or no token can be had; one line on standard error says which',
  },
  async run(context) {
    if (isSet(context, 'git')) return helpGit(context);
    const [account, surplus] = context.arguments;
    if (account === undefined || surplus !== undefined)
      throw new OperatorError('name one account: xoauth2-relay token ADDRESS', EXIT_CONFIGURATION);
    const resource = TOKEN_RESOURCES.find((name) => name === textOption(context, 'for')) ?? 'smtp';
    const reply = await ask(context, { account, resource });
    const { ok: _ok, ...shown } = reply;
    context.terminal.print(isSet(context, 'json') ? JSON.stringify(shown) : reply.access_token);
    return 0;
  },
};

type Given = Extract<TokenReply, { ok: true }>;

/** Rejects with `OperatorError` where there is no token. */
async function ask(context: CommandContext, question: TokenQuestion): Promise<Given> {
  const { tokenSocket } = await commandSettings(context);
  if (tokenSocket === undefined)
    throw new OperatorError(
      'no token socket is named: give --token-socket PATH or XOAUTH2_RELAY_TOKEN_SOCKET, the same as the relay was started with',
      EXIT_CONFIGURATION,
    );
  const timeoutMs = timeoutOf(context, TIMEOUT_MS);
  const line = await exchange(tokenSocket, `${JSON.stringify(question)}\n`, timeoutMs);
  const reply = parseTokenReply(line);
  if (reply === undefined)
    throw new OperatorError(`${tokenSocket} answers what is no answer of a relay: is it one?`);
  if (!reply.ok)
    throw new OperatorError(
      [reply.error, reply.cure]
        .filter(Boolean)
        .map((t) => cleanText(`${t}`))
        .join(' — '),
    );
  return reply;
}

async function exchange(path: string, question: string, timeoutMs: number): Promise<string> {
  const owner = await foreignOwner(path);
  if (owner !== undefined) throw new OperatorError(owner);
  try {
    return await new Promise<string>((resolve, reject) => {
      let answer = '';
      const socket = connect(path, () => socket.write(question));
      const timer = setTimeout(() => {
        socket.destroy();
        reject(new OperatorError(`the relay at ${path} has not answered within ${timeoutMs} ms`));
      }, timeoutMs);
      socket.setEncoding('utf8').on('data', (chunk: string) => {
        answer += chunk;
        if (answer.length > MAX_REPLY) socket.destroy();
      });
      socket.on('error', reject);
      socket.once('close', () => {
        clearTimeout(timer);
        resolve(answer);
      });
    });
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    throw new OperatorError(explainSocket(error as NodeJS.ErrnoException, path), 1, { cause: error });
  }
}

/** Why nobody there is asked: whoever may make a socket under a name may wait for tokens at it. root asks every user's relay. */
async function foreignOwner(path: string): Promise<string | undefined> {
  const own = process.getuid?.();
  const uid = await stat(path).then(
    (facts) => facts.uid,
    () => undefined,
  );
  if (uid === undefined || own === undefined || own === 0 || uid === own || uid === 0) return undefined;
  return `${path} belongs to another user (uid ${uid}; this is uid ${own}): run this as the user of the relay, or the relay as yours`;
}

const SOCKET_TROUBLE: Readonly<Record<string, (path: string) => string>> = {
  ENOENT: (path) => `no relay listens at ${path}: start it with --token-socket ${path}`,
  ECONNREFUSED: (path) => `no relay listens at ${path} any more: start it again with --token-socket ${path}`,
  EACCES: (path) =>
    `${path} cannot be opened by this user: run this as the user of the relay, or the relay as yours`,
  ENOTSOCK: (path) => `${path} is no socket: name the one that the relay was started with (--token-socket)`,
};

const explainSocket = ({ code = '', message }: NodeJS.ErrnoException, path: string): string =>
  SOCKET_TROUBLE[code]?.(path) ?? `${path}: ${message}`;

/** A helper that has nothing to say says nothing: git then goes on to others and to the person. */
async function helpGit(context: CommandContext): Promise<number> {
  const names = [...context.arguments];
  const action = GIT_ACTIONS.includes(names.at(-1) ?? '') ? names.pop() : undefined;
  const [account, surplus] = names;
  if (action === undefined || surplus !== undefined)
    throw new OperatorError(
      'git calls this with get, store or erase: git config credential.helper "!xoauth2-relay token --git"',
      EXIT_CONFIGURATION,
    );
  const asked = parseAttributes(await readAll(process.stdin));
  const resource = GIT_PROTOCOLS[asked.get('protocol') ?? ''];
  const username = asked.get('username');
  const name = account ?? username;
  if (action === 'store' || resource === undefined || name === undefined) return 0;
  if (username !== undefined && foldAddress(username) !== foldAddress(name)) return 0;
  const question = { account: name, resource, host: asked.get('host') ?? '' };
  if (action === 'erase') {
    const refused = asked.get('password');
    if (refused !== undefined && refused !== '') await ask(context, { ...question, refused });
    return 0;
  }
  const { user, access_token, expires_at } = await ask(context, question);
  context.terminal.print(`username=${user}`);
  context.terminal.print(`password=${access_token}`);
  context.terminal.print(`password_expiry_utc=${Math.floor(Date.parse(expires_at) / 1000)}`);
  return 0;
}

const parseAttributes = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text.split('\n').flatMap((line) => {
      const equals = line.indexOf('=');
      return equals > 0 ? [[line.slice(0, equals), line.slice(equals + 1)] as const] : [];
    }),
  );
