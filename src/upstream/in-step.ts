/**
 * Whether a connection's replies answer what was said to it. In: replies at their places. Out: yes, no, or
 * what has to follow a body so that a reply too many, or one that never comes, shows. What the replies of
 * this server look like is remembered on the connection.
 */
import { isPositive } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import type { UpstreamConnection } from './connection.ts';
import { isOfAnother } from './reply-kinds.ts';

/** Said behind a body: what answers it stands behind the verdict. */
export type Marker = readonly string[];

const NONE: Marker = [];

/** RFC 3463 §3.2. */
const isOfAddress = (enhanced: string | undefined): boolean => enhanced?.startsWith('2.1.') === true;
/** The keywords of what a server offers (RFC 5321 §4.1.1.1). */
const keywordsOf = (lines: readonly string[]): readonly string[] =>
  lines.slice(1).map((line) => line.split(' ', 1)[0] ?? '');
const wordsOf = ({ code, lines }: ParsedReply): string => [code, ...lines].join('\n');

/** Of one message; a class, for closures of each message would cost more than it does. */
export class Step {
  readonly #connection: UpstreamConnection;
  readonly #owner: { outOfStep(): Error };
  /** How this message's MAIL, RCPTs and chunks were answered. */
  #mail: ParsedReply | undefined;
  readonly #rcpt: ParsedReply[] = [];
  readonly #chunks: ParsedReply[] = [];

  /** `outOfStep` makes what is thrown for a late reply to another command. */
  constructor(connection: UpstreamConnection, owner: { outOfStep(): Error }) {
    this.#connection = connection;
    this.#owner = owner;
  }

  /** EHLO: its reply can be told from all others. */
  get ehlo(): Marker {
    return [`EHLO ${this.#connection.heloName}\r\n`];
  }

  /** Whether the verdict can be told from a reply to MAIL or RCPT that comes late. */
  isTagged(): boolean {
    const { mail, rcpt, end } = this.#connection.said;
    if (!this.#connection.capabilities.enhancedStatusCodes) return false;
    return end === undefined || (end !== mail && end !== rcpt);
  }

  /** What follows a body. `behindChunks`: replies to its chunks, which look like the verdict, may come late. */
  marker(behindChunks: boolean): Marker {
    // Where replies look all alike, or how is not known yet, one too many shows only by what answers the marker.
    return !behindChunks && this.isTagged() && this.#connection.said.end !== undefined ? NONE : this.ehlo;
  }

  /** The reply to EHLO. */
  isGreeting({ lines }: ParsedReply): boolean {
    // Not all of it: behind a login a server may offer something else.
    if (lines.length === 1) return false;
    const offered = keywordsOf(this.#connection.greeting.split('\n'));
    return keywordsOf(lines).some((keyword) => offered.includes(keyword));
  }

  /** Said of the body, whatever comes behind it; `envelope`: replies to MAIL and RCPT that came with it. */
  isCertain(verdict: ParsedReply | undefined, [mail, rcpt]: readonly ParsedReply[] = []): boolean {
    this.#hear(mail, rcpt);
    if (verdict === undefined || this.isGreeting(verdict) || this.#isRepeated(verdict)) return false;
    if (this.#chunks.map(wordsOf).includes(wordsOf(verdict))) return false;
    return !isOfAddress(verdict.enhanced) || this.#isOfNone(verdict);
  }

  /** How a chunk before the last was answered. */
  hearChunk(reply: ParsedReply): void {
    this.#chunks.push(reply);
  }

  /** A yes to the first body on a connection, in the words in which MAIL or RCPT was answered: they may have been said again. */
  isDoubtful(verdict: ParsedReply | undefined): boolean {
    return (
      verdict !== undefined &&
      isPositive(verdict) &&
      this.#connection.said.end === undefined &&
      isOfAddress(verdict.enhanced) &&
      this.#isRepeated(verdict)
    );
  }

  /** How MAIL and RCPT were accepted. */
  remember(mail: ParsedReply | undefined, rcpt: ParsedReply | undefined): void {
    this.#hear(mail, rcpt);
    const { said } = this.#connection;
    said.mail ??= mail?.enhanced ?? '';
    said.rcpt ??= rcpt?.enhanced ?? '';
  }

  /**
   * A positive reply to this and nothing else; throws for a late one to another command: it would shift every answer
   * after it, and the 250 of one message would speak for the next.
   */
  isAccepted(reply: ParsedReply | undefined, to: 'mail' | 'rcpt' | 'end'): reply is ParsedReply {
    if (reply === undefined || !isPositive(reply)) return false;
    if (isOfAnother(reply.code, to) || this.#isWholeGreeting(reply)) throw this.#owner.outOfStep();
    if (to === 'mail') this.#mail = reply;
    else if (to === 'rcpt') this.#rcpt.push(reply);
    const { said } = this.#connection;
    const code = reply.enhanced ?? '';
    const usual = said[to];
    said[to] ??= code;
    if (usual === undefined || usual === code) return true;
    const others = to === 'rcpt' ? [said.mail, said.end] : [said.mail, said.rcpt];
    if (to === 'mail' || others.includes(code)) throw this.#owner.outOfStep();
    return true;
  }

  /** The reply to EHLO said once more: a verdict of several lines may well have one of its words. */
  #isWholeGreeting({ lines }: ParsedReply): boolean {
    if (lines.length < 3) return false;
    return keywordsOf(lines).join() === keywordsOf(this.#connection.greeting.split('\n')).join();
  }

  #hear(mail: ParsedReply | undefined, rcpt: ParsedReply | undefined): void {
    this.#mail = mail ?? this.#mail;
    if (rcpt !== undefined) this.#rcpt.push(rcpt);
  }

  /** What is said to MAIL and RCPT alike tells nothing. */
  #isRepeated(reply: ParsedReply): boolean {
    const said = wordsOf(reply);
    const mail = this.#mail === undefined ? '' : wordsOf(this.#mail);
    const rcpt = this.#rcpt.map(wordsOf);
    return !rcpt.includes(mail) && (said === mail || rcpt.includes(said));
  }

  /** Of an address (RFC 3463 §3.2), and how it reads is not how MAIL and RCPT do, which are told apart. */
  #isOfNone({ enhanced }: ParsedReply): boolean {
    const mail = this.#mail?.enhanced;
    const rcpt = this.#rcpt.map((reply) => reply.enhanced);
    return enhanced !== mail && !rcpt.includes(enhanced) && !rcpt.includes(mail);
  }
}
