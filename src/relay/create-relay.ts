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
import type { Way, Ways } from '../upstream/way.ts';
import { createSendLimiter, type SendLimiter } from './limits.ts';
import { startRecord, type TransactionRecord } from './record.ts';
import type { MailCommand, Relay } from './relay.ts';
import { createTransaction, MAIL_OK, type TransactionOptions } from './transaction.ts';

export interface RelayDeps {
  readonly ways: Ways;
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
  const { ways, log } = deps;
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

  /** Refusal before any body is sent, or undefined. */
  async function gate(command: MailCommand, way: Way): Promise<Reply | undefined> {
    const refusal = await way.ready();
    if (refusal !== undefined) return refusal;
    const { capabilities, maxBytes } = way.facts;
    if (command.parameters.length > 0 && capabilities !== undefined) {
      const fitted = fitParameters(command.parameters, capabilities);
      if ('refusal' in fitted) return fitted.refusal;
      const declared = command.parameters.find((p) => /^SIZE=/i.test(p));
      if (declared !== undefined && Number(declared.slice('SIZE='.length)) > maxBytes)
        return reply(552, '5.3.4', `message is larger than the ${maxBytes} octets the upstream takes`);
    }
    return waitForPlace(command.account);
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
      const way = ways.of(account.id);
      let refusal: Reply | undefined;
      if (way === undefined) refusal = NOT_SERVED;
      else if (drained.has(account.id)) refusal = judge({ kind: 'local', cause: 'draining' }).answer;
      else
        refusal = await gate(command, way).catch((error: unknown) => {
          log.error({ err: error, account: account.id }, 'account gate failed unexpectedly');
          return judge({ kind: 'local', cause: 'internal' }).answer;
        });
      const record = startRecord(id, at, command);
      record.gateMs = performance.now() - startedAt;

      function finish(): void {
        record.decidedBy = record.upstreamReply === undefined ? 'relay' : 'upstream';
        record.totalMs = performance.now() - startedAt;
        deps.onRecord(record);
      }

      if (refusal !== undefined || way === undefined) {
        const answer = refusal ?? NOT_SERVED;
        record.outcome = answer.code >= 500 ? 'rejected' : 'deferred';
        record.reply = answer;
        finish();
        return { reply: answer };
      }
      const { capabilities } = way.facts;
      const fitted = capabilities && fitParameters(command.parameters, capabilities);
      const transaction = createTransaction(
        {
          command:
            fitted !== undefined && 'parameters' in fitted
              ? { ...command, parameters: fitted.parameters }
              : command,
          way,
          record,
          onEnd() {
            // Nothing was sent: its place in the rate limit is free again.
            if (record.flights === 0) limiterOf(account)?.giveBack();
            finish();
          },
        },
        options,
      );
      return { reply: MAIL_OK, transaction };
    },
    drain: (accountId) => void drained.add(accountId),
    resume: (accountId) => void drained.delete(accountId),
    isDrained: (accountId) => drained.has(accountId),
  };
}
