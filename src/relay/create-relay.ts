/**
 * The relay: account gate and transactions. In: MAIL commands of listeners. Out: transactions, and one
 * record of each. Owns the limits of the accounts and who is drained.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Account } from '../accounts/account.ts';
import type { Log } from '../log.ts';
import { fitParameters } from '../protocol/esmtp.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import { judge } from '../protocol/verdict.ts';
import { TokenError, type TokenSource } from '../tokens/access-token.ts';
import { asUpstreamError } from '../upstream/failure.ts';
import type { AccountUpstream, Upstreams } from '../upstream/upstream.ts';
import { createSendLimiter, type SendLimiter } from './limits.ts';
import type { TransactionRecord } from './record.ts';
import type { MailCommand, Relay } from './relay.ts';
import { createTransaction, type Ending, mailAccepted, type TransactionOptions } from './transaction.ts';

export interface RelayDeps {
  readonly tokens: TokenSource;
  readonly upstreams: Upstreams;
  readonly log: Log;
  /** Hears of every transaction once, refused MAILs included. */
  readonly onRecord: (record: TransactionRecord) => void;
  /** A wait or refusal by one of our limits. */
  readonly onLimit?: (event: {
    readonly account: string;
    readonly limit: 'messages_per_minute' | 'messages_per_day';
    readonly waitedMs: number;
    readonly refused: boolean;
  }) => void;
}

export interface RelayOptions extends TransactionOptions {
  /** Longest wait at MAIL for a place in the rate limit, ms; clients wait 5 min there (RFC 5321 §4.5.3.2.2). */
  readonly maxHoldMs: number;
}

export interface RunningRelay extends Relay {
  /** No new transactions for the account; running ones finish. */
  drain(accountId: string): void;
  resume(accountId: string): void;
  isDrained(accountId: string): boolean;
}

/** Answer for an account whose entry in the accounts file cannot be used. */
const NOT_SERVED = reply(451, '4.3.5', 'this account is misconfigured in the relay');

let transactions = 0;
/** Sorts by time, unique within the process: milliseconds and a counter, base 36. */
const nextId = (now: number): string =>
  `${now.toString(36)}${(transactions++ % 46_656).toString(36).padStart(3, '0')}`.toUpperCase();

interface Limited {
  readonly account: Account;
  readonly limiter: SendLimiter;
}

export function createRelay(deps: RelayDeps, options: RelayOptions): RunningRelay {
  const { tokens, upstreams, log } = deps;
  const drained = new Set<string>();
  const limiters = new Map<string, Limited>();

  /** One limiter per account; a changed account starts a new count. */
  function limiterOf(account: Account): SendLimiter | undefined {
    const { messagesPerMinute, messagesPerDay } = account.limits;
    if (messagesPerMinute === undefined && messagesPerDay === undefined) return undefined;
    let limited = limiters.get(account.id);
    if (limited?.account !== account) {
      limited = { account, limiter: createSendLimiter(account.limits) };
      limiters.set(account.id, limited);
    }
    return limited.limiter;
  }

  /** Refusal before any body is sent, or undefined. A cached token, a live connection and room in the limit need no wait. */
  async function gate(command: MailCommand, upstream: AccountUpstream): Promise<Reply | undefined> {
    const { account } = command;
    const paused = upstream.health.gate('sending', Date.now());
    if (paused !== undefined) return paused.answer;
    if (tokens.peek(account.id) === undefined) {
      try {
        await tokens.get(account.id);
      } catch (error) {
        // A connection that is authenticated already needs no token.
        if (upstream.live === 0) return tokenRefusal(error, account.id);
      }
    }
    if (upstream.live === 0) {
      try {
        await upstream.ensureConnected();
      } catch (error) {
        return asUpstreamError(error).verdict.answer;
      }
    }
    if (command.parameters.length > 0 && upstream.capabilities !== undefined) {
      const fitted = fitParameters(command.parameters, upstream.capabilities);
      if ('refusal' in fitted) return fitted.refusal;
      const declared = command.parameters.find((p) => /^SIZE=/i.test(p));
      const most = upstream.capabilities.size || account.limits.maxBytes;
      if (declared !== undefined && Number(declared.slice('SIZE='.length)) > most)
        return reply(552, '5.3.4', `message is larger than the ${most} octets the upstream takes`);
    }
    return waitForPlace(account);
  }

  function tokenRefusal(error: unknown, account: string): Reply {
    if (error instanceof TokenError)
      return judge({
        kind: 'token',
        code: error.code,
        account,
        detail: error.message,
        retryAt: error.retryAt,
      }).answer;
    log.error({ err: error, account }, 'fetching a token failed unexpectedly');
    return judge({ kind: 'local', cause: 'internal' }).answer;
  }

  async function waitForPlace(account: Account): Promise<Reply | undefined> {
    const place = limiterOf(account)?.reserve(Date.now(), options.maxHoldMs);
    if (place === undefined || (place.granted && place.waitMs === 0)) return undefined;
    const limit =
      place.granted || place.limit === 'rate_limited' ? 'messages_per_minute' : 'messages_per_day';
    const waitedMs = place.granted ? place.waitMs : 0;
    deps.onLimit?.({ account: account.id, limit, waitedMs, refused: !place.granted });
    if (!place.granted)
      return judge({ kind: 'local', cause: place.limit, waitSeconds: Math.ceil(place.retryAfterMs / 1000) })
        .answer;
    await delay(place.waitMs);
    return undefined;
  }

  return {
    async mail(command) {
      const { account } = command;
      const at = Date.now();
      const startedAt = performance.now();
      const id = nextId(at);
      const upstream = upstreams.of(account.id);
      let refusal: Reply | undefined;
      if (upstream === undefined) refusal = NOT_SERVED;
      else if (drained.has(account.id)) refusal = judge({ kind: 'local', cause: 'draining' }).answer;
      else
        refusal = await gate(command, upstream).catch((error: unknown) => {
          log.error({ err: error, account: account.id }, 'account gate failed unexpectedly');
          return judge({ kind: 'local', cause: 'internal' }).answer;
        });
      const gateMs = performance.now() - startedAt;

      const record = (ending: Ending): void =>
        deps.onRecord({
          id,
          at,
          sessionId: command.session.id,
          client: command.session.remoteAddress,
          account: account.id,
          provider: account.provider,
          sender: command.sender,
          recipients: ending.recipients,
          bytes: ending.bytes,
          outcome: ending.outcome,
          reply: ending.reply,
          decidedBy: ending.decidedBy,
          upstreamReply: ending.upstreamReply,
          flights: ending.flights,
          reused: ending.reused,
          replayed: ending.replayed,
          connection: ending.connection,
          totalMs: performance.now() - startedAt,
          gateMs,
          acquireMs: ending.acquireMs,
          upstreamMs: ending.upstreamMs,
        });

      if (refusal !== undefined || upstream === undefined) {
        const answer = refusal ?? NOT_SERVED;
        record(refusedAtMail(answer));
        return { reply: answer };
      }
      const fitted =
        upstream.capabilities === undefined
          ? undefined
          : fitParameters(command.parameters, upstream.capabilities);
      const transaction = createTransaction(
        {
          id,
          command:
            fitted !== undefined && 'parameters' in fitted
              ? { ...command, parameters: fitted.parameters }
              : command,
          upstream,
          onInternalError: (error) =>
            log.error({ err: error, transaction: id }, 'transaction failed unexpectedly'),
          onEnd: (ending) => {
            if (ending.unsent) limiterOf(account)?.giveBack();
            record(ending);
          },
        },
        options,
      );
      return { reply: mailAccepted, transaction };
    },
    drain: (accountId) => void drained.add(accountId),
    resume: (accountId) => void drained.delete(accountId),
    isDrained: (accountId) => drained.has(accountId),
  };
}

function refusedAtMail(answer: Reply): Ending {
  return {
    recipients: [],
    bytes: 0,
    outcome: answer.code >= 500 ? 'rejected' : 'deferred',
    reply: answer,
    decidedBy: 'relay',
    upstreamReply: undefined,
    flights: 0,
    reused: false,
    replayed: false,
    connection: undefined,
    acquireMs: 0,
    upstreamMs: 0,
    unsent: true,
  };
}
