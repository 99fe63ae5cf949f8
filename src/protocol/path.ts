/**
 * The argument of MAIL and RCPT: a path and ESMTP parameters. In: the text after `FROM:` or `TO:`. Out:
 * the address as the client wrote it, source route stripped, and the parameters unaltered. Pure.
 */
import { isIP } from 'node:net';
import { type Reply, reply } from './reply.ts';
import { foldAscii } from './text.ts';

export interface PathArgument {
  /** Without angle brackets and source route; empty for `<>`. */
  readonly address: string;
  /** As written: `SIZE=100`, `ENVID=QQ+2B1`. */
  readonly parameters: readonly string[];
}

/** Which command: it decides the enhanced code of a refusal and whether `<>` or `<postmaster>` may stand. */
export type PathCommand = 'MAIL' | 'RCPT';

/** RFC 5321 §4.5.3.1.3: 256 octets with the angle brackets. */
const MAX_ADDRESS_OCTETS = 254;
// biome-ignore lint/suspicious/noControlCharactersInRegex: refusing them is the purpose
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const NON_ASCII = /[\u0080-\u{10ffff}]/u;
/** RFC 5321 §4.1.1 esmtp-param; with SMTPUTF8 a value may hold UTF-8 (RFC 6531 §3.3). */
const PARAMETER = /^[A-Za-z0-9][A-Za-z0-9-]*(?:=[!-<>-~\u00a0-\u{10ffff}]+)?$/u;
/** RFC 5321 §4.1.2 Dot-string, with UTF-8 (RFC 6531 §3.3): no dot at an end, no two together. */
const LOCAL_PART = /^[^\s"(),.:;<>@[\\\]]+(?:\.[^\s"(),.:;<>@[\\\]]+)*$/;
const QUOTED_LOCAL_PART = /^"(?:[^"\\]|\\.)*"$/;
const DOMAIN =
  /^(?:[A-Za-z0-9_\u0080-\u{10ffff}](?:[A-Za-z0-9_\u0080-\u{10ffff}-]*[A-Za-z0-9_\u0080-\u{10ffff}])?)(?:\.[A-Za-z0-9_\u0080-\u{10ffff}](?:[A-Za-z0-9_\u0080-\u{10ffff}-]*[A-Za-z0-9_\u0080-\u{10ffff}])?)*$/u;
/** RFC 5321 §4.1.3; no tag but IPv6 was ever registered. */
const ADDRESS_LITERAL = /^\[(IPv6:)?([0-9a-f:.]+)\]$/i;

// biome-ignore lint/suspicious/noControlCharactersInRegex: none may end the command
const ENDS_A_PATH = /[\u0000-\u0020\u007f<>]/;
/** Whether an address given by a person or a program can stand between the brackets of a command of ours. */
export const fitsPath = (address: string): boolean => !ENDS_A_PATH.test(address);

/** Splits and checks the argument; a `Reply` is the refusal for the client. `lenient`: blanks inside the brackets are dropped, as devices write them. */
export function parsePathArgument(command: PathCommand, text: string, lenient = false): PathArgument | Reply {
  const refusal = (why: string): Reply => reply(501, command === 'MAIL' ? '5.1.7' : '5.1.3', why);
  if (CONTROL.test(text)) return refusal('Control characters in the address');
  const argument = text.trim();
  let end: number;
  let path: string;
  if (argument.startsWith('<')) {
    end = closingBracket(argument);
    if (end < 0) return refusal(`Syntax: ${command} ${command === 'MAIL' ? 'FROM' : 'TO'}:<address>`);
    path = argument.slice(1, end);
    if (lenient) path = path.trim();
    end += 1;
  } else if (/<[^<>]*>/.test(argument)) {
    const syntax = command === 'MAIL' ? 'MAIL FROM:<' : 'RCPT TO:<';
    return refusal(`Write the address alone, without a name: ${syntax}address>`);
  } else {
    // Devices that leave the angle brackets out; what they mean is not in doubt.
    end = argument.includes(' ') ? argument.indexOf(' ') : argument.length;
    path = argument.slice(0, end);
    if (path === '') return refusal(`Syntax: ${command} ${command === 'MAIL' ? 'FROM' : 'TO'}:<address>`);
  }
  const rest = argument.slice(end);
  if (rest !== '' && !rest.startsWith(' ')) return refusal('Something follows the address');
  const parameters = rest.split(' ').filter((p) => p !== '');
  const malformed = parameters.find((p) => !PARAMETER.test(p));
  if (malformed !== undefined) return reply(501, '5.5.4', 'Malformed parameter');

  const address = withoutSourceRoute(path);
  // Quoted they are legal, and yet a server may take what follows for parameters.
  if (/[<>]/.test(address)) return reply(553, '5.1.3', 'Addresses with < or > are not taken');
  const isSpecial = command === 'MAIL' ? address === '' : foldAscii(address) === 'postmaster';
  if (!isSpecial && !isMailbox(address)) return refusal('Malformed address (RFC 5321 section 4.1.2)');
  return { address, parameters };
}

export const hasNonAscii = (text: string): boolean => NON_ASCII.test(text);

/** The `>` that ends the path: one inside a quoted local part does not. */
function closingBracket(argument: string): number {
  if (!argument.includes('"')) return argument.indexOf('>');
  let isQuoted = false;
  for (let i = 1; i < argument.length; i++) {
    const c = argument[i];
    if (isQuoted && c === '\\') i += 1;
    else if (c === '"') isQuoted = !isQuoted;
    else if (c === '>' && !isQuoted) return i;
  }
  return -1;
}

/** `@a,@b:user@c` means `user@c` (RFC 5321 §4.1.1.3: source routes are accepted and ignored). */
function withoutSourceRoute(path: string): string {
  if (!path.startsWith('@')) return path;
  const colon = path.indexOf(':');
  return colon < 0 ? path : path.slice(colon + 1);
}

function isMailbox(address: string): boolean {
  if (Buffer.byteLength(address) > MAX_ADDRESS_OCTETS) return false;
  const at = address.lastIndexOf('@');
  if (at < 1) return false;
  const local = address.slice(0, at);
  const domain = address.slice(at + 1);
  return (
    (LOCAL_PART.test(local) || QUOTED_LOCAL_PART.test(local)) &&
    (DOMAIN.test(domain) || isAddressLiteral(domain))
  );
}

function isAddressLiteral(text: string): boolean {
  const [, tag, address = ''] = ADDRESS_LITERAL.exec(text) ?? [];
  return isIP(address) === (tag === undefined ? 4 : 6);
}
