/**
 * Access tokens for programs on this machine. In: questions over a UNIX socket that only this user may open. Out: a
 * token, or why there is none and what cures it; a log line for each, without the token. Owns the socket.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { type Account, causeFacts } from '../accounts/account.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { isMicrosoft } from '../protocol/causes/cause.ts';
import { commandFor } from '../protocol/shell-command.ts';
import { cleanText } from '../protocol/text.ts';
import { AccessToken, TokenError, type TokenResource, type TokenSource } from '../tokens/access-token.ts';
import { listenOnPath, removeStaleSocket } from '../unix-socket.ts';
import { missingPermission } from './token-claims.ts';
import { isMeantFor } from './token-hosts.ts';
import { MAX_QUESTION, parseQuestion, type TokenQuestion, type TokenReply } from './token-wire.ts';

export interface TokenSocketDeps {
  readonly tokens: Pick<TokenSource, 'get' | 'renew'>;
  /** By id or address; asked anew each time. */
  readonly accountOf: (name: string) => Account | undefined;
  readonly log: Log;
  readonly clock?: Clock;
}

export interface TokenSocketOptions {
  /** Undefined: there is none. */
  readonly path: string | undefined;
  /** Longest wait for a token, ms. */
  readonly answerTimeoutMs: number;
}

export interface TokenSocket {
  /** Rejects with `TokenSocketError`: the path is another's. */
  listen(): Promise<void>;
  close(): Promise<void>;
}

/** The socket cannot be had; `cause` is the system's error where there is one. */
export class TokenSocketError extends Error {
  override readonly name = 'TokenSocketError';
}

/** A program writes its question at once, ms. */
const QUESTION_MS = 5_000;
/** Programs at once; a mail program asks with a few connections. */
const MAX_PROGRAMS = 64;
/** Characters of an unknown name that are logged. */
const MAX_NAME = 320;

export function createTokenSocket(
  { tokens, accountOf, log, clock = systemClock }: TokenSocketDeps,
  { path, answerTimeoutMs }: TokenSocketOptions,
): TokenSocket {
  const open = new Set<Socket>();
  /** Those of them that have not asked yet, the oldest first. */
  const silent = new Set<Socket>();
  let server: Server | undefined;

  function leave(socket: Socket): void {
    open.delete(socket);
    silent.delete(socket);
  }

  function serve(socket: Socket): void {
    socket.on('error', () => {});

    if (open.size >= MAX_PROGRAMS) {
      // Whoever says nothing makes room; where all have asked the newest comes again.
      const [oldest = socket] = silent;
      leave(oldest);
      oldest.destroy();
      if (oldest === socket) return;
    }
    open.add(socket);
    silent.add(socket);
    let heard = Buffer.alloc(0);
    let isTaken = false;
    let isAnswered = false;
    // One end for the question, another for the answer.
    let stop = clock.after(QUESTION_MS, () => socket.destroy());
    function end(question: TokenQuestion | undefined, reply: TokenReply): void {
      if (isAnswered) return;
      isAnswered = true;
      report(question, reply);
      stop();
      stop = clock.after(QUESTION_MS, () => socket.destroy());
      socket.end(`${JSON.stringify(reply)}\n`);
    }
    socket.once('close', () => {
      stop();
      leave(socket);
    });
    socket.on('data', hear);
    // Who has written all may say so at once, and reads on.
    socket.once('end', () => {
      if (heard.length === 0) socket.destroy();
      else take(heard);
    });
    function hear(chunk: Buffer): void {
      heard = Buffer.concat([heard, chunk]);
      const newline = heard.indexOf('\n');
      if (newline >= 0) take(heard.subarray(0, newline));
      else if (heard.length > MAX_QUESTION) take(undefined);
    }
    function take(line: Buffer | undefined): void {
      if (isTaken) return;
      isTaken = true;
      silent.delete(socket);
      socket.off('data', hear).resume();
      stop();
      const question = line === undefined ? undefined : parseQuestion(line.toString());
      if (question === undefined) {
        end(undefined, {
          ok: false,
          error: 'not understood: is the command of another version than the relay?',
        });
        return;
      }
      stop = clock.after(answerTimeoutMs, () =>
        end(question, {
          ok: false,
          error: 'the token endpoint has not answered yet',
          cure: 'try again in a minute',
        }),
      );
      answer(question).then(
        (reply) => end(question, reply),
        (error: unknown) => {
          log.error({ event: 'token_socket_failed', reason: String(error) }, 'a question was not answered');
          end(question, { ok: false, error: 'the relay failed: see its log' });
        },
      );
    }
  }

  function report(question: TokenQuestion | undefined, reply: TokenReply): void {
    const { account = '', resource, refused } = question ?? {};
    if (reply.ok)
      log.info(
        {
          event: 'token_given',
          account: reply.account,
          resource,
          expires_at: reply.expires_at,
          ...(refused === undefined ? {} : { anew: true }),
        },
        'access token given to a program',
      );
    else
      log.warn(
        { event: 'token_denied', account: cleanText(account, MAX_NAME), resource, reason: reply.error },
        'no token given to a program',
      );
  }

  async function answer({ account: name, resource, host, refused }: TokenQuestion): Promise<TokenReply> {
    const account = accountOf(name);
    if (account === undefined)
      return {
        ok: false,
        error: `the relay has no account ${cleanText(name, MAX_NAME)}`,
        cure: '"xoauth2-relay status" lists them',
      };
    if (host !== undefined && !isMeantFor(account, resource, host))
      return {
        ok: false,
        error: `${cleanText(host, MAX_NAME)} is no ${resource} server of ${account.id}: no token is shown to it`,
        cure: 'correct the server that the program is told to use',
      };
    try {
      // Nothing of it is known but its text.
      const token =
        refused === undefined
          ? await tokens.get(account.id, resource)
          : await tokens.renew(account.id, new AccessToken(refused, 0, 0), resource);
      const text = token.reveal();
      const missing = missingPermission(text, resource);
      if (missing !== undefined) return notCovered(account, resource, `its token has no ${missing}`);
      const expires_at = new Date(token.expiresAt).toISOString();
      return { ok: true, account: account.id, user: account.user, access_token: text, expires_at };
    } catch (error) {
      if (error instanceof TokenError) return explain(error, account, resource);
      throw error;
    }
  }

  return {
    async listen() {
      if (path === undefined) return;
      const current = createServer({ allowHalfOpen: true }, serve);
      try {
        await removeStaleSocket(path);
        await new Promise<void>((resolve, reject) => {
          current.once('error', reject);
          listenOnPath(current, path, 0o600, () => {
            current.off('error', reject);
            resolve();
          });
        });
      } catch (cause) {
        throw new TokenSocketError(`cannot listen on ${path}: ${(cause as Error).message}`, { cause });
      }
      current.on('error', (error) =>
        log.error({ event: 'token_socket_failed', reason: error.message }, 'the token socket failed'),
      );
      server = current;
      log.info({ event: 'token_socket', path }, 'programs of this user get tokens here');
    },
    async close() {
      const current = server;
      if (current === undefined) return;
      server = undefined;
      const closed = new Promise<void>((resolve) => void current.close(() => resolve()));
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

/** What a provider says of a scope that nobody consented to; `invalid_scope` where it knows none by that name. */
const NOT_COVERED = new Set(['consent-missing', 'scope-wrong']);

function explain(error: TokenError, account: Account, resource: TokenResource): TokenReply {
  const { message, cure, causeId, code } = error;
  if (code === 'bad_request' && causeId === undefined && resource === 'imap')
    return {
      ok: false,
      error: `nobody knows the IMAP scope of ${account.provider}`,
      cure: `name it with imap_scope in the accounts file, then: ${commandFor('account add', account.email, '--replace', '--imap')}`,
    };
  const isWithoutGraph = code === 'bad_request' && resource === 'graph' && isMicrosoft(causeFacts(account));
  if (NOT_COVERED.has(causeId ?? '') || isWithoutGraph) return notCovered(account, resource, message);
  return { ok: false, error: message, ...(cure === undefined ? {} : { cure }) };
}

/** By whom and how a grant is widened. */
function notCovered({ id, email, grant }: Account, resource: TokenResource, why: string): TokenReply {
  const error = `the grant of ${id} does not cover ${resource}: ${why}`;
  const signIn = (...options: readonly string[]): string =>
    `sign in again and consent to it: ${commandFor('account add', email, '--replace', ...options)}`;
  if (resource === 'graph') return { ok: false, error, cure: signIn('--transport smtp_then_graph') };
  const name = resource.toUpperCase();
  if (grant === 'client_credentials') {
    const permission = resource === 'imap' ? 'IMAP.AccessAsApp' : 'SMTP.SendAsApp';
    return {
      ok: false,
      error,
      cure: `an administrator gives the application ${permission} (Entra ID, API permissions, Office 365 Exchange Online) and consents`,
    };
  }
  if (grant === 'jwt_bearer')
    return {
      ok: false,
      error,
      cure: `an administrator adds the scope of ${name} to the service account’s domain-wide delegation`,
    };
  return { ok: false, error, cure: signIn(...(resource === 'imap' ? ['--imap'] : [])) };
}
