/** What a reply at a stage of a transaction can be, by its code and words. Pure. */
import type { ParsedReply } from '../protocol/reply-parser.ts';
import type { Stage } from '../protocol/verdict.ts';

/** Replies by which a server says it does not know BDAT although it offered CHUNKING. */
export const isUnknownCommand = (reply: ParsedReply): boolean => reply.code === 500 || reply.code === 502;

/** Said without being asked, too, by a server that closes (RFC 5321 §3.8). */
export const isFarewell = (reply: ParsedReply): boolean => reply.code === 421 || reply.code === 221;

/** No verdict on a body: the server closes, or does not know or take the command. */
export const isOfNoBody = (reply: ParsedReply): boolean =>
  isFarewell(reply) || isUnknownCommand(reply) || reply.code === 503;

/** Exchange counts a whole chunk as header and refuses it; the same message goes by DATA. */
export const isHeaderMiscount = (reply: ParsedReply): boolean =>
  reply.code === 552 && /header size/i.test(reply.text);

/** Positive replies that belong to other commands: HELP and the like, the greeting, QUIT, AUTH. */
const OF_OTHER_COMMANDS: ReadonlySet<number> = new Set([211, 214, 220, 221, 235]);

/**
 * Whether a positive code cannot be the answer at `stage`. One that no RFC knows can: its first digit decides
 * (RFC 5321 §4.2.1), and 2xx to a body means that the server has it. 251 and 252 are of RCPT (and VRFY).
 */
export const isOfAnother = (code: number, stage: Stage): boolean =>
  code >= 300 || OF_OTHER_COMMANDS.has(code) || (stage !== 'rcpt' && (code === 251 || code === 252));
