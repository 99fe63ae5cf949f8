/**
 * The way by Microsoft Graph: whole messages, no verdicts on recipients. In: accounts with a Graph
 * target, tokens. Out: ways. Owns the breaker of each Graph host, the limits by application and mailbox,
 * and the health of the accounts on this way.
 */
import type { Account, AccountState, GraphTarget } from '../../accounts/account.ts';
import { GRAPH_MAX_BYTES } from '../../accounts/graph-target.ts';
import { type Clock, orAfter, systemClock } from '../../clock.ts';
import type { Http } from '../../http.ts';
import type { Log } from '../../log.ts';
import type { Capabilities } from '../../protocol/capabilities.ts';
import type { Mail, Recipient } from '../../protocol/esmtp.ts';
import { addressMessage } from '../../protocol/graph-addressing.ts';
import { describeRefusal } from '../../protocol/graph-answer.ts';
import { type Reply, reply } from '../../protocol/reply.ts';
import type { UnclearNews } from '../../protocol/unclear-news.ts';
import { judge } from '../../protocol/verdict.ts';
import type { Steps } from '../../slices.ts';
import { TokenError, type TokenSource } from '../../tokens/access-token.ts';
import type { AccountHealth } from '../account-health.ts';
import { type BreakerState, createEndpoints, type UpstreamEndpoint } from '../endpoint.ts';
import { tellFlight } from '../flight-times.ts';
import type { Delivery, Ending, Trace, Way, WayFacts } from '../way.ts';
import { createAttempts } from './attempts.ts';
import { createGraphClient, type GraphCallObservation, type GraphClient } from './client.ts';
import { createGraphDelivery, type GraphDelivery } from './delivery.ts';
import { keyOf, targetOf } from './graph-key.ts';
import { createGuardedWay } from './guarded-way.ts';
import { createHandover, type Handover } from './handover.ts';
import { createGraphHealths, type GraphPauses } from './healths.ts';
import { type Ledger, senderMark } from './ledger.ts';
import { createOpenQuestion } from './open-question.ts';
import type { GraphEnding } from './outcome.ts';
import { type Outgoing, outgoingOf } from './outgoing.ts';
import { AT_ONCE, createGraphPacing } from './pacing.ts';
import { notAddressed, refusalOf, refusedHere } from './refused-here.ts';
import { createSweep } from './sweep.ts';
import { createTellUnclear } from './tell-unclear.ts';

/** Requests at once to one Graph host; what one mailbox may have is far below. */
const MAX_REQUESTS = 1_000;
/** Requests in a minute before the breaker may open: those of three messages in trouble, and more. */
const BREAKER_VOLUME = 10;
/** A whole request has at most 4 MiB, in base64. */
const MAX_MESSAGE_OCTETS = (4 * 1024 * 1024 * 3) / 4;
/** At the end, for deleting left-over drafts, ms: what is noted of them is enough to do it later. */
const TIDY_MS = 1_000;
/** A throttled mailbox that is free again sooner is waited for, ms. */
const SHORT_PAUSE_MS = 5_000;

export interface GraphWaysDeps {
  readonly tokens: TokenSource;
  readonly http: Http;
  readonly ledger: Ledger;
  readonly log: Log;
  readonly clock?: Clock;
  readonly onCall?: (observation: GraphCallObservation) => void;
  readonly onStateChange?: (accountId: string) => void;
  /** A message waits for a person. */
  readonly onPerson?: (news: UnclearNews) => void;
  /** Graph asked to leave the mailbox alone for so long. */
  readonly onRest?: (accountId: string, ms: number) => void;
}

/** As the second choice of an account it has more to say. */
export interface GraphWay extends Way {
  /** The same way, where a message that Graph must not be asked for waits with this reply instead of being bounced. */
  orWait(otherwise: Reply): Way;
}

export interface GraphWays {
  /** Undefined for an account without a Graph target or not served. */
  of(accountId: string): GraphWay | undefined;
  /** Makes ready to serve exactly these, by id, as far as they have a Graph target; the result does so at once. Transactions under way finish. */
  prepare(accounts: ReadonlyMap<string, Account>): Steps<() => void>;
  /** `way` for one transaction, where mail of `sender` may have been begun by Graph. `accountIds`: all that can take that mail now. */
  guarded(way: Way, accountIds: readonly string[], sender: string): Way;
  stateOf(accountId: string): AccountState | undefined;
  /** Whether the retry of a message of the account can find out what became of it. */
  canLook(accountId: string): boolean;
  /** The operator changed something: what is paused is tried at the next opportunity. True where anything was. */
  retryNow(accountId: string): boolean;
  breakers(): readonly BreakerState[];
  readonly pauses: GraphPauses;
  /** Waits for what is tidied up, then cuts. */
  close(): Promise<void>;
}

/** A MIME message in base64 takes any octets; what Graph does with international addresses is not documented. */
const CAPABILITIES: Omit<Capabilities, 'size'> = {
  chunking: false,
  pipelining: false,
  eightBitMime: true,
  binaryMime: false,
  smtpUtf8: false,
  dsn: false,
  enhancedStatusCodes: true,
  authMechanisms: [],
};

interface Served {
  readonly account: Account;
  readonly permissions: GraphTarget['permissions'];
  readonly endpoint: UpstreamEndpoint;
  readonly clientFor: (onCall: (observation: GraphCallObservation) => void) => GraphClient;
  readonly health: AccountHealth;
  readonly way: GraphWay;
}

export function createGraphWays(deps: GraphWaysDeps): GraphWays {
  const { tokens, log, clock = systemClock } = deps;
  const tellUnclear = createTellUnclear({ log, clock, onPerson: deps.onPerson });
  const pacing = createGraphPacing(clock);
  const attempts = createAttempts(clock);
  const endpoints = createEndpoints(log, 'Graph', {
    maxOpening: MAX_REQUESTS,
    volume: BREAKER_VOLUME,
    clock,
  });
  let accounts: ReadonlyMap<string, Account> = new Map();
  /** Those of `accounts` that were in use. */
  const served = new Map<string, Served>();
  const healths = createGraphHealths({ pacing, clock, onRest: deps.onRest });
  const working = new Set<Promise<unknown>>();
  const tidying = new Set<Promise<unknown>>();
  let isOver = false;
  /** Accounts that delivered by Graph before a reload changed them. */
  const begun = new Set<string>();

  const endpointOf = (url: string): UpstreamEndpoint => endpoints.named(new URL(url).host);

  function background(work: Promise<unknown>, among = working): void {
    const quiet = work.catch((error: unknown) => log.warn({ err: error }, 'tidying up at Graph failed'));
    among.add(quiet);
    void quiet.then(() => among.delete(quiet));
  }

  const openQuestion = createOpenQuestion((sender) => deps.ledger.hasOpen(sender), clock);

  function deliveryOf(accountId: string, trace: Trace): GraphDelivery | undefined {
    const s = servedOf(accountId);
    if (s === undefined) return undefined;
    const client = s.clientFor((observation) => {
      tellFlight(trace, observation, clock.monotonic());
      deps.onCall?.(observation);
    });
    return createGraphDelivery({
      client,
      ledger: deps.ledger,
      account: accountId,
      permissions: s.permissions,
      clock,
      tidyUp: (work) => background(work, tidying),
      tellUnclear,
    });
  }

  const handoverFor = (account: string, trace: Trace): Handover =>
    createHandover({
      ledger: deps.ledger,
      attempts,
      log,
      tellUnclear,
      clock,
      account,
      deliveryOf: (accountId) => deliveryOf(accountId, trace),
    });

  /** What came of it for the account that did it, and as an ending. */
  function told(ending: GraphEnding, by: string, trace: Trace): Ending {
    const s = served.get(by);
    if (ending.kind === 'taken') {
      trace.upstreamReply = ending.reply;
      s?.endpoint.succeeded(by);
      if (s?.health.succeeded('sending') === true) deps.onStateChange?.(by);
      return { taken: ending.reply };
    }
    const { verdict: heard, refusal: said } = ending;
    if (said !== undefined) trace.upstreamReply = { ...heard.answer, text: describeRefusal(said) };
    if (s?.health.suffered(heard) === true) deps.onStateChange?.(by);
    return { verdict: heard };
  }

  /** `over` is told whether its client has heard that it was sent. */
  function hear(outgoing: Outgoing, ending: GraphEnding, over?: (isClear: boolean) => void): void {
    const { kind, whenHeard } = ending;
    if (whenHeard === undefined) {
      over?.(false);
      return;
    }
    void (kind === 'taken' ? outgoing.heard() : Promise.resolve('no' as const)).then((heard) => {
      over?.(heard === 'yes');
      if (!isOver) background(whenHeard(heard));
    });
  }

  /** What became of a message that goes no further by Graph; undefined: nothing of it is known. */
  async function settle(as: Outgoing, account: string, trace: Trace, mayGoOn: boolean) {
    const settled = await handoverFor(account, trace).settle(as, mayGoOn);
    if (settled !== undefined) hear(as, settled.ending);
    return settled && told(settled.ending, settled.by, trace);
  }

  function serve(account: Account, target: GraphTarget): Served {
    const endpoint = endpointOf(target.url);
    const health = healths.healthOf(account.id);
    const key = keyOf(account, target);
    const mailbox = { account: account.id, url: `${target.url}/${target.mailbox}`, key };
    const maxBytes = Math.min(account.limits.maxBytes, GRAPH_MAX_BYTES);
    const tooLarge = reply(552, '5.3.4', `message is larger than the ${maxBytes} octets Graph takes`);

    const clientFor: Served['clientFor'] = (onCall) =>
      createGraphClient(mailbox, {
        http: deps.http,
        tokens,
        pacing: healths.telling(account.id),
        endpoint,
        log,
        clock,
        onCall,
      });

    async function ready(): Promise<Reply | undefined> {
      const paused = health.gate('sending');
      if (paused !== undefined) return paused.answer;
      const pauseMs = pacing.pausedFor(key);
      if (pauseMs > SHORT_PAUSE_MS)
        return judge({ kind: 'local', cause: 'rate_limited', waitSeconds: Math.ceil(pauseMs / 1_000) })
          .answer;
      if (endpoint.open) return judge({ kind: 'local', cause: 'breaker_open' }).answer;
      if (tokens.peek(account.id, 'graph') !== undefined) return undefined;
      try {
        await tokens.get(account.id, 'graph');
        return undefined;
      } catch (error) {
        if (error instanceof TokenError)
          return judge({
            kind: 'token',
            code: error.code,
            account: account.id,
            detail: error.message,
          }).answer;
        log.error({ err: error, account: account.id }, 'fetching a token failed unexpectedly');
        return judge({ kind: 'local', cause: 'internal' }).answer;
      }
    }

    async function send(
      mail: Mail,
      promised: readonly Recipient[],
      body: readonly Buffer[],
      trace: Trace,
      isClosed: () => boolean,
      facts: WayFacts,
    ): Promise<Ending> {
      const message = Buffer.concat(body);
      const refusal = refusalOf(account, mail, message);
      if (refusal !== undefined) return refusedHere(refusal, facts, 'graph-foreign-sender');
      const recipients = promised.map((r) => r.address);
      const addressed = addressMessage(message, recipients, target.recipients);
      const as = outgoingOf(mail, promised, message, isClosed);
      // The retry of a part is not refused for the header of the whole, which may have been sent.
      if (addressed.kind !== 'ready')
        return (await settle(as, account.id, trace, true)) ?? notAddressed(addressed, facts);
      if (addressed.message.length > MAX_MESSAGE_OCTETS) return refusedHere(tooLarge, facts);
      const startedAt = clock.monotonic();
      const outgoing = { ...as, message: addressed.message };
      const over = openQuestion.begin(outgoing.senderMark);
      const { ending, by } = await handoverFor(account.id, trace).deliver(outgoing);
      hear(outgoing, ending, over);
      trace.upstreamMs = clock.monotonic() - startedAt;
      return told(ending, by, trace);
    }

    const factsWith = (otherwise: Reply | undefined): WayFacts => ({
      recipients: 'at_end',
      body: 'whole',
      maxBytes,
      otherwise,
      capabilities: { ...CAPABILITIES, size: maxBytes },
      withoutDomain: 'refused',
      // A message has one request at a time.
      atOnce: AT_ONCE,
    });
    const createWay = (facts: WayFacts): Way => ({
      account,
      facts,
      ready,
      begin(trace, mayBegin): Delivery {
        let isClosed = false;
        trace.way = 'graph';
        return {
          // No recipient can be asked for.
          ask: async () => ({ kind: 'failed', verdict: judge({ kind: 'local', cause: 'internal' }) }),
          async send(mail, told, body) {
            const refusal = await mayBegin?.();
            if (refusal !== undefined) return { verdict: refusal };
            const work = send(mail, told, body, trace, () => isClosed, facts);
            background(work);
            return work;
          },
          // Only what is larger than can be held comes here.
          open: async () => refusedHere(tooLarge, facts),
          close() {
            isClosed = true;
          },
          // A request cannot be taken back: it is awaited as long as the client can be.
          giveUp() {
            isClosed = true;
          },
        };
      },
    });
    const way: GraphWay = {
      ...createWay(factsWith(undefined)),
      orWait: (otherwise) => createWay(factsWith(otherwise)),
    };
    return { account, permissions: target.permissions, endpoint, health, way, clientFor };
  }

  function servedOf(accountId: string): Served | undefined {
    const known = served.get(accountId);
    if (known !== undefined) return known;
    const account = accounts.get(accountId);
    const target = targetOf(account);
    if (account === undefined || target === undefined) return undefined;
    const made = serve(account, target);
    served.set(accountId, made);
    return made;
  }

  const sweep = createSweep({
    ledger: deps.ledger,
    clientOf(accountId) {
      const s = servedOf(accountId);
      if (s?.permissions !== 'read_write') return undefined;
      return s.clientFor((observation) => deps.onCall?.(observation));
    },
    log,
    clock,
  });

  return {
    of: (accountId) => servedOf(accountId)?.way,
    *prepare(wanted) {
      const perUrl = new Map<string, number>();
      for (const account of wanted.values()) {
        yield;
        const target = targetOf(account);
        if (target !== undefined) perUrl.set(target.url, (perUrl.get(target.url) ?? 0) + 1);
      }
      return () => {
        accounts = wanted;
        healths.keepOnly(wanted);
        for (const [id, { account }] of served)
          if (wanted.get(id) !== account) {
            begun.add(id);
            served.delete(id);
          }
        endpoints.keepOnly(new Set([...perUrl.keys()].map((url) => new URL(url).host)));
        for (const endpoint of endpoints.all.values()) endpoint.accounts = 0;
        for (const [url, count] of perUrl) endpointOf(url).accounts += count;
      };
    },
    guarded(way, accountIds, sender) {
      const mayHaveBegun = (id: string): boolean => begun.has(id) || targetOf(accounts.get(id)) !== undefined;
      // Whoever began a message may be gone since, or never have been its sender's in this process.
      return createGuardedWay(way, {
        mayBeKnown: accountIds.some(mayHaveBegun)
          ? () => deps.ledger.hasAny()
          : () => openQuestion.isOpen(() => senderMark(sender)),
        settle: (mail, promised, message, trace, isClosed) =>
          settle(outgoingOf(mail, promised, message, isClosed), way.account.id, trace, false),
      });
    },
    stateOf(accountId) {
      const account = accounts.get(accountId);
      const target = targetOf(account);
      if (account === undefined || target === undefined) return undefined;
      const state = healths.stateOf(accountId);
      const pauseMs = pacing.pausedFor(keyOf(account, target));
      if (state.status === 'ready' && pauseMs > SHORT_PAUSE_MS)
        return { status: 'throttled', reason: 'Graph asked to wait', until: clock.now() + pauseMs };
      return state;
    },
    canLook: (accountId) => targetOf(accounts.get(accountId))?.permissions === 'read_write',
    retryNow: healths.retryNow,
    breakers: endpoints.breakers,
    pauses: healths,
    async close() {
      isOver = true;
      attempts.close();
      sweep.close();
      await Promise.all(working);
      await orAfter(clock, Promise.all(tidying), TIDY_MS);
    },
  };
}
