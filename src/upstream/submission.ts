/**
 * Speaks one transaction on an upstream connection. In: envelope and body. Out: the provider's
 * decisive reply (the first refusal, else the final one), or an `UpstreamError` when the connection
 * went away. Owns nothing but the dialogue; commands and body travel in as few flights as the
 * upstream's extensions allow (RFC 2920, RFC 3030).
 */
import { createDotStuffer } from '../protocol/dot-stuffing.ts';
import { formatMail, formatRcpt, type Mail, type Recipient } from '../protocol/esmtp.ts';
import { isPositive } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import type { Stage } from '../protocol/verdict.ts';
import { ConnectionLost, type UpstreamConnection } from './connection.ts';
import { lost, type UpstreamError } from './failure.ts';

/** Below the 5 min a client waits at RCPT (RFC 5321 §4.5.3.2.3), so that we answer before it gives up. */
const ENVELOPE_TIMEOUT_MS = 240_000;
/** Below the 10 min a client waits after its final dot (RFC 5321 §4.5.3.2.6). */
const FINAL_TIMEOUT_MS = 570_000;
/** A chunk must be taken within this (RFC 5321 §4.5.3.2.5). */
const CHUNK_TIMEOUT_MS = 180_000;
/**
 * After this long in the pool a connection may be gone without a sign (a NAT that forgot it), so the
 * envelope goes first: its loss can be replayed, the loss of a body that was written whole cannot.
 */
export const ENVELOPE_FIRST_AFTER_IDLE_MS = 60_000;
/** A connection younger than this that served nothing yet cannot have gone stale in the pool. */
const FRESH_MS = 1_000;
/** A streamed body leaves in BDAT chunks of at least this many octets: few replies, little memory. */
const STREAM_CHUNK_OCTETS = 256 * 1024;

/** The reply that decides, and the command it answers. */
export interface Decision {
  readonly stage: Stage;
  readonly reply: ParsedReply;
}

export interface SubmissionOptions {
  /** BDAT may be used (provider setting and nothing learnt to the contrary). */
  readonly chunking: boolean;
}

/** Counts the round trips of a transaction. */
export interface FlightCount {
  flights: number;
}

/** Replies by which a server says it does not know BDAT although it offered CHUNKING. */
export const isUnknownCommand = (reply: ParsedReply): boolean =>
  reply.code === 500 || reply.code === 501 || reply.code === 502 || reply.code === 504;

/** Thrown inside: the reply at hand is no answer to the command at hand. */
const OUT_OF_STEP = 'upstream answered out of step';

export class Submission {
  readonly #connection: UpstreamConnection;
  readonly #chunking: boolean;
  readonly #pipelining: boolean;
  readonly #count: FlightCount;
  /** The connection had served before and waited in the pool. */
  readonly #reused: boolean;
  #finalByteSent = false;
  #stage: Stage = 'mail';

  constructor(connection: UpstreamConnection, options: SubmissionOptions, count: FlightCount) {
    this.#connection = connection;
    this.#pipelining = connection.capabilities.pipelining;
    this.#chunking = options.chunking && connection.capabilities.chunking;
    this.#count = count;
    this.#reused = connection.messages > 0 || connection.ageMs > FRESH_MS;
  }

  /** Whether bodies go by BDAT. */
  get usesBdat(): boolean {
    return this.#chunking;
  }

  get reused(): boolean {
    return this.#reused;
  }

  /** One recipient, whole body. Rejects with `UpstreamError`. */
  async sendWhole(
    mail: Mail,
    recipient: Recipient,
    body: readonly Buffer[],
    octets: number,
  ): Promise<Decision> {
    if (!this.#pipelining || this.#connection.idleMs > ENVELOPE_FIRST_AFTER_IDLE_MS) {
      const envelope = await this.sendEnvelope(mail, [recipient]);
      return envelope.refusal ?? this.sendBody(body, octets);
    }
    const reset = this.#takeReset();
    const commands = `${reset}${formatMail(mail)}${formatRcpt(recipient)}`;
    const expected = reset === '' ? 3 : 4;
    if (this.#chunking) {
      const replies = await this.#exchange(
        [`${commands}BDAT ${octets} LAST\r\n`, ...body],
        expected,
        FINAL_TIMEOUT_MS,
        true,
      );
      return this.#decide(this.#dropReset(replies, reset), ['mail', 'rcpt', 'end']);
    }
    const replies = this.#dropReset(
      await this.#exchange([`${commands}DATA\r\n`], expected, ENVELOPE_TIMEOUT_MS),
      reset,
    );
    const go = replies[2];
    if (go?.code === 354) {
      const refused = replies.slice(0, 2).some((r) => !isPositive(r));
      // 354 although there is nobody to deliver to: an empty body ends it (RFC 2920 §3.1).
      if (refused)
        await this.#exchange(['.\r\n'], 1, ENVELOPE_TIMEOUT_MS).then(([r]) => this.#expectRefusal(r));
      else return this.#finishData(body);
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
      if (reset !== '') this.#dropReset(await this.#exchange([reset], 1, ENVELOPE_TIMEOUT_MS), reset);
      const [mailReply] = await this.#exchange([formatMail(mail)], 1, ENVELOPE_TIMEOUT_MS);
      if (mailReply === undefined || !isPositive(mailReply))
        return { refusal: this.#refused('mail', mailReply), recipients: [] };
      const replies: ParsedReply[] = [];
      for (const recipient of recipients) replies.push(await this.addRecipient(recipient));
      return { refusal: this.#oneRefused(replies), recipients: replies };
    }
    const commands = `${reset}${formatMail(mail)}${recipients.map(formatRcpt).join('')}`;
    const expected = recipients.length + (reset === '' ? 1 : 2);
    const [mailReply, ...replies] = this.#dropReset(
      await this.#exchange([commands], expected, ENVELOPE_TIMEOUT_MS),
      reset,
    );
    if (mailReply === undefined || !isPositive(mailReply))
      return { refusal: this.#refused('mail', mailReply), recipients: [] };
    // A loss after some verdicts leaves recipients without one.
    if (replies.length < recipients.length)
      throw this.#lost(new ConnectionLost('eof', 'closed by the upstream', []));
    if (replies.some((r) => isPositive(r) && r.code >= 300)) throw this.#outOfStep();
    return { refusal: this.#oneRefused(replies), recipients: replies };
  }

  /** A further RCPT with its live reply. Rejects with `UpstreamError`. */
  async addRecipient(recipient: Recipient): Promise<ParsedReply> {
    this.#stage = 'rcpt';
    this.#connection.needsReset = true;
    const [reply] = await this.#exchange([formatRcpt(recipient)], 1, ENVELOPE_TIMEOUT_MS);
    if (reply === undefined || reply.code === 354) throw this.#outOfStep();
    return reply;
  }

  /** The whole body after an accepted envelope. Rejects with `UpstreamError`. */
  async sendBody(body: readonly Buffer[], octets: number): Promise<Decision> {
    if (this.#chunking) {
      const replies = await this.#exchange([`BDAT ${octets} LAST\r\n`, ...body], 1, FINAL_TIMEOUT_MS, true);
      return this.#decide(replies, ['end']);
    }
    this.#stage = 'body';
    const [go] = await this.#exchange(['DATA\r\n'], 1, ENVELOPE_TIMEOUT_MS);
    return go?.code === 354 ? this.#finishData(body) : this.#refused('body', go);
  }

  /** A body that streams through after an accepted envelope; a refusal of DATA shows in `finish`. Rejects with `UpstreamError`. */
  async startStream(): Promise<BodyStream> {
    this.#stage = 'body';
    if (this.#chunking) return this.#chunkStream();
    const [go] = await this.#exchange(['DATA\r\n'], 1, ENVELOPE_TIMEOUT_MS);
    if (go?.code !== 354) {
      const refused = this.#refused('body', go);
      return { push: () => undefined, finish: () => Promise.resolve(refused) };
    }
    return this.#dataStream();
  }

  #chunkStream(): BodyStream {
    let held: Buffer[] = [];
    let octets = 0;
    let refusal: Decision | undefined;
    let failure: UpstreamError | undefined;
    let last: Promise<unknown> = Promise.resolve();
    const sendChunk = async (): Promise<void> => {
      const pieces = held;
      const header = `BDAT ${octets}\r\n`;
      held = [];
      octets = 0;
      last = this.#connection.expect(1, CHUNK_TIMEOUT_MS).then(
        ([reply]) => {
          if (reply !== undefined && !isPositive(reply)) refusal ??= { stage: 'body', reply };
        },
        (error: unknown) => {
          failure ??= this.#lost(error);
        },
      );
      await this.#writePieces(header, pieces);
      // Without PIPELINING each chunk waits for its reply.
      if (!this.#pipelining) await last;
    };
    return {
      push: (chunk) => {
        if (refusal !== undefined || failure !== undefined) return undefined;
        held.push(chunk);
        octets += chunk.length;
        return octets < STREAM_CHUNK_OCTETS ? undefined : sendChunk();
      },
      finish: async () => {
        if (!this.#pipelining) await last;
        if (failure !== undefined) throw failure;
        if (refusal !== undefined) return this.#keep(refusal);
        const replies = await this.#exchange(
          [`BDAT ${octets} LAST\r\n`, ...held],
          1,
          FINAL_TIMEOUT_MS,
          true,
        ).catch((error: unknown) => {
          // A chunk refused while LAST was on its way: the refusal is the answer, not the loss after it.
          if (refusal === undefined) throw error;
        });
        if (refusal !== undefined) return this.#keep(refusal);
        return this.#decide(replies ?? [], ['end']);
      },
    };
  }

  /** One write each: several at once would be copied together for TLS. */
  async #writePieces(header: string, pieces: readonly Buffer[]): Promise<void> {
    this.#connection.write([header]);
    for (const piece of pieces)
      if (!this.#connection.write([piece])) await this.#connection.drained(CHUNK_TIMEOUT_MS);
  }

  #dataStream(): BodyStream {
    const stuffer = createDotStuffer();
    // From now on a reply is the final one; if it comes before the final dot it is a refusal.
    let early: ParsedReply | undefined;
    let failure: UpstreamError | undefined;
    let ended = false;
    const final = this.#connection.expect(1, undefined).then(
      ([reply]) => {
        if (!ended) early = reply;
        return reply;
      },
      (error: unknown) => {
        failure = this.#lost(error);
        return undefined;
      },
    );
    return {
      push: (chunk) => {
        if (early !== undefined || failure !== undefined) return undefined;
        return this.#connection.write(stuffer.push(chunk))
          ? undefined
          : this.#connection.drained(CHUNK_TIMEOUT_MS);
      },
      finish: async () => {
        if (early !== undefined) {
          // Answered before the end: the rest of the body was never sent, so the connection is lost to us.
          this.#connection.destroy();
          if (isPositive(early)) throw this.#outOfStep();
          return { stage: 'end', reply: early };
        }
        if (failure === undefined) {
          ended = true;
          this.#finalByteSent = true;
          this.#count.flights++;
          this.#stage = 'end';
          this.#connection.write([stuffer.end()]);
          this.#connection.limitWait(FINAL_TIMEOUT_MS);
        }
        const reply = await final;
        if (failure !== undefined) throw failure;
        return this.#decide(reply === undefined ? [] : [reply], ['end']);
      },
    };
  }

  async #finishData(body: readonly Buffer[]): Promise<Decision> {
    const stuffer = createDotStuffer();
    const parts = body.flatMap((chunk) => stuffer.push(chunk));
    parts.push(stuffer.end());
    return this.#decide(await this.#exchange(parts, 1, FINAL_TIMEOUT_MS, true), ['end']);
  }

  /** One flight. `final`: the last octet of the body is in it. */
  async #exchange(
    parts: readonly (string | Buffer)[],
    expected: number,
    timeoutMs: number,
    final = false,
  ): Promise<ParsedReply[]> {
    // Gone before a byte of this was written: nothing of it can have been taken.
    if (this.#connection.dead)
      throw lost(this.#stage, 'eof', 'closed by the upstream', { reused: true, finalByteSent: false });
    this.#count.flights++;
    if (final) {
      this.#finalByteSent = true;
      this.#stage = 'end';
    }
    try {
      return await this.#connection.flight(parts, expected, timeoutMs);
    } catch (error) {
      // A refusal that came before the loss decides: the provider did not take the message.
      if (error instanceof ConnectionLost && error.replies.some((r) => !isPositive(r)))
        return [...error.replies];
      throw this.#lost(error);
    }
  }

  /** The first refusal among `replies`, else the last of them. */
  #decide(replies: readonly ParsedReply[], stages: readonly Stage[]): Decision {
    for (const [i, stage] of stages.entries()) {
      const reply = replies[i];
      if (reply === undefined) break;
      // 354 outside DATA, or anything but 2xx as an acceptance, is no answer to what we said.
      if (isPositive(reply) && reply.code >= 300) throw this.#outOfStep();
      if (!isPositive(reply)) {
        // Refused, and yet the body was taken: nobody can tell for whom. Close; the refusal stands.
        if (stage !== 'end' && replies.length === stages.length && replies.at(-1)?.code === 250)
          this.#connection.destroy();
        return this.#keep({ stage, reply });
      }
      if (stage === 'end') {
        this.#connection.needsReset = false;
        this.#connection.messages++;
        return { stage, reply };
      }
    }
    throw this.#outOfStep();
  }

  #keep(decision: Decision): Decision {
    this.#connection.needsReset = true;
    if (decision.stage === 'end' || decision.stage === 'body') this.#connection.messages++;
    return decision;
  }

  #refused(stage: Stage, reply: ParsedReply | undefined): Decision {
    if (reply === undefined || isPositive(reply)) throw this.#outOfStep();
    return this.#keep({ stage, reply });
  }

  /** With one recipient its refusal is the transaction's. */
  #oneRefused(replies: readonly ParsedReply[]): Decision | undefined {
    const [only] = replies;
    this.#connection.needsReset = true;
    return replies.length === 1 && only !== undefined && !isPositive(only)
      ? { stage: 'rcpt', reply: only }
      : undefined;
  }

  #expectRefusal(reply: ParsedReply | undefined): void {
    if (reply === undefined || isPositive(reply)) this.#connection.destroy();
  }

  /** `RSET` to be sent ahead where the last transaction was given up. */
  #takeReset(): string {
    return this.#connection.needsReset ? 'RSET\r\n' : '';
  }

  #dropReset(replies: readonly ParsedReply[], reset: string): readonly ParsedReply[] {
    if (reset === '') return replies;
    const [first, ...rest] = replies;
    if (first === undefined) return replies;
    // A refused RSET is what a stale connection answers: let it decide as if it were MAIL's reply.
    if (!isPositive(first)) return [first];
    this.#connection.needsReset = false;
    return rest;
  }

  #lost(error: unknown): UpstreamError {
    const how = error instanceof ConnectionLost ? error.how : 'tcp';
    const detail = error instanceof Error ? error.message : 'connection lost';
    return lost(
      this.#stage,
      how,
      detail,
      { reused: this.#reused, finalByteSent: this.#finalByteSent },
      error,
    );
  }

  #outOfStep(): UpstreamError {
    this.#connection.destroy();
    return lost(this.#stage, 'garbage', OUT_OF_STEP, { reused: false, finalByteSent: this.#finalByteSent });
  }
}

/** A body on its way. */
export interface BodyStream {
  /** Takes a chunk; a promise means: wait before the next. Never rejects: a refusal or loss shows in `finish`. */
  push(chunk: Buffer): Promise<void> | undefined;
  /** The body is complete. Rejects with `UpstreamError`. */
  finish(): Promise<Decision>;
}
