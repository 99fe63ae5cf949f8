/**
 * Speaks one transaction on an upstream connection. In: envelope and body. Out: the provider's decisive reply (the first
 * refusal, else the final one), or an `UpstreamError` when the connection went away. Owns nothing but the dialogue; commands
 * and body travel in as few flights as the upstream's extensions allow (RFC 2920, RFC 3030) and it has proved safe (proof.ts).
 */
import { createDotStuffer } from '../protocol/dot-stuffing.ts';
import { formatMail, formatRcpt, type Mail, type Recipient } from '../protocol/esmtp.ts';
import { isPositive, isTemporary } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import type { Stage } from '../protocol/verdict.ts';
import { createChunkStream } from './chunk-stream.ts';
import { ConnectionLost, type UpstreamConnection } from './connection.ts';
import { createDataStream } from './data-stream.ts';
import { lost, UpstreamError } from './failure.ts';
import { beginFlight, endFlight, type FlightCount, type FlightTime } from './flight-times.ts';
import { type Marker, Step } from './in-step.ts';
import { isOfAnother, isOfNoBody } from './reply-kinds.ts';
import type { Decision, SubmissionStream } from './talk.ts';
import { ENVELOPE_TIMEOUT_MS, FINAL_TIMEOUT_MS, LEAST_MS, MARKER_TIMEOUT_MS } from './timeouts.ts';

/**
 * After this long in the pool a connection may be gone without a sign (a NAT that forgot it), so the
 * envelope goes first: its loss can be replayed, the loss of a body that was written whole cannot.
 */
const ENVELOPE_FIRST_AFTER_IDLE_MS = 60_000;
/** A connection younger than this that served nothing yet cannot have gone stale in the pool. */
const FRESH_MS = 1_000;

export class Submission {
  /** Whether bodies go by BDAT: only to a server that proved to discard what it refuses. */
  readonly usesBdat: boolean;
  /** The connection had served before and waited in the pool. */
  readonly reused: boolean;
  /** Since when whoever waits for the next reply has been waiting: for a connection, for what is being replayed; monotonic ms. */
  waitsSince: number | undefined;
  readonly #connection: UpstreamConnection;
  readonly #pipelining: boolean;
  readonly #count: FlightCount;
  readonly #step: Step;
  /** How much of the message is on its way; `whole`: with its final byte. */
  #sent: 'nothing' | 'envelope' | 'body' | 'whole' = 'nothing';
  /** `gone`: a body that has not left stays here. `given up`: nor does anybody wait for the server. */
  #client: 'there' | 'gone' | 'given up' = 'there';
  #stage: Stage = 'mail';

  /** `bdat`: BDAT may be used on this connection. */
  constructor(connection: UpstreamConnection, bdat: boolean, count: FlightCount) {
    this.#connection = connection;
    this.#pipelining = connection.capabilities.pipelining;
    this.usesBdat = bdat && this.#pipelining && connection.capabilities.chunking;
    this.#count = count;
    this.#step = new Step(connection, this);
    this.reused = connection.messages > 0 || connection.ageMs > FRESH_MS;
  }

  /** The client is gone: a body that has not left stays here. */
  abandon(): void {
    if (this.#client === 'there') this.#client = 'gone';
  }

  /** Nobody waits for the server any longer: what is awaited ends as a loss. */
  giveUp(): void {
    this.#client = 'given up';
    this.#connection.destroy();
  }

  /** Whether the connection still answers within `withinMs`: RSET and its reply; without time it is given up. Never rejects. */
  async isAlive(withinMs: number): Promise<boolean> {
    if (withinMs <= 0) this.#connection.destroy();
    if (this.#connection.dead) return false;
    const begun = beginFlight(this.#count, 'reset', this.#connection.now);
    const [reply] = await this.#connection.flight(['RSET\r\n'], 1, withinMs).catch(() => []);
    if (reply !== undefined) endFlight(begun, this.#connection.now);
    if (reply?.code !== 250) this.#connection.destroy();
    this.#connection.needsReset = false;
    return !this.#connection.dead;
  }

  /** One recipient, whole body. Rejects with `UpstreamError`. */
  async sendWhole(
    mail: Mail,
    recipient: Recipient,
    body: readonly Buffer[],
    octets: number,
  ): Promise<Decision> {
    if (!this.#pipelining || this.#isDoubtful) {
      const { refusal, recipients } = await this.sendEnvelope(mail, [recipient]);
      const [reply] = recipients;
      if (refusal !== undefined) return refusal;
      return reply !== undefined && isPositive(reply)
        ? this.sendBody(body, octets)
        : this.#refused('rcpt', reply);
    }
    const commands = `${formatMail(mail)}${formatRcpt(recipient)}`;
    if (this.usesBdat && octets > 0) {
      const replies = await this.#exchange(
        [`${commands}BDAT ${octets} LAST\r\n`, ...body],
        3,
        FINAL_TIMEOUT_MS,
        this.#step.marker(false),
      );
      return this.#decide(replies, ['mail', 'rcpt', 'end']);
    }
    const reset = this.#takeReset();
    const replies = this.#dropReset(
      await this.#exchange([`${reset}${commands}DATA\r\n`], reset === '' ? 3 : 4, ENVELOPE_TIMEOUT_MS),
      reset,
    );
    if (replies[2]?.code === 354) {
      const refusal = replies.slice(0, 2).find((r) => !isPositive(r));
      if (refusal === undefined) {
        this.#step.remember(replies[0], replies[1]);
        return this.#finishData(body);
      }
      // 354 although there is nobody to deliver to: an empty body ends it (RFC 2920 §3.1).
      const [end] = refusal.code === 421 ? [] : await this.#exchange(['.\r\n'], 1, ENVELOPE_TIMEOUT_MS);
      if (end === undefined || isPositive(end)) this.#connection.destroy();
    }
    return this.#decide(replies, ['mail', 'rcpt', 'body']);
  }

  /** MAIL and the first recipients in one flight. `refusal` is MAIL's; each recipient has its own reply. Rejects with `UpstreamError`. */
  async sendEnvelope(
    mail: Mail,
    recipients: readonly Recipient[],
  ): Promise<{ readonly refusal: Decision | undefined; readonly recipients: readonly ParsedReply[] }> {
    const reset = this.#takeReset();
    if (!this.#pipelining) {
      if (reset !== '') {
        const [refused] = this.#dropReset(await this.#exchange([reset], 1, ENVELOPE_TIMEOUT_MS), reset);
        if (refused !== undefined) return { refusal: this.#refused('mail', refused), recipients: [] };
      }
      const [mailReply] = await this.#exchange([formatMail(mail)], 1, ENVELOPE_TIMEOUT_MS);
      if (!this.#step.isAccepted(mailReply, 'mail'))
        return { refusal: this.#refused('mail', mailReply), recipients: [] };
      return { refusal: undefined, recipients: await this.addRecipients(recipients) };
    }
    const commands = `${reset}${formatMail(mail)}${recipients.map(formatRcpt).join('')}`;
    const expected = recipients.length + (reset === '' ? 1 : 2);
    const [mailReply, ...replies] = this.#dropReset(
      await this.#exchange([commands], expected, ENVELOPE_TIMEOUT_MS),
      reset,
    );
    if (!this.#step.isAccepted(mailReply, 'mail'))
      return { refusal: this.#refused('mail', mailReply), recipients: [] };
    this.#connection.needsReset = true;
    this.#checkRecipients(replies, recipients.length);
    return { refusal: undefined, recipients: replies };
  }

  /** Further RCPTs with their live replies. Rejects with `UpstreamError`. */
  async addRecipients(recipients: readonly Recipient[]): Promise<readonly ParsedReply[]> {
    this.#stage = 'rcpt';
    this.#connection.needsReset = true;
    const replies: ParsedReply[] = [];
    const commands = recipients.map(formatRcpt);
    const since = this.#connection.now;
    for (const flight of this.#pipelining ? [commands.join('')] : commands) {
      const expected = this.#pipelining ? recipients.length : 1;
      // One by one they have no more time than in one flight: the client hears all replies together.
      const leastMs = Math.max(1, LEAST_MS - (this.#connection.now - since));
      replies.push(...(await this.#exchange([flight], expected, ENVELOPE_TIMEOUT_MS, undefined, leastMs)));
    }
    this.#checkRecipients(replies, recipients.length);
    return replies;
  }

  /** The whole body after an accepted envelope. Rejects with `UpstreamError`. */
  async sendBody(body: readonly Buffer[], octets: number): Promise<Decision> {
    // DATA's 354 cannot be mistaken for a late reply to RCPT.
    if (this.usesBdat && octets > 0 && this.#step.isTagged())
      return this.#sendLast([`BDAT ${octets} LAST\r\n`, ...body], this.#step.marker(false));

    this.#stage = 'body';
    const [go] = await this.#exchange(['DATA\r\n'], 1, ENVELOPE_TIMEOUT_MS);
    return go?.code === 354 ? this.#finishData(body) : this.#refused('body', go);
  }

  /** A body that streams through after an accepted envelope, or the refusal of DATA. Rejects with `UpstreamError`. */
  async startStream(): Promise<
    | { readonly refusal: undefined; readonly stream: SubmissionStream }
    | { readonly refusal: Decision; readonly stream: undefined }
  > {
    this.#stage = 'body';
    if (this.usesBdat && this.#step.isTagged()) {
      this.#sent = 'body';
      const stream = createChunkStream(this.#connection, {
        lost: (error) => this.#lost(error),
        taken: (reply) => this.#step.hearChunk(reply),
        refused: (reply) => this.#keep({ stage: 'body', reply }),
        sendLast: (parts) => this.#sendLast(parts, this.#step.marker(true)),
      });
      return { refusal: undefined, stream };
    }
    const [go] = await this.#exchange(['DATA\r\n'], 1, ENVELOPE_TIMEOUT_MS);
    if (go?.code !== 354) return { refusal: this.#refused('body', go), stream: undefined };
    this.#sent = 'body';
    let ending: FlightTime | undefined;
    const stream = createDataStream(this.#connection, {
      lost: (error) => this.#lost(error),
      outOfStep: () => this.outOfStep(),
      ending: () => {
        this.#sent = 'whole';
        ending = beginFlight(this.#count, 'body', this.#connection.now);
        this.#stage = 'end';
        return this.#left(FINAL_TIMEOUT_MS);
      },
      decide: (reply) => {
        endFlight(ending, this.#connection.now);
        return this.#decideData(reply === undefined ? [] : [reply]);
      },
    });
    return { refusal: undefined, stream };
  }

  /** Of a wait for a reply, ms: whoever waits for it may have been waiting already. */
  #left(timeoutMs: number, leastMs = LEAST_MS): number {
    return Math.max(leastMs, timeoutMs - this.#connection.now + (this.waitsSince ?? this.#connection.now));
  }

  async #sendLast(parts: readonly (string | Buffer)[], marker: Marker): Promise<Decision> {
    return this.#decide(await this.#exchange(parts, 1, FINAL_TIMEOUT_MS, marker), ['end']);
  }

  async #finishData(body: readonly Buffer[]): Promise<Decision> {
    const stuffer = createDotStuffer();
    const parts = body.flatMap((chunk) => stuffer.push(chunk));
    parts.push(stuffer.end());
    return this.#decideData(await this.#exchange(parts, 1, FINAL_TIMEOUT_MS, []));
  }

  /** What is said behind a doubtful verdict, and does not answer EHLO, is the verdict. */
  async #decideData(replies: readonly ParsedReply[]): Promise<Decision> {
    if (!this.#step.isDoubtful(replies[0])) return this.#decide(replies, ['end']);
    const behind = await this.#connection
      .flight(this.#step.ehlo, 1, this.#left(FINAL_TIMEOUT_MS))
      .catch((error: unknown) => {
        throw this.#lost(error);
      });
    return this.#decide([...replies, ...behind], ['end']);
  }

  /** One flight of `expected` replies. `marker`, where the last octet of the body is in it, follows the body; its answer may be missing. */
  async #exchange(
    parts: readonly (string | Buffer)[],
    expected: number,
    timeoutMs: number,
    marker?: Marker,
    leastMs?: number,
  ): Promise<ParsedReply[]> {
    // Gone before a byte of this was written: nothing of it can have been taken.
    if (this.#connection.dead)
      throw lost(this.#stage, 'eof', 'closed by the upstream', { reused: true, finalByteSent: false });
    if (marker !== undefined && this.#client !== 'there') {
      // Perhaps after DATA's 354: nothing but a body could be said here.
      this.#connection.destroy();
      throw new UpstreamError({ kind: 'local', cause: 'client_gone' });
    }
    const begun = beginFlight(
      this.#count,
      marker === undefined ? 'envelope' : this.#sent === 'nothing' ? 'message' : 'body',
      this.#connection.now,
    );
    if (marker !== undefined) {
      this.#sent = 'whole';
      this.#stage = 'end';
    } else if (this.#sent === 'nothing') this.#sent = 'envelope';
    const isCertain = (replies: readonly ParsedReply[]): boolean =>
      this.#step.isCertain(replies[expected - 1], replies.slice(0, expected - 1));
    try {
      const all = expected + (marker?.length ?? 0);
      const replies = await this.#connection.flightUntil(
        marker === undefined ? parts : [...parts, ...marker],
        (so) => {
          if (so.length < all && so.length === expected && isCertain(so))
            this.#connection.limitWait(Math.max(MARKER_TIMEOUT_MS, 2 * this.#connection.ehloMs));
          return so.length === all;
        },
        this.#left(timeoutMs, leastMs),
      );
      endFlight(begun, this.#connection.now);
      // The connection ends behind the verdict, or the server does not take the marker here: nothing is taken back.
      const answer = replies[expected];
      if (answer !== undefined && isOfNoBody(answer) && isCertain(replies)) replies.length = expected;
      return replies;
    } catch (error) {
      const replies = [...(error instanceof ConnectionLost ? error.replies : [])];
      // A refusal that came before the loss decides: the provider did not take the message.
      if (replies.some((r) => !isPositive(r))) return replies;
      if (marker !== undefined && isCertain(replies)) return replies;
      throw this.#lost(error);
    }
  }

  /** The first refusal among `replies`, else the last of them. */
  #decide(replies: readonly ParsedReply[], stages: readonly Stage[]): Decision {
    for (const [i, stage] of stages.entries()) {
      const reply = replies[i];
      if (reply === undefined) break;
      if (isPositive(reply) && isOfAnother(reply.code, stage)) throw this.outOfStep();
      if (!isPositive(reply)) {
        const last = replies[stages.length - 1];
        if (stage === 'end') this.#checkMarker(reply, replies[i + 1]);
        if (stage === 'end' || last === undefined || !isPositive(last)) return this.#keep({ stage, reply });
        // Nobody can tell what was taken for whom. Close; the refusal stands.
        this.#connection.destroy();
        return this.#keep({ stage, reply, isContradicted: this.#isBodySent });
      }
      if (stage === 'end') {
        if (!this.#step.isAccepted(reply, 'end')) throw this.outOfStep();
        if (stages.length === 3) this.#step.remember(replies[0], replies[1]);
        this.#checkMarker(reply, replies[stages.length]);
        this.#connection.needsReset = false;
        this.#connection.messages++;
        return { stage, reply };
      }
    }
    throw this.outOfStep();
  }

  /** What stands in place of the marker's answer is the verdict, behind a reply too many. */
  #checkMarker(verdict: ParsedReply, answer: ParsedReply | undefined): void {
    if (answer === undefined || this.#step.isGreeting(answer)) return;
    const isTaken = isPositive(answer) && this.#step.isCertain(answer);
    if (isPositive(verdict) ? !isTaken || this.#step.isGreeting(verdict) : isTaken) throw this.outOfStep();
    this.#connection.destroy();
  }

  #checkRecipients(replies: readonly ParsedReply[], expected: number): void {
    // A loss after some verdicts leaves recipients without one; a reply too many leaves open whose each is.
    if (replies.length < expected || this.#connection.saidTooMuch)
      throw this.#lost(new ConnectionLost('eof', 'closed by the upstream', []));
    for (const reply of replies) this.#step.isAccepted(reply, 'rcpt');
  }

  /** Octets of the body are on their way. */
  get #isBodySent(): boolean {
    return this.#sent === 'body' || this.#finalByteSent;
  }

  get #finalByteSent(): boolean {
    return this.#sent === 'whole';
  }

  #keep(decision: Decision): Decision {
    // Of two replies to one command nobody can tell which refuses what.
    if (this.#connection.saidTooMuch) throw this.outOfStep();
    this.#connection.needsReset = true;
    if (decision.stage === 'end' || decision.stage === 'body') this.#connection.messages++;
    // What became of the body's octets is the server's secret: nothing more is said to it.
    if (this.#isBodySent) this.#connection.destroy();
    return decision;
  }

  #refused(stage: Stage, reply: ParsedReply | undefined): Decision {
    if (reply === undefined || isPositive(reply)) throw this.outOfStep();
    return this.#keep({ stage, reply });
  }

  /** `RSET` to be sent ahead where the last transaction was given up. */
  #takeReset(): string {
    return this.#connection.needsReset ? 'RSET\r\n' : '';
  }

  #dropReset(replies: readonly ParsedReply[], reset: string): readonly ParsedReply[] {
    if (reset === '') return replies;
    const [first, ...rest] = replies;
    if (first === undefined) return replies;
    if (first.code < 300) {
      this.#connection.needsReset = false;
      return rest;
    }
    // A stale connection answers so: let it decide as if it were MAIL's reply. What was said behind it may run, so nothing more is.
    this.#connection.destroy();
    if (isTemporary(first)) return replies;
    // For good is said of no message here: the provider has not been asked about this one.
    throw lost(this.#stage, 'garbage', 'upstream refused RSET', { reused: true, finalByteSent: false });
  }

  /** No body leaves by BDAT with its envelope: the connection may be gone, or RSET be refused, and what became of the body could not be told. */
  get #isDoubtful(): boolean {
    const { idleMs, needsReset } = this.#connection;
    return idleMs > ENVELOPE_FIRST_AFTER_IDLE_MS || (needsReset && this.usesBdat);
  }

  #lost(error: unknown): UpstreamError {
    const how = error instanceof ConnectionLost ? error.how : 'tcp';
    const detail = error instanceof Error ? error.message : 'connection lost';
    return lost(this.#stage, how, detail, { reused: this.reused, finalByteSent: this.#finalByteSent }, error);
  }

  /** The reply at hand is no answer to the command at hand. */
  outOfStep(): UpstreamError {
    this.#connection.destroy();
    return lost(this.#stage, 'garbage', 'upstream answered out of step', {
      reused: false,
      finalByteSent: this.#finalByteSent,
    });
  }
}
