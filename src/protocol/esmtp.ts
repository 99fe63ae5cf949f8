/** MAIL and RCPT as an upstream gets them: the commands, and whether it has the extensions their parameters need. */
import type { Capabilities } from './capabilities.ts';
import { splitParameter } from './esmtp-parameters.ts';
import { type Reply, reply } from './reply.ts';

/** Whether the client has heard its final reply. `perhaps`: it left without a word after it had been written. */
export type Heard = 'yes' | 'perhaps' | 'no';

export interface Mail {
  /** Reverse-path without angle brackets; empty for the null sender. */
  readonly sender: string;
  readonly parameters: readonly string[];
  /** The header section as the client gave it, where another goes out in its place. */
  readonly clientHeader?: Buffer;
  /** The reverse-path as the client gave it, where another goes out in its place. */
  readonly clientSender?: string;
  /** The account of a client that has logged in, else the accounts of its listener where that names some: what any other says is another message. */
  readonly confinedTo?: string;
  /** Whether the client has closed its side by now, or said more than the message: it does not wait for the reply. */
  readonly mayBeGone?: () => boolean;
  /** Asked while the final reply is due; resolves with the client's next word or the end of its connection. Never rejects. */
  readonly heard?: () => Promise<Heard>;
}

export interface Recipient {
  readonly address: string;
  readonly parameters: readonly string[];
}

const parametersText = (parameters: readonly string[]): string =>
  parameters.length === 0 ? '' : ` ${parameters.join(' ')}`;
/** The command with CRLF (RFC 5321 §4.1.1.2). */
export const formatMail = (m: Mail): string => `MAIL FROM:<${m.sender}>${parametersText(m.parameters)}\r\n`;
/** The command with CRLF (RFC 5321 §4.1.1.3). */
export const formatRcpt = (r: Recipient): string =>
  `RCPT TO:<${r.address}>${parametersText(r.parameters)}\r\n`;

/** What may be sent on, or the refusal where an extension is missing that the message needs. */
export type Fitted = { readonly parameters: readonly string[] } | { readonly refusal: Reply };

const DSN_KEYWORDS = new Set(['RET', 'ENVID', 'NOTIFY', 'ORCPT']);

/**
 * Keeps what the upstream offers and drops what is only informative without its extension (SIZE,
 * BODY=7BIT, a lone ORCPT); a parameter the message needs is never dropped: 555 5.5.4 for DSN (RFC 5321 §4.1.1.11),
 * 554 5.6.3 for 8-bit bodies (RFC 6152 §3), 550 5.6.7 for SMTPUTF8 (RFC 6531 §3.5).
 */
export function fitParameters(parameters: readonly string[], offered: Capabilities): Fitted {
  if (parameters.length === 0) return { parameters };
  const kept: string[] = [];
  for (const parameter of parameters) {
    const [keyword, written = ''] = splitParameter(parameter);
    const value = written.toUpperCase();
    if (keyword === 'SIZE') {
      if (offered.size !== undefined) kept.push(parameter);
    } else if (keyword === 'BODY') {
      if (value === '7BIT') {
        if (offered.eightBitMime) kept.push(parameter);
      } else if (value === '8BITMIME' ? offered.eightBitMime : offered.binaryMime && offered.chunking) {
        kept.push(parameter);
      } else {
        return { refusal: reply(554, '5.6.3', `the upstream of this account does not take BODY=${value}`) };
      }
    } else if (keyword === 'SMTPUTF8') {
      if (!offered.smtpUtf8)
        return { refusal: reply(550, '5.6.7', 'the upstream of this account does not take SMTPUTF8') };
      kept.push(parameter);
    } else if (DSN_KEYWORDS.has(keyword) && offered.dsn) {
      kept.push(parameter);
    } else if (keyword === 'ORCPT' && !offered.dsn && parameters.length === 1) {
      // Alone it asks for nothing (RFC 3461 §4.2); an MTA that saw DSN offered before a reload sends it.
    } else {
      return {
        refusal: reply(555, '5.5.4', `the upstream of this account does not take the parameter ${keyword}`),
      };
    }
  }
  return { parameters: kept };
}
