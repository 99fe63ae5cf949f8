/**
 * The transaction rule: defer until it matters. In: one client transaction, command by command.
 * Out: a reply each, and the message upstream at most once. With one recipient nothing is sent before
 * the body is there, then everything leaves in one flight; from the second recipient on each RCPT gets
 * the provider's live reply. 250 only after the provider's 250. Owns the lease it holds and the octets
 * it has not sent yet.
 */
import { fitParameters, type Recipient } from '../protocol/esmtp.ts';
import { isPositive, type Reply, reply } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import { judge, type Verdict } from '../protocol/verdict.ts';
import type { BodyStream, Decision, Submission } from '../upstream/submission.ts';
import { isHeaderMiscount, isUnknownCommand } from '../upstream/submission.ts';
import type { AccountUpstream } from '../upstream/upstream.ts';
import { type Attempt, type AttemptFigures, createAttempts, type Open } from './attempts.ts';
import type { Outcome } from './record.ts';
import type { BodyWriter, MailCommand, Transaction } from './relay.ts';

const MAIL_OK = reply(250, '2.1.0', 'sender ok');
const RCPT_OK = reply(250, '2.1.5', 'recipient ok');
/** The first recipient was refused after we had said 250 for it: the others go in a transaction of their own. */
const SEND_SEPARATELY = reply(452, '4.5.3', 'send this recipient in another transaction');

export const mailAccepted: Reply = MAIL_OK;

export interface TransactionOptions {
  /** Bodies up to this many octets are held whole and can be replayed. */
  readonly replayBytes: number;
  /** How long a message waits in all for a provider that takes too many of this account at once, ms. */
  readonly busyWaitMs: number;
}

/** What the record of a transaction needs and only the rule knows. */
export interface Ending extends AttemptFigures {
  readonly recipients: readonly string[];
  readonly bytes: number;
  readonly outcome: Outcome;
  readonly reply: Reply | undefined;
  readonly decidedBy: 'upstream' | 'relay';
  /** Nothing of it was sent upstream: its place in the rate limit is free again. */
  readonly unsent: boolean;
}

export interface TransactionDeps {
  readonly id: string;
  readonly command: MailCommand;
  readonly upstream: AccountUpstream;
  /** An error of ours, not of the upstream. */
  readonly onInternalError: (error: unknown) => void;
  /** Called once, at the end. */
  readonly onEnd: (ending: Ending) => void;
}

export function createTransaction(deps: TransactionDeps, options: TransactionOptions): Transaction {
  const { upstream } = deps;
  let { command } = deps;
  const { account } = command;
  const recipients: Recipient[] = [];
  /** The upstream has (some of) the envelope. */
  let open: Open | undefined;
  /** The provider refused MAIL or the first recipient: nothing more can come of this transaction. */
  let refused: { readonly verdict: Verdict; readonly whole: boolean } | undefined;
  let ended = false;
  /** The client left while its message was waiting to be sent: nobody would hear the 250, so it is not sent. */
  let clientGone = false;
  let bytes = 0;
  let cutBody: ((reason: string) => void) | undefined;
  const letGo = upstream.hold();
  const attempts = createAttempts(
    {
      upstream,
      sender: command.sender,
      isClientGone: () => clientGone,
      onInternalError: deps.onInternalError,
    },
    options,
  );

  function finish(outcome: Outcome, answer: Reply | undefined): void {
    if (ended) return;
    ended = true;
    closeOpen();
    letGo();
    const f = attempts.figures();
    // Written out: a spread costs microseconds, and this is every message.
    deps.onEnd({
      recipients: recipients.map((r) => r.address),
      bytes,
      outcome,
      reply: answer,
      decidedBy: f.upstreamReply === undefined ? 'relay' : 'upstream',
      upstreamReply: f.upstreamReply,
      flights: f.flights,
      reused: f.reused,
      replayed: f.replayed,
      connection: f.connection,
      acquireMs: f.acquireMs,
      upstreamMs: f.upstreamMs,
      unsent: f.flights === 0,
    });
  }

  /** Gives the connection back; what was begun on it is reset before its next use. */
  function closeOpen(): void {
    open?.lease.release();
    open = undefined;
  }

  function finishRefused(verdict: Verdict): Reply {
    const { answer } = verdict;
    if (verdict.class === 'unknown') finish('unknown', answer);
    else if (clientGone) finish('aborted', undefined);
    else finish(answer.code >= 500 ? 'rejected' : 'deferred', answer);
    return answer;
  }

  function finishDecided(decision: Decision): Reply {
    attempts.taken(decision.reply);
    upstream.delivered();
    finish('relayed', decision.reply);
    return decision.reply;
  }

  /** MAIL and all recipients we said 250 for; each must be accepted again. */
  async function repeatEnvelope(submission: Submission): Promise<Decision | undefined> {
    const envelope = await submission.sendEnvelope(command, recipients);
    if (envelope.refusal !== undefined) return envelope.refusal;
    const changed = envelope.recipients.find((r) => !isPositive(r));
    // We said 250 for it, so it cannot be refused alone any more: the whole message waits (never a hidden loss).
    return changed === undefined
      ? undefined
      : { stage: 'rcpt', reply: { ...changed, code: 451, enhanced: '4.5.0' } };
  }

  async function secondRecipient(recipient: Recipient): Promise<Reply> {
    const both = [...recipients, recipient];
    let first: ParsedReply | undefined;
    let last: ParsedReply | undefined;
    const result = await attempts.run(async (s) => {
      const envelope = await s.sendEnvelope(command, both);
      first = envelope.recipients[0];
      last = envelope.recipients.at(-1);
      return envelope;
    });
    if ('verdict' in result) {
      // A verdict on MAIL is final for all; trouble of ours concerns this recipient, the others may still go.
      if (attempts.figures().upstreamReply !== undefined) refused = { verdict: result.verdict, whole: true };
      return result.verdict.answer;
    }
    if (ended) {
      // The client left meanwhile.
      result.open.lease.release();
      return SEND_SEPARATELY;
    }
    open = result.open;
    if (first !== undefined && !isPositive(first)) {
      refused = { verdict: attempts.judge({ stage: 'rcpt', reply: first }, open.submission), whole: false };
      upstream.report(refused.verdict);
      closeOpen();
      return SEND_SEPARATELY;
    }
    return acceptOrJudge(recipient, last, open);
  }

  function acceptOrJudge(recipient: Recipient, r: ParsedReply | undefined, on: Open): Reply {
    if (r === undefined || !isPositive(r)) {
      if (r === undefined) return reply(451, '4.4.2', 'upstream gave no reply for this recipient');
      const verdict = judge({
        kind: 'reply',
        stage: 'rcpt',
        reply: r,
        reused: on.submission.reused,
        account: account.id,
      });
      upstream.report(verdict);
      return verdict.answer;
    }
    recipients.push(recipient);
    return r;
  }

  async function furtherRecipient(recipient: Recipient, on: Open): Promise<Reply> {
    try {
      return acceptOrJudge(recipient, (await on.submission.addRecipients([recipient]))[0], on);
    } catch (error) {
      attempts.verdictOf(error);
      // The accepted ones are known and the body is still to come: the envelope is repeated then.
      closeOpen();
      return reply(451, '4.4.2', 'upstream connection lost, send this recipient again');
    }
  }

  return {
    id: deps.id,

    async rcpt(address, parameters) {
      if (recipients.length >= account.limits.maxRecipients)
        return reply(452, '4.5.3', `at most ${account.limits.maxRecipients} recipients a message`);
      if (refused !== undefined) return refused.whole ? refused.verdict.answer : SEND_SEPARATELY;
      let fitted: readonly string[] = parameters;
      if (upstream.capabilities !== undefined && parameters.length > 0) {
        const result = fitParameters(parameters, upstream.capabilities);
        if ('refusal' in result) return result.refusal;
        fitted = result.parameters;
      }
      const recipient = { address, parameters: fitted };
      if (open !== undefined) return furtherRecipient(recipient, open);
      if (recipients.length > 0) return secondRecipient(recipient);
      recipients.push(recipient);
      return RCPT_OK;
    },

    refusalAtData() {
      if (refused === undefined) return undefined;
      finishRefused(refused.verdict);
      return refused.verdict.answer;
    },

    abort(reason) {
      if (cutBody !== undefined) cutBody(reason);
      else finish('aborted', undefined);
    },

    body() {
      const writer = createBody();
      cutBody = writer.cut;
      return writer;
    },
  };

  function createBody(): BodyWriter {
    let chunks: Buffer[] = [];
    let stream: BodyStream | undefined;
    /** Decided before the end of the body: the rest is read and dropped. */
    let failed: Verdict | undefined;
    let starting = false;
    let ending = false;
    let cutOff = false;

    /** Too large to hold: the envelope goes out, and what is held starts the stream. */
    async function startStream(): Promise<void> {
      if (open === undefined) {
        const result = await attempts.run(async (s) => ({ refusal: await repeatEnvelope(s) }));
        if ('verdict' in result) {
          failed = result.verdict;
          chunks = [];
          return;
        }
        open = result.open;
      }
      if (cutOff) return;
      try {
        stream = await open.submission.startStream();
        for (const chunk of chunks) await stream.push(chunk);
      } catch (error) {
        failed = attempts.verdictOf(error);
        upstream.report(failed);
      }
      chunks = [];
    }

    async function start(): Promise<void> {
      starting = true;
      await startStream();
      starting = false;
      if (cutOff) drop();
    }

    /** The client is gone: cut the connection before the last octet, so that no fragment is delivered. */
    function drop(): void {
      if (stream !== undefined) open?.lease.connection.destroy();
      stream = undefined;
      chunks = [];
      closeOpen();
      finish('aborted', undefined);
    }

    async function endStream(of: BodyStream, on: Open): Promise<Reply> {
      try {
        const decision = await of.finish();
        if (isPositive(decision.reply)) return finishDecided(decision);
        const verdict = attempts.judge(decision, on.submission);
        if (
          on.submission.usesBdat &&
          (isUnknownCommand(decision.reply) || isHeaderMiscount(decision.reply))
        ) {
          upstream.refuseBdat(on.lease.connection);
          on.lease.connection.destroy();
          return finishRefused({
            ...verdict,
            answer: reply(451, '4.3.0', 'upstream refused BDAT, send again'),
          });
        }
        upstream.report(verdict);
        return finishRefused(verdict);
      } catch (error) {
        const verdict = attempts.verdictOf(error);
        upstream.report(verdict);
        return finishRefused(verdict);
      }
    }

    async function endHeld(): Promise<Reply> {
      const body = chunks;
      const [only] = recipients;
      const begun = open;
      open = undefined;
      let result: Attempt<{ readonly refusal: Decision | undefined; readonly decision: Decision }>;
      const split = (decision: Decision) => ({
        decision,
        refusal: isPositive(decision.reply) ? undefined : decision,
      });
      if (begun === undefined && recipients.length === 1 && only !== undefined) {
        result = await attempts.run(async (s) => split(await s.sendWhole(command, only, body, bytes)));
      } else {
        let repeat = begun === undefined;
        result = await attempts.run(async (s) => {
          if (repeat) {
            const refusal = await repeatEnvelope(s);
            if (refusal !== undefined) return split(refusal);
          }
          repeat = true;
          return split(await s.sendBody(body, bytes));
        }, begun);
      }
      chunks = [];
      if ('verdict' in result) return finishRefused(result.verdict);
      open = result.open;
      return finishDecided(result.ok.decision);
    }

    return {
      write(chunk) {
        if (cutOff || ended) return undefined;
        bytes += chunk.length;
        if (failed !== undefined) return undefined;
        if (stream !== undefined) return stream.push(chunk);
        chunks.push(chunk);
        return bytes <= options.replayBytes ? undefined : start();
      },

      sizeChanged() {
        command = { ...command, parameters: command.parameters.filter((p) => !/^SIZE=/i.test(p)) };
      },

      async end() {
        if (ending || cutOff || ended) return reply(451, '4.3.0', 'transaction is over');
        ending = true;
        if (failed !== undefined) return finishRefused(failed);
        if (stream !== undefined && open !== undefined) return endStream(stream, open);
        return endHeld();
      },

      cut(_reason) {
        if (cutOff || ended) return;
        if (ending) {
          clientGone = true;
          return;
        }
        cutOff = true;
        // While the stream is being started, start() sees the cut and drops it.
        if (!starting) drop();
      },
    };
  }
}
