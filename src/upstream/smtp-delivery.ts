/**
 * One message by SMTP. In: what the relay asks for. Out: what the provider said. With one recipient
 * nothing is sent before the body is there, then everything leaves together; recipients that are asked
 * for are asked live. Owns the connection it holds, the one replay of a connection that was lost before
 * the final octet, and the waiting for a busy provider.
 */
import type { Account } from '../accounts/account.ts';
import { type Clock, nap } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Mail, Recipient } from '../protocol/esmtp.ts';
import { isPositive, isTemporary, type Reply } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import { judge, type Verdict } from '../protocol/verdict.ts';
import type { AccountUpstream } from './account-upstream.ts';
import { asUpstreamError, lost, UpstreamError } from './failure.ts';
import { createHeldBack } from './held-back.ts';
import type { Lease } from './pool.ts';
import { isHeaderMiscount, isUnknownCommand } from './reply-kinds.ts';
import { Submission } from './submission.ts';
import {
  comeAgain,
  type Decision,
  isLossBeforeEnd,
  isOver,
  mayBeTaken,
  type SubmissionStream,
  split,
  type Talk,
} from './talk.ts';
import { ALIVE_TIMEOUT_MS } from './timeouts.ts';
import type { Asked, BodyStream, Delivery, Ending, MayBegin, Trace } from './way.ts';

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

/** Clients exist that take nothing but 250, and 251 to RCPT, for a yes: what is a yes by its first digit is told them as one. */
const inKnownCode = (r: Reply): Reply => (r.code === 250 || r.code === 251 ? r : { ...r, code: 250 });

const OUTCOME_UNKNOWN = lost('end', 'garbage', 'upstream answered out of step', {
  reused: false,
  finalByteSent: true,
}).verdict;

/** A class: closures of each message would cost more than it does. */
export class SmtpDelivery implements Delivery {
  readonly #deps: SmtpDeliveryDeps;
  readonly #upstream: AccountUpstream;
  readonly #account: Account;
  readonly #trace: Trace;
  readonly #clock: Clock;
  readonly #busyWaitMs: number;
  readonly #letGo: () => void;
  /** The connection that has the envelope of all `#confirmed`. */
  #open: Open | undefined;
  /** Recipients the provider itself accepted: wherever the envelope is repeated it must accept them again. */
  #confirmed: readonly Recipient[] = [];
  /** The dialogue under way. */
  #talking: Submission | undefined;
  /** `talking`: an answer is awaited. `streaming`: a body is on its way. */
  #phase: 'resting' | 'talking' | 'streaming' = 'resting';
  #isClosed = false;
  #startedAt: number | undefined;
  /** When the transaction was replayed, monotonic: connections not heard since may be as dead as the one that was lost. */
  #replayedAt = Number.NEGATIVE_INFINITY;
  /** Of the pause before it is tried again. */
  #endPause: (() => void) | undefined;

  constructor(deps: SmtpDeliveryDeps, { busyWaitMs }: { readonly busyWaitMs: number }) {
    this.#deps = deps;
    this.#upstream = deps.upstream;
    this.#account = deps.upstream.account;
    this.#trace = deps.trace;
    this.#clock = deps.clock;
    this.#busyWaitMs = busyWaitMs;
    this.#letGo = deps.upstream.hold();
  }

  async ask(mail: Mail, told: readonly Recipient[], asked: readonly Recipient[]): Promise<Asked> {
    let isRefusedAtMail = false;
    const result = await this.#run(mail, told, async (submission, isBegun) => {
      isRefusedAtMail = false;
      if (isBegun) {
        const replies = await submission.addRecipients(asked);
        return { refusal: this.#strayReply(replies), replies, first: told.length };
      }
      const { refusal, recipients: replies } = await submission.sendEnvelope(mail, [...told, ...asked]);
      isRefusedAtMail = refusal !== undefined;
      return {
        refusal: refusal === undefined ? this.#strayReply(replies) : this.#repeated(refusal),
        replies,
        first: 0,
      };
    });
    if ('verdict' in result) {
      const { verdict } = result;
      if (isRefusedAtMail && this.#trace.upstreamReply !== undefined)
        return { kind: 'refused', verdict, concerns: 'everybody' };
      this.#trace.upstreamReply = undefined;
      return { kind: 'failed', verdict };
    }
    const { done } = result;
    const replies = [...done.replies];
    const repeatedReplies = replies.splice(0, told.length - done.first);
    const broken = repeatedReplies.find((r) => !isPositive(r));
    if (broken !== undefined) {
      const isPromise = this.#confirmed.length === 0;
      const verdict = this.#decided(
        isPromise ? { stage: 'rcpt', reply: broken } : comeAgain(broken),
        mail.sender,
      );
      this.#upstream.report(verdict, this.#trace);
      this.#release();
      return { kind: 'refused', verdict, concerns: isPromise ? 'first' : 'everybody' };
    }
    this.#confirmed = [...told, ...asked.filter((_, i) => isPositive(replies[i] ?? { code: 0, text: '' }))];
    return {
      kind: 'heard',
      replies: replies.map((reply) => {
        if (isPositive(reply)) return inKnownCode(reply);
        const verdict = this.#judged({ stage: 'rcpt', reply });
        this.#upstream.report(verdict, this.#trace);
        return verdict.answer;
      }),
    };
  }

  async send(
    mail: Mail,
    told: readonly Recipient[],
    body: readonly Buffer[],
    octets: number,
  ): Promise<Ending> {
    const [only] = told;
    const result = await this.#run(mail, told, async (submission, isBegun) => {
      if (isBegun) return split(await submission.sendBody(body, octets));
      if (only !== undefined && told.length === 1 && this.#confirmed.length === 0)
        return split(await submission.sendWhole(mail, only, body, octets));
      const refusal = await this.#envelopeFor(submission, mail, told);
      return refusal === undefined ? split(await submission.sendBody(body, octets)) : split(refusal);
    });
    return 'verdict' in result ? result : this.#taken(result.done.decision.reply);
  }

  async open(mail: Mail, told: readonly Recipient[]): ReturnType<Delivery['open']> {
    const since = this.#clock.monotonic();
    const result = await this.#run(mail, told, async (submission, isBegun) => {
      const refusal = isBegun ? undefined : await this.#envelopeFor(submission, mail, told);
      if (refusal !== undefined) return { refusal, stream: undefined };
      return submission.startStream();
    });
    if ('verdict' in result) return result;
    const { stream } = result.done;
    if (stream === undefined) return { verdict: judge({ kind: 'local', cause: 'internal' }) };
    this.#phase = 'streaming';
    return { stream: this.#streamOn(result.on, stream, mail, this.#clock.monotonic() - since) };
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#endPause?.();
    this.#talking?.abandon();
    if (this.#phase !== 'talking') this.#free();
  }

  giveUp(): void {
    this.close();
    if (this.#phase === 'talking') this.#talking?.giveUp();
  }

  #elapsed(): void {
    if (this.#startedAt !== undefined) this.#trace.upstreamMs = this.#clock.monotonic() - this.#startedAt;
  }

  #verdictOf(error: unknown): Verdict {
    if (!(error instanceof UpstreamError))
      this.#deps.log.error(
        { err: error, account: this.#account.id },
        'talking to the upstream failed unexpectedly',
      );
    return asUpstreamError(error).verdict;
  }

  #judged({ stage, reply }: Decision, sender?: string): Verdict {
    return judge({
      kind: 'reply',
      stage,
      reply,
      account: this.#account.id,
      ...(sender === undefined ? {} : { sender }),
    });
  }

  #decided(decision: Decision, sender: string): Verdict {
    this.#trace.upstreamReply = decision.reply;
    return this.#judged(decision, sender);
  }

  #release(): void {
    this.#open?.lease.release();
    this.#open = undefined;
  }

  async #acquire(): Promise<Open> {
    const since = this.#clock.monotonic();
    try {
      let askingMs = ALIVE_TIMEOUT_MS;
      for (let tries = this.#account.limits.maxConnections; ; tries--) {
        const lease = await this.#upstream.acquire();
        const { connection } = lease;
        const submission = new Submission(connection, this.#upstream.mayUseBdat(connection), this.#trace);
        const askedAt = this.#clock.monotonic();
        const isHeard = askedAt - connection.quietMs >= this.#replayedAt;
        if (isHeard || tries <= 0 || (await submission.isAlive(askingMs))) {
          this.#trace.connection = connection.id;
          this.#trace.reused = submission.reused;
          return { lease, submission };
        }
        askingMs -= this.#clock.monotonic() - askedAt;
        lease.release();
      }
    } finally {
      this.#trace.acquireMs += this.#clock.monotonic() - since;
    }
  }

  /** It offered CHUNKING and does not know BDAT, or miscounts: by DATA from now on. */
  #unlearnsBdat({ stage, reply }: Decision, on: Open): boolean {
    const isUnlearnt =
      on.submission.usesBdat && stage === 'end' && (isUnknownCommand(reply) || isHeaderMiscount(reply));
    if (isUnlearnt) this.#upstream.refuseBdat(on.lease.connection);
    return isUnlearnt;
  }

  /**
   * Runs `talk` until it is decided: on the connection that has the envelope (`isBegun`), else on a
   * fresh lease. What was lost or is out of step is replayed once; a busy provider is waited for.
   */
  async #run<T extends Talk>(
    mail: Mail,
    told: readonly Recipient[],
    talk: (submission: Submission, isBegun: boolean) => Promise<T>,
  ): Promise<{ readonly done: T; readonly on: Open } | { readonly verdict: Verdict }> {
    const since = this.#clock.monotonic();
    const busyUntil = since + this.#busyWaitMs;
    this.#phase = 'talking';
    // Somebody in it whom the provider has not heard of: the envelope is said anew, or he would be lost.
    if (told.length > this.#confirmed.length) this.#release();
    try {
      for (;;) {
        let on = this.#open;
        const isBegun = on !== undefined;
        this.#open = undefined;
        let verdict: Verdict;
        let isReplayable: boolean;
        try {
          if (!this.#isClosed && on === undefined) on = await this.#acquire();
          // With the connection in hand: a message counts when the provider hears of it.
          const asked = this.#isClosed || isBegun ? undefined : this.#deps.mayBegin?.();
          const refusal = asked === undefined ? undefined : await asked;
          if (this.#isClosed || on === undefined)
            throw new UpstreamError({ kind: 'local', cause: 'client_gone' });
          if (refusal !== undefined) {
            on.lease.release();
            return { verdict: refusal };
          }
          this.#startedAt ??= this.#clock.monotonic();
          this.#talking = on.submission;
          this.#talking.waitsSince = since;
          const done = await talk(on.submission, isBegun);
          if (done.refusal === undefined) {
            this.#open = on;
            return { done, on };
          }
          verdict = this.#decided(done.refusal, mail.sender);
          isReplayable =
            this.#unlearnsBdat(done.refusal, on) || verdict.retry === 'fresh' || isOver(done.refusal);
          if (mayBeTaken(done.refusal, verdict)) {
            verdict = OUTCOME_UNKNOWN;
            isReplayable = false;
          }
        } catch (error) {
          verdict = this.#verdictOf(error);
          isReplayable = verdict.retry === 'fresh' || isLossBeforeEnd(error);
        }
        // Over, or out of step: whatever it would say next is no answer to a message.
        if (isReplayable) on?.lease.connection.destroy();
        on?.lease.release();
        if (isReplayable && on !== undefined && !this.#trace.replayed && !this.#isClosed) {
          this.#trace.replayed = true;
          this.#trace.upstreamReply = undefined;
          this.#replayedAt = this.#clock.monotonic();
          continue;
        }
        if (on !== undefined) this.#upstream.report(verdict, this.#trace);
        if (verdict.retry !== 'wait' || this.#isClosed || this.#clock.monotonic() >= busyUntil)
          return { verdict };
        const { least, most } = BUSY_PAUSE_MS;
        const pause = nap(this.#clock, least + this.#deps.random() * (most - least));
        this.#endPause = pause.wake;
        await pause.over;
      }
    } finally {
      this.#phase = 'resting';
      this.#elapsed();
      if (this.#isClosed) this.#free();
    }
  }

  #free(): void {
    // Cut before the last octet, so that no fragment is delivered.
    if (this.#phase === 'streaming') this.#open?.lease.connection.destroy();
    this.#release();
    this.#letGo();
  }

  /** MAIL and all recipients that heard 250; each must be accepted. */
  async #envelopeFor(
    submission: Submission,
    mail: Mail,
    told: readonly Recipient[],
  ): Promise<Decision | undefined> {
    const envelope = await submission.sendEnvelope(mail, told);
    if (envelope.refusal !== undefined) return this.#repeated(envelope.refusal);
    const reply = envelope.recipients.find((r) => !isPositive(r));
    if (reply === undefined) return undefined;
    // One that was only promised, alone: its refusal is the provider's verdict on the message.
    return told.length === 1 && this.#confirmed.length === 0 ? { stage: 'rcpt', reply } : comeAgain(reply);
  }

  /** A refused MAIL is no bounce either where it was accepted before. */
  #repeated(refusal: Decision): Decision {
    return this.#confirmed.length === 0 || isTemporary(refusal.reply) ? refusal : comeAgain(refusal.reply);
  }

  #taken(reply: Reply): Ending {
    this.#trace.upstreamReply = reply;
    this.#upstream.delivered();
    return { taken: inKnownCode(reply) };
  }

  /** A reply to RCPT that is none to this recipient: the connection is over, or out of step. */
  #strayReply(replies: readonly ParsedReply[]): Decision | undefined {
    for (const reply of replies) {
      if (isPositive(reply)) continue;
      const decision: Decision = { stage: 'rcpt', reply };
      if (isOver(decision) || this.#judged(decision).retry !== 'none') return decision;
    }
    return undefined;
  }

  #streamOn(on: Open, stream: SubmissionStream, mail: Mail, openingMs: number): BodyStream {
    const held = createHeldBack(this.#clock, openingMs);
    return {
      push: (chunk) => held.push(chunk.length, stream.push(chunk)),
      finish: async () => {
        this.#phase = 'talking';
        on.submission.waitsSince = this.#clock.monotonic() - held.ms();
        try {
          const decision = await stream.finish();
          if (isPositive(decision.reply)) return this.#taken(decision.reply);
          const verdict = this.#decided(decision, mail.sender);
          if (this.#unlearnsBdat({ ...decision, stage: 'end' }, on))
            return { verdict: { ...verdict, answer: { ...verdict.answer, code: 451, enhanced: '4.3.0' } } };
          this.#upstream.report(verdict, this.#trace);
          return { verdict };
        } catch (error) {
          const verdict = this.#verdictOf(error);
          this.#upstream.report(verdict, this.#trace);
          return { verdict };
        } finally {
          this.#phase = 'resting';
          this.#elapsed();
          if (this.#isClosed) this.#free();
        }
      },
    };
  }
}
