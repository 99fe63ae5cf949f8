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
const NOOP: Marker = ['NOOP\r\n'];
/** Who closes instead of answering the marker does so at once; silence before it means that the verdict itself is missing, ms. */
const PROMPT_MS = 2_000;

export interface Step {
  /** Whether the verdict can be told from a reply to MAIL or RCPT that comes late. */
  isTagged(): boolean;
  /** What follows a body. `behindChunks`: replies to its chunks, which look like the verdict, may come late. */
  marker(behindChunks: boolean): Marker;
  /** The verdict came and the marker was not answered, for the connection ended `quietMs` later: it is the verdict where it reads like none on an address. */
  isCertain(verdict: ParsedReply | undefined, quietMs: number): boolean;
  /** A yes to the first body on a connection that reads like one to an address: what was said to RCPT may have been said again. */
  isDoubtful(verdict: ParsedReply | undefined): boolean;
  /** How MAIL and RCPT were accepted. */
  remember(mail: ParsedReply | undefined, rcpt: ParsedReply | undefined): void;
  /** A positive reply to this and nothing else; throws what `outOfStep` makes for a late one to another command. */
  isAccepted(reply: ParsedReply | undefined, to: 'mail' | 'rcpt' | 'end'): reply is ParsedReply;
}

/** RFC 3463 §3.2. */
const isOfAddress = (enhanced: string | undefined): boolean => enhanced?.startsWith('2.1.') === true;

export function createStep(connection: UpstreamConnection, outOfStep: () => Error): Step {
  const isTagged = (): boolean => {
    const { mail, rcpt, end } = connection.said;
    if (!connection.capabilities.enhancedStatusCodes) return false;
    return end === undefined || (end !== mail && end !== rcpt);
  };
  return {
    isTagged,
    // Where replies look all alike, or how is not known yet, one too many shows only by what answers the marker.
    marker: (behindChunks) =>
      !behindChunks && isTagged() && connection.said.end !== undefined ? NONE : NOOP,
    isCertain: ({ enhanced } = { code: 0, text: '', lines: [] }, quietMs) =>
      quietMs <= PROMPT_MS && enhanced !== undefined && !isOfAddress(enhanced),
    isDoubtful: (verdict) =>
      verdict !== undefined &&
      isPositive(verdict) &&
      connection.said.end === undefined &&
      isOfAddress(verdict.enhanced),
    remember(mail, rcpt) {
      const { said } = connection;
      said.mail ??= mail?.enhanced ?? '';
      said.rcpt ??= rcpt?.enhanced ?? '';
    },
    // A late one would shift every answer after it, and the 250 of one message would speak for the next.
    isAccepted(reply, to): reply is ParsedReply {
      if (reply === undefined || !isPositive(reply)) return false;
      if (isOfAnother(reply.code, to)) throw outOfStep();
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
}
