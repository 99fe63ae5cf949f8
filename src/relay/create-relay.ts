/**
 * The relay: account gate and transactions. In: MAIL commands of listeners. Out: transactions, and one
 * record of each. Owns the limits of the mailboxes and which account is drained.
 */
import { type Account, mailboxOf } from '../accounts/account.ts';
import { type Clock, nap, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { fitParameters } from '../protocol/esmtp.ts';
import { declaredSize } from '../protocol/esmtp-parameters.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import { judge, type Verdict } from '../protocol/verdict.ts';
import { type Soon, whenKnown } from '../soon.ts';
import { onceIn } from '../time-text.ts';
import { heardFor, type Way, type WayFacts, type Ways } from '../upstream/way.ts';
import type { PassedOver } from './choice.ts';
import { createChooser, type Refused, type Taken } from './chooser.ts';
import { createLimiter, type Limiter, type NoPlace, type Place } from './limits.ts';
import type { MailboxLimits } from './mailbox-counts.ts';
import { outcomeOf, startRecord, type TransactionRecord } from './record.ts';
import type { MailCommand, Relay } from './relay.ts';
import { ClientTransaction, MAIL_OK, type TransactionOptions } from './transaction.ts';

export interface RelayDeps {
  readonly ways: Ways;
  readonly log: Log;
  /** Hears of every transaction once, refused MAILs included. */
  readonly onRecord: (record: TransactionRecord) => void;
  /** A wait or refusal by one of our limits. */
  readonly onLimit?: (event: {
    readonly account: string;
    readonly limit: 'messages_per_minute' | 'messages_per_day' | 'messages_at_once';
    readonly waitedMs: number;
    readonly refused: boolean;
  }) => void;
  /** An account of the sender could not take a message; another did (`other`), or nobody (`none`). */
  readonly onPassedOver?: (account: string, result: 'other' | 'none') => void;
  /** Default: one of this relay alone. */
  readonly limiter?: Limiter;
  /** The account as it is served now, perhaps otherwise than when a message began to wait. Default: as it was. */
  readonly accountNow?: (accountId: string) => Account | undefined;
  readonly clock?: Clock;
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
  readonly drained: ReadonlySet<string>;
  /** Forgets that any other account is drained. */
  keepOnly(accountIds: Pick<ReadonlySet<string>, 'has'>): void;
}

const NO_NULL_SENDER = reply(550, '5.7.1', 'mail of this account cannot leave with the null sender');

let transactions = 0;
const startOfId = onceIn(1, (now) => now.toString(36).toUpperCase());
/** Sorts by time, unique within the process: milliseconds and a counter, base 36. */
const nextId = (now: number): string =>
  `${startOfId(now)}${(transactions++ % 46_656).toString(36).padStart(3, '0').toUpperCase()}`;

const mailboxLimits = ({ limits }: Account, most = limits.maxConnections): MailboxLimits => ({
  atOnce: Math.min(limits.maxConnections, most),
  perMinute: limits.messagesPerMinute,
  perDay: limits.messagesPerDay,
  recipientsPerDay: limits.recipientsPerDay,
});

/** A shorter wait for a place is no event. */
const NOTABLE_WAIT_MS = 5;
const LIMIT_NAMES = {
  minute: 'messages_per_minute',
  day: 'messages_per_day',
  busy: 'messages_at_once',
  away: 'messages_at_once',
} as const;
const LIMIT_CAUSES = {
  minute: 'rate_limited',
  day: 'daily_limit',
  busy: 'acquire_timeout',
  away: 'acquire_timeout',
} as const;

export function createRelay(deps: RelayDeps, options: RelayOptions): RunningRelay {
  const { ways, log, clock = systemClock, limiter = createLimiter(clock) } = deps;
  const drained = new Set<string>();
  /** Transactions by mailbox. */
  const underWay = new Map<string, number>();

  /** Why the way cannot take a message of this envelope, before any of it is sent. */
  function misfit({ sender, parameters }: MailCommand, facts: WayFacts): Reply | undefined {
    const { capabilities, maxBytes, withoutDomain } = facts;
    if (sender === '' && withoutDomain === 'refused') return heardFor(NO_NULL_SENDER, facts);
    if (parameters.length === 0 || capabilities === undefined) return undefined;
    const fitted = fitParameters(parameters, capabilities);
    if ('refusal' in fitted) return heardFor(fitted.refusal, facts);
    if (declaredSize(parameters) <= maxBytes) return undefined;
    return heardFor(
      reply(552, '5.3.4', `message is larger than the ${maxBytes} octets the upstream takes`),
      facts,
    );
  }

  function placeFor(
    account: Account,
    { facts }: Way,
    maxHoldMs: number,
    withdrawn: AbortSignal | undefined,
  ): Soon<Refused | Place> {
    const askedAt = clock.monotonic();
    const mailbox = mailboxOf(account);
    const limits = (): MailboxLimits => {
      const now = deps.accountNow?.(account.id);
      return mailboxLimits(now && mailboxOf(now) === mailbox ? now : account, facts.atOnce);
    };
    const asked = limiter.reserve(mailbox, limits, maxHoldMs, withdrawn);
    return whenKnown(asked, (result) => {
      const waitMs = result.granted ? result.place.waitMs : 0;
      const waitedMs = clock.monotonic() - askedAt + waitMs;
      if (withdrawn?.aborted !== true && (!result.granted || waitedMs >= NOTABLE_WAIT_MS))
        deps.onLimit?.({
          account: account.id,
          limit: LIMIT_NAMES[result.granted ? (waitMs > 0 ? 'minute' : 'busy') : result.limit],
          waitedMs: result.granted ? waitedMs : 0,
          refused: !result.granted,
        });
      if (!result.granted) {
        const { limit, retryAfterMs } = result;
        return { answer: judgeLimit(result).answer, retryAfterMs, isBusy: limit === 'busy' };
      }
      const { place } = result;
      return waitMs > 0 ? nap(clock, waitMs, withdrawn).over.then(() => place) : place;
    });
  }

  /** How its mail leaves, as far as that is a matter of the operator's. */
  function served(command: MailCommand): Refused | { readonly way: Way } {
    const { account } = command;
    const others = command.choices?.map((choice) => choice.account.id) ?? [];
    const way = ways.of(account.id, others, command.clientSender ?? command.sender);
    if (way === undefined) return { answer: judge({ kind: 'local', cause: 'misconfigured' }).answer };
    if (drained.has(account.id)) return { answer: judge({ kind: 'local', cause: 'draining' }).answer };
    return { way };
  }

  /** How its mail leaves, or why none can now. Of an account whose pause is over one message hears that it may try. */
  function gate(command: MailCommand): Soon<Refused | { readonly way: Way }> {
    const open = served(command);
    if ('answer' in open) return open;
    return whenKnown(open.way.ready(), (trouble) => {
      const refusal = trouble ?? misfit(command, open.way.facts);
      return refusal === undefined ? open : { answer: refusal };
    });
  }

  /** Whether this account takes the message; `withdrawn`: it is not waited for any more. Never rejects. */
  function ask(command: MailCommand, maxHoldMs: number, withdrawn?: AbortSignal): Soon<Refused | Taken> {
    const { account } = command;
    const failed = (error: unknown): Refused => {
      log.error({ err: error, account: account.id }, 'account gate failed unexpectedly');
      return { answer: judge({ kind: 'local', cause: 'internal' }).answer };
    };
    try {
      const result = whenKnown(gate(command), (open) => {
        if ('answer' in open) return open;
        const asked = placeFor(account, open.way, maxHoldMs, withdrawn);
        if (!(asked instanceof Promise))
          return 'answer' in asked ? asked : { command, ...open, place: asked };
        return asked.then(async (place): Promise<Refused | Taken> => {
          if ('answer' in place) return place;
          // Much may have become of the account meanwhile, and another may be waited for beside it.
          const still =
            withdrawn === undefined ? served(command) : await (async () => gate(command))().catch(failed);
          if ('answer' in still) place.end({ unsent: true, recipients: 0 });
          return 'answer' in still ? still : { command, ...still, place };
        });
      });
      return result instanceof Promise ? result.catch(failed) : result;
    } catch (error) {
      return failed(error);
    }
  }

  /** From 0 to 1: free connections, and what is left of minute and day. */
  function roomOf(account: Account): number {
    const mailbox = mailboxOf(account);
    const free = 1 - (underWay.get(mailbox) ?? 0) / account.limits.maxConnections;
    return Math.min(free, limiter.room?.(mailbox, mailboxLimits(account)) ?? 1);
  }

  const chooser = createChooser({ ask, roomOf, clock, maxHoldMs: options.maxHoldMs });

  function begins(account: Account, by: 1 | -1): void {
    const mailbox = mailboxOf(account);
    const next = (underWay.get(mailbox) ?? 0) + by;
    if (next <= 0) underWay.delete(mailbox);
    else underWay.set(mailbox, next);
  }

  function tellPassedOver(id: string, refused: readonly PassedOver[], result: Refused | Taken): void {
    const isTaken = !('answer' in result);
    // One that was busy at first may have taken it after all.
    const passedOver = refused.filter(({ account }) => !isTaken || account !== result.command.account.id);
    if (passedOver.length === 0) return;
    for (const { account } of passedOver) deps.onPassedOver?.(account, isTaken ? 'other' : 'none');
    log.info(
      {
        event: 'accounts_passed_over',
        transaction: id,
        passed_over: passedOver,
        ...(isTaken ? { account: result.command.account.id } : {}),
      },
      isTaken ? 'another account takes the message' : 'none of the accounts of this sender can take mail now',
    );
  }

  return {
    mail(asked) {
      const at = clock.now();
      const startedAt = clock.monotonic();
      const id = nextId(at);
      const passedOver: PassedOver[] = [];
      const { choices = [] } = asked;
      const asking =
        choices.length > 1 ? chooser.choose(asked, choices, passedOver) : ask(asked, options.maxHoldMs);
      return whenKnown(asking, (result) => {
        const command = 'answer' in result ? asked : result.command;
        const { account } = command;
        if (passedOver.length > 0) tellPassedOver(id, passedOver, result);
        const record = startRecord(id, at, command);
        record.gateMs = clock.monotonic() - startedAt;
        if (!('answer' in result)) record.chosenBy = result.chosenBy;

        function finish(): void {
          record.decidedBy = record.upstreamReply === undefined ? 'relay' : 'upstream';
          record.totalMs = clock.monotonic() - startedAt;
          deps.onRecord(record);
        }

        if ('answer' in result) {
          const { answer } = result;
          record.outcome = outcomeOf(answer);
          record.reply = answer;
          finish();
          return { reply: answer };
        }
        const { way, place } = result;
        const { capabilities } = way.facts;
        const fitted = capabilities && fitParameters(command.parameters, capabilities);
        begins(account, 1);
        const transaction = new ClientTransaction(
          {
            command:
              fitted !== undefined && 'parameters' in fitted
                ? { ...command, parameters: fitted.parameters }
                : command,
            way: place.claim === undefined ? way : claiming(way, place, options.maxHoldMs),
            record,
            onEnd() {
              begins(account, -1);
              place.end({ unsent: record.flights === 0, recipients: record.recipients.length });
              finish();
            },
          },
          options,
        );
        return { reply: MAIL_OK, transaction, account };
      });
    },
    drain: (accountId) => void drained.add(accountId),
    resume: (accountId) => void drained.delete(accountId),
    isDrained: (accountId) => drained.has(accountId),
    drained,
    keepOnly(accountIds) {
      for (const id of drained) if (!accountIds.has(id)) drained.delete(id);
      chooser.keepOnly(accountIds);
    },
  };
}

/** The way as it is, but nothing begins upstream before the message's place is sure. */
const claiming = (way: Way, place: Place, maxWaitMs: number): Way => ({
  account: way.account,
  facts: way.facts,
  ready: () => way.ready(),
  begin: (trace) =>
    way.begin(trace, () =>
      place
        .claim?.(maxWaitMs)
        ?.then((claimed): Verdict | undefined => (claimed.granted ? undefined : judgeLimit(claimed))),
    ),
});

const judgeLimit = ({ limit, retryAfterMs }: NoPlace): Verdict =>
  judge({ kind: 'local', cause: LIMIT_CAUSES[limit], waitSeconds: Math.ceil(retryAfterMs / 1000) });
