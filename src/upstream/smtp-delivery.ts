/**
 * One message by SMTP. In: what the relay asks for. Out: what the provider said. With one recipient
 * nothing is sent before the body is there, then everything leaves together; recipients that are asked
 * for are asked live. Owns the connection it holds, the one replay of a connection that was lost before
 * the final octet, and the waiting for a busy provider.
 */
import { type Clock, nap } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Mail, Recipient } from '../protocol/esmtp.ts';
import { isPositive, isTemporary, type Reply } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import { judge, type Verdict } from '../protocol/verdict.ts';
import type { Decision, SubmissionStream } from './data-stream.ts';
import { asUpstreamError, lost, UpstreamError } from './failure.ts';
import { createHeldBack } from './held-back.ts';
import type { Lease } from './pool.ts';
import { isHeaderMiscount, isUnknownCommand } from './reply-kinds.ts';
import { Submission } from './submission.ts';
import { ALIVE_TIMEOUT_MS } from './timeouts.ts';
import type { AccountUpstream } from './upstream.ts';
import type { BodyStream, Delivery, Ending, MayBegin, Trace } from './way.ts';

/** Pause before a message is offered again to a provider that is busy with this account. */
const BUSY_PAUSE_MS = { least: 1_000, most: 5_000 };

export interface SmtpDeliveryDeps {
  readonly upstream: AccountUpstream;
  readonly trace: Trace;
  readonly mayBegin?: MayBegin | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: () => number;
}

/** A connection on lease, with the dialogue on it. */
interface Open {
  readonly lease: Lease;
  readonly submission: Submission;
}

/** What a talk came to: a refusal that decides, or nothing in the way. */
interface Talk {
  readonly refusal: Decision | undefined;
}

/** Clients exist that take nothing but 250, and 251 to RCPT, for a yes: what is a yes by its first digit is told them as one. */
const inKnownCode = (r: Reply): Reply => (r.code === 250 || r.code === 251 ? r : { ...r, code: 250 });

const OUTCOME_UNKNOWN = lost('end', 'garbage', 'upstream answered out of step', {
  reused: false,
  finalByteSent: true,
}).verdict;

export function createSmtpDelivery(
  deps: SmtpDeliveryDeps,
  options: { readonly busyWaitMs: number },
): Delivery {
  const { upstream, trace, log, clock } = deps;
  const { account } = upstream;
  const letGo = upstream.hold();
  /** The connection that has the envelope of all `confirmed`. */
  let open: Open | undefined;
  /** Recipients the provider itself accepted: wherever the envelope is repeated it must accept them again. */
  let confirmed: readonly Recipient[] = [];
  /** The dialogue under way. */
  let talking: Submission | undefined;
  /** `talking`: an answer is awaited. `streaming`: a body is on its way. */
  let phase: 'resting' | 'talking' | 'streaming' = 'resting';
  let isClosed = false;
  let startedAt: number | undefined;
  /** When the transaction was replayed, monotonic: connections not heard since may be as dead as the one that was lost. */
  let replayedAt = Number.NEGATIVE_INFINITY;
  /** Of the pause before it is tried again. */
  let endPause = (): void => {};

  const elapsed = (): void => {
    if (startedAt !== undefined) trace.upstreamMs = clock.monotonic() - startedAt;
  };

  function verdictOf(error: unknown): Verdict {
    if (!(error instanceof UpstreamError))
      log.error({ err: error, account: account.id }, 'talking to the upstream failed unexpectedly');
    return asUpstreamError(error).verdict;
  }

  const judged = ({ stage, reply }: Decision, sender?: string): Verdict =>
    judge({
      kind: 'reply',
      stage,
      reply,
      account: account.id,
      ...(sender === undefined ? {} : { sender }),
    });

  function decided(decision: Decision, sender: string): Verdict {
    trace.upstreamReply = decision.reply;
    return judged(decision, sender);
  }

  function release(): void {
    open?.lease.release();
    open = undefined;
  }

  async function acquire(): Promise<Open> {
    const since = clock.monotonic();
    try {
      let askingMs = ALIVE_TIMEOUT_MS;
      for (let tries = account.limits.maxConnections; ; tries--) {
        const lease = await upstream.acquire();
        const { connection } = lease;
        const submission = new Submission(connection, upstream.mayUseBdat(connection), trace);
        const askedAt = clock.monotonic();
        const isHeard = askedAt - connection.quietMs >= replayedAt;
        if (isHeard || tries <= 0 || (await submission.isAlive(askingMs))) {
          trace.connection = connection.id;
          trace.reused = submission.reused;
          return { lease, submission };
        }
        askingMs -= clock.monotonic() - askedAt;
        lease.release();
      }
    } finally {
      trace.acquireMs += clock.monotonic() - since;
    }
  }

  /** It offered CHUNKING and does not know BDAT, or miscounts: by DATA from now on. */
  function unlearnsBdat({ stage, reply }: Decision, on: Open): boolean {
    const isUnlearnt =
      on.submission.usesBdat && stage === 'end' && (isUnknownCommand(reply) || isHeaderMiscount(reply));
    if (isUnlearnt) upstream.refuseBdat(on.lease.connection);
    return isUnlearnt;
  }

  /** Nothing of the message can have been taken: it may be said once more. */
  function isLossBeforeEnd(error: unknown): boolean {
    const event = error instanceof UpstreamError ? error.event : undefined;
    return event?.kind === 'lost' && !event.finalByteSent && event.stage !== 'connect';
  }

  const isOver = ({ stage, reply }: Decision): boolean => reply.code === 421 && stage !== 'end';

  /** Refused ahead of a yes to the body, and it would be said again, by us or by the client: the server may have the message. */
  const mayBeTaken = (decision: Decision, { retry }: Verdict): boolean =>
    decision.isContradicted === true && (isTemporary(decision.reply) || retry !== 'none');

  /**
   * Runs `talk` until it is decided: on the connection that has the envelope (`isBegun`), else on a
   * fresh lease. What was lost or is out of step is replayed once; a busy provider is waited for.
   */
  async function run<T extends Talk>(
    mail: Mail,
    told: readonly Recipient[],
    talk: (submission: Submission, isBegun: boolean) => Promise<T>,
  ): Promise<{ readonly done: T; readonly on: Open } | { readonly verdict: Verdict }> {
    const since = clock.monotonic();
    const busyUntil = since + options.busyWaitMs;
    phase = 'talking';
    // Somebody in it whom the provider has not heard of: the envelope is said anew, or he would be lost.
    if (told.length > confirmed.length) release();
    try {
      for (;;) {
        let on = open;
        const isBegun = on !== undefined;
        open = undefined;
        let verdict: Verdict;
        let isReplayable: boolean;
        try {
          if (!isClosed && on === undefined) on = await acquire();
          // With the connection in hand: a message counts when the provider hears of it.
          const asked = isClosed || isBegun ? undefined : deps.mayBegin?.();
          const refusal = asked === undefined ? undefined : await asked;
          if (isClosed || on === undefined) throw new UpstreamError({ kind: 'local', cause: 'client_gone' });
          if (refusal !== undefined) {
            on.lease.release();
            return { verdict: refusal };
          }
          startedAt ??= clock.monotonic();
          talking = on.submission;
          talking.waitsSince = since;
          const done = await talk(on.submission, isBegun);
          if (done.refusal === undefined) {
            open = on;
            return { done, on };
          }
          verdict = decided(done.refusal, mail.sender);
          isReplayable = unlearnsBdat(done.refusal, on) || verdict.retry === 'fresh' || isOver(done.refusal);
          if (mayBeTaken(done.refusal, verdict)) {
            verdict = OUTCOME_UNKNOWN;
            isReplayable = false;
          }
        } catch (error) {
          verdict = verdictOf(error);
          isReplayable = verdict.retry === 'fresh' || isLossBeforeEnd(error);
        }
        // Over, or out of step: whatever it would say next is no answer to a message.
        if (isReplayable) on?.lease.connection.destroy();
        on?.lease.release();
        if (isReplayable && on !== undefined && !trace.replayed && !isClosed) {
          trace.replayed = true;
          trace.upstreamReply = undefined;
          replayedAt = clock.monotonic();
          continue;
        }
        if (on !== undefined) upstream.report(verdict, trace);
        if (verdict.retry !== 'wait' || isClosed || clock.monotonic() >= busyUntil) return { verdict };
        const { least, most } = BUSY_PAUSE_MS;
        const pause = nap(clock, least + deps.random() * (most - least));
        endPause = pause.wake;
        await pause.over;
      }
    } finally {
      phase = 'resting';
      elapsed();
      if (isClosed) free();
    }
  }

  function free(): void {
    // Cut before the last octet, so that no fragment is delivered.
    if (phase === 'streaming') open?.lease.connection.destroy();
    release();
    letGo();
  }

  /** Somebody heard 250 and is refused now: nobody gets the message, and it comes again (never a hidden loss). */
  const comeAgain = (r: ParsedReply): Decision => ({
    stage: 'rcpt',
    reply: { ...r, code: 451, enhanced: '4.5.0' },
  });

  /** MAIL and all recipients that heard 250; each must be accepted. */
  async function envelopeFor(
    submission: Submission,
    mail: Mail,
    told: readonly Recipient[],
  ): Promise<Decision | undefined> {
    const envelope = await submission.sendEnvelope(mail, told);
    if (envelope.refusal !== undefined) return repeated(envelope.refusal);
    const reply = envelope.recipients.find((r) => !isPositive(r));
    if (reply === undefined) return undefined;
    // One that was only promised, alone: its refusal is the provider's verdict on the message.
    return told.length === 1 && confirmed.length === 0 ? { stage: 'rcpt', reply } : comeAgain(reply);
  }

  /** A refused MAIL is no bounce either where it was accepted before. */
  const repeated = (refusal: Decision): Decision =>
    confirmed.length === 0 || isTemporary(refusal.reply) ? refusal : comeAgain(refusal.reply);

  function taken(reply: Reply): Ending {
    trace.upstreamReply = reply;
    upstream.delivered();
    return { taken: inKnownCode(reply) };
  }

  const split = (decision: Decision): Talk & { readonly decision: Decision } => ({
    decision,
    refusal: isPositive(decision.reply) ? undefined : decision,
  });

  /** A reply to RCPT that is none to this recipient: the connection is over, or out of step. */
  function strayReply(replies: readonly ParsedReply[]): Decision | undefined {
    for (const reply of replies) {
      if (isPositive(reply)) continue;
      const decision: Decision = { stage: 'rcpt', reply };
      if (isOver(decision) || judged(decision).retry !== 'none') return decision;
    }
    return undefined;
  }

  function close(): void {
    if (isClosed) return;
    isClosed = true;
    endPause();
    talking?.abandon();
    if (phase !== 'talking') free();
  }

  return {
    async ask(mail, told, asked) {
      let isRefusedAtMail = false;
      const result = await run(mail, told, async (submission, isBegun) => {
        isRefusedAtMail = false;
        if (isBegun) {
          const replies = await submission.addRecipients(asked);
          return { refusal: strayReply(replies), replies, first: told.length };
        }
        const { refusal, recipients: replies } = await submission.sendEnvelope(mail, [...told, ...asked]);
        isRefusedAtMail = refusal !== undefined;
        return {
          refusal: refusal === undefined ? strayReply(replies) : repeated(refusal),
          replies,
          first: 0,
        };
      });
      if ('verdict' in result) {
        const { verdict } = result;
        if (isRefusedAtMail && trace.upstreamReply !== undefined)
          return { kind: 'refused', verdict, concerns: 'everybody' };
        trace.upstreamReply = undefined;
        return { kind: 'failed', verdict };
      }
      const { done } = result;
      const replies = [...done.replies];
      const repeatedReplies = replies.splice(0, told.length - done.first);
      const broken = repeatedReplies.find((r) => !isPositive(r));
      if (broken !== undefined) {
        const isPromise = confirmed.length === 0;
        const verdict = decided(
          isPromise ? { stage: 'rcpt', reply: broken } : comeAgain(broken),
          mail.sender,
        );
        upstream.report(verdict, trace);
        release();
        return { kind: 'refused', verdict, concerns: isPromise ? 'first' : 'everybody' };
      }
      confirmed = [...told, ...asked.filter((_, i) => isPositive(replies[i] ?? { code: 0, text: '' }))];
      return {
        kind: 'heard',
        replies: replies.map((reply) => {
          if (isPositive(reply)) return inKnownCode(reply);
          const verdict = judged({ stage: 'rcpt', reply });
          upstream.report(verdict, trace);
          return verdict.answer;
        }),
      };
    },

    async send(mail, told, body, octets) {
      const [only] = told;
      const result = await run(mail, told, async (submission, isBegun) => {
        if (isBegun) return split(await submission.sendBody(body, octets));
        if (only !== undefined && told.length === 1 && confirmed.length === 0)
          return split(await submission.sendWhole(mail, only, body, octets));
        const refusal = await envelopeFor(submission, mail, told);
        return refusal === undefined ? split(await submission.sendBody(body, octets)) : split(refusal);
      });
      return 'verdict' in result ? result : taken(result.done.decision.reply);
    },

    async open(mail, told) {
      const since = clock.monotonic();
      const result = await run(mail, told, async (submission, isBegun) => {
        const refusal = isBegun ? undefined : await envelopeFor(submission, mail, told);
        if (refusal !== undefined) return { refusal, stream: undefined };
        return submission.startStream();
      });
      if ('verdict' in result) return result;
      const { stream } = result.done;
      if (stream === undefined) return { verdict: judge({ kind: 'local', cause: 'internal' }) };
      phase = 'streaming';
      return { stream: streamOn(result.on, stream, mail, clock.monotonic() - since) };
    },

    close,
    giveUp() {
      close();
      if (phase === 'talking') talking?.giveUp();
    },
  };

  function streamOn(on: Open, stream: SubmissionStream, mail: Mail, openingMs: number): BodyStream {
    const held = createHeldBack(clock, openingMs);
    return {
      push: (chunk) => held.push(chunk.length, stream.push(chunk)),
      async finish() {
        phase = 'talking';
        on.submission.waitsSince = clock.monotonic() - held.ms();
        try {
          const decision = await stream.finish();
          if (isPositive(decision.reply)) return taken(decision.reply);
          const verdict = decided(decision, mail.sender);
          if (unlearnsBdat({ ...decision, stage: 'end' }, on))
            return { verdict: { ...verdict, answer: { ...verdict.answer, code: 451, enhanced: '4.3.0' } } };
          upstream.report(verdict, trace);
          return { verdict };
        } catch (error) {
          const verdict = verdictOf(error);
          upstream.report(verdict, trace);
          return { verdict };
        } finally {
          phase = 'resting';
          elapsed();
          if (isClosed) free();
        }
      },
    };
  }
}
