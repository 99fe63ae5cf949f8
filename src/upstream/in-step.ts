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

export interface Step {
  /** Whether the verdict can be told from a reply to MAIL or RCPT that comes late. */
  isTagged(): boolean;
  /** What follows a body. `behindChunks`: replies to its chunks, which look like the verdict, may come late. */
  marker(behindChunks: boolean): Marker;
  /** EHLO: its reply can be told from all others. */
  readonly ehlo: Marker;
  /** How MAIL and RCPT were accepted. */
  remember(mail: ParsedReply | undefined, rcpt: ParsedReply | undefined): void;
  /** A positive reply to this and nothing else; throws what `outOfStep` makes for a late one to another command. */
  isAccepted(reply: ParsedReply | undefined, to: 'mail' | 'rcpt' | 'end'): reply is ParsedReply;
  /** The reply to EHLO. */
  isGreeting(reply: ParsedReply): boolean;
  /** Said of the body, whatever comes behind it; `envelope`: replies to MAIL and RCPT that came with it. */
  isCertain(verdict: ParsedReply | undefined, envelope?: readonly ParsedReply[]): boolean;
  /** How a chunk before the last was answered. */
  hearChunk(reply: ParsedReply): void;
  /** A yes to the first body on a connection, in the words in which MAIL or RCPT was answered: they may have been said again. */
  isDoubtful(verdict: ParsedReply | undefined): boolean;
}

/** RFC 3463 §3.2. */
const isOfAddress = (enhanced: string | undefined): boolean => enhanced?.startsWith('2.1.') === true;
/** The keywords of what a server offers (RFC 5321 §4.1.1.1). */
const keywordsOf = (lines: readonly string[]): readonly string[] =>
  lines.slice(1).map((line) => line.split(' ', 1)[0] ?? '');
const wordsOf = ({ code, lines }: ParsedReply): string => [code, ...lines].join('\n');

export function createStep(connection: UpstreamConnection, outOfStep: () => Error): Step {
  /** How this message's MAIL, RCPTs and chunks were answered. */
  const heard = {
    mail: undefined as ParsedReply | undefined,
    rcpt: [] as ParsedReply[],
    chunks: [] as ParsedReply[],
  };
  function hear(to: 'mail' | 'rcpt', reply: ParsedReply | undefined): void {
    if (reply === undefined) return;
    if (to === 'mail') heard.mail = reply;
    else heard.rcpt.push(reply);
  }
  const isTagged = (): boolean => {
    const { mail, rcpt, end } = connection.said;
    if (!connection.capabilities.enhancedStatusCodes) return false;
    return end === undefined || (end !== mail && end !== rcpt);
  };
  // Not all of it: behind a login a server may offer something else.
  const isGreeting = ({ lines }: ParsedReply): boolean => {
    if (lines.length === 1) return false;
    const offered = keywordsOf(connection.greeting.split('\n'));
    return keywordsOf(lines).some((keyword) => offered.includes(keyword));
  };
  /** What is said to MAIL and RCPT alike tells nothing. */
  function isRepeated(reply: ParsedReply): boolean {
    const said = wordsOf(reply);
    const mail = heard.mail === undefined ? '' : wordsOf(heard.mail);
    const rcpt = heard.rcpt.map(wordsOf);
    return !rcpt.includes(mail) && (said === mail || rcpt.includes(said));
  }
  /** Of an address (RFC 3463 §3.2), and how it reads is not how MAIL and RCPT do, which are told apart. */
  function isOfNone({ enhanced }: ParsedReply): boolean {
    const mail = heard.mail?.enhanced;
    const rcpt = heard.rcpt.map((reply) => reply.enhanced);
    return enhanced !== mail && !rcpt.includes(enhanced) && !rcpt.includes(mail);
  }
  const step: Step = {
    isTagged,
    get ehlo() {
      return [`EHLO ${connection.heloName}\r\n`];
    },
    isGreeting,
    // Where replies look all alike, or how is not known yet, one too many shows only by what answers the marker.
    marker: (behindChunks) =>
      !behindChunks && isTagged() && connection.said.end !== undefined ? NONE : step.ehlo,
    isCertain(verdict, [mail, rcpt] = []) {
      hear('mail', mail);
      hear('rcpt', rcpt);
      if (verdict === undefined || isGreeting(verdict) || isRepeated(verdict)) return false;
      if (heard.chunks.map(wordsOf).includes(wordsOf(verdict))) return false;
      return !isOfAddress(verdict.enhanced) || isOfNone(verdict);
    },
    hearChunk: (reply) => void heard.chunks.push(reply),
    isDoubtful: (verdict) =>
      verdict !== undefined &&
      isPositive(verdict) &&
      connection.said.end === undefined &&
      isOfAddress(verdict.enhanced) &&
      isRepeated(verdict),
    remember(mail, rcpt) {
      hear('mail', mail);
      hear('rcpt', rcpt);
      const { said } = connection;
      said.mail ??= mail?.enhanced ?? '';
      said.rcpt ??= rcpt?.enhanced ?? '';
    },
    // A late one would shift every answer after it, and the 250 of one message would speak for the next.
    isAccepted(reply, to): reply is ParsedReply {
      if (reply === undefined || !isPositive(reply)) return false;
      if (isOfAnother(reply.code, to)) throw outOfStep();
      if (to !== 'end') hear(to, reply);
      const { said } = connection;
      const code = reply.enhanced ?? '';
      const usual = said[to];
      said[to] ??= code;
      if (usual === undefined || usual === code) return true;
      const others = to === 'rcpt' ? [said.mail, said.end] : [said.mail, said.rcpt];
      if (to === 'mail' || others.includes(code)) throw outOfStep();
      return true;
    },
  };
  return step;
}
