/**
 * A body on its way from the client to the relay. In: content pieces. Out: the same pieces to the relay's
 * `BodyWriter`, or a refusal of our own (size, loop, From:, bare line ends), after which the rest is
 * thrown away and nothing is delivered. Owns the part of the header it has not judged yet.
 */
import type { Account } from '../accounts/account.ts';
import { maySendAs } from '../accounts/directory.ts';
import type { BareLineEnds, BodyFault } from '../protocol/body-decoder.ts';
import { parseFromAddresses } from '../protocol/from-header.ts';
import { countReceived } from '../protocol/received.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import type { BodyWriter } from '../relay/relay.ts';

/** More than these `Received` lines mean that the message goes round (RFC 5321 §6.3 asks for a generous threshold; a Gmail to Microsoft path has about ten). */
const MAX_RECEIVED = 30;
/** A header section is judged by its first octets; no honest one is longer. */
const MAX_HEADER_OCTETS = 256 * 1024;
const END_OF_HEADER = '\r\n\r\n';

const FAULTS: Readonly<Record<BodyFault, Reply>> = {
  bare_cr: reply(554, '5.6.0', 'Bare CR in the message; lines end with CRLF (RFC 5321 section 2.3.8)'),
  bare_lf: reply(554, '5.6.0', 'Bare LF in the message; lines end with CRLF (RFC 5321 section 2.3.8)'),
};

export interface IntakeOptions {
  readonly account: Account;
  readonly maxBytes: number;
  readonly checkFromHeader: boolean;
  readonly bareLineEnds: BareLineEnds;
  /** Goes out before the first octet of the client's. */
  readonly preamble: Buffer | undefined;
  /** Told of a message that is too long. */
  readonly onOversize: () => void;
}

export interface Intake {
  readonly bareLineEnds: BareLineEnds;
  /** A promise means: wait for it. Never rejects. */
  write(piece: Buffer): Promise<void> | undefined;
  /** A line end that this listener does not take: refused, and what is upstream already is cut off. */
  fault(kind: BodyFault): void;
  /** Line ends were mended: the size the client declared is no longer true. */
  grew(): void;
  /** The final reply. Never rejects. */
  end(): Promise<Reply>;
  /** The client is gone: nothing may be delivered. A no-op after `end`. */
  cut(reason: string): void;
}

export function createIntake(writer: BodyWriter, options: IntakeOptions): Intake {
  let bytes = 0;
  let header: string | undefined = '';
  let refusal: Reply | undefined;
  let isEnded = false;
  let isCut = false;
  let { preamble } = options;

  function pass(piece: Buffer): Promise<void> | undefined {
    if (preamble === undefined) return writer.write(piece);
    const wait = writer.write(preamble);
    preamble = undefined;
    return wait === undefined ? writer.write(piece) : wait.then(() => writer.write(piece));
  }

  function refuse(r: Reply): void {
    if (refusal !== undefined) return;
    refusal = r;
    header = undefined;
    writer.cut(`refused: ${r.text}`);
  }

  /** Collects the header and judges it once it is complete. */
  function inspect(piece: Buffer): void {
    if (header === undefined) return;
    const before = header.length;
    header += piece.toString('latin1', 0, Math.min(piece.length, MAX_HEADER_OCTETS - before));
    const end = header.startsWith('\r\n') ? 0 : header.indexOf(END_OF_HEADER, Math.max(0, before - 3));
    if (end >= 0) judge(header.slice(0, end));
    else if (header.length >= MAX_HEADER_OCTETS) judge(header);
  }

  function judge(section: string): void {
    header = undefined;
    if (countReceived(section) > MAX_RECEIVED) {
      refuse(reply(554, '5.4.6', `Routing loop: more than ${MAX_RECEIVED} Received lines`));
      return;
    }
    if (!options.checkFromHeader) return;
    const from = parseFromAddresses(Buffer.from(section, 'latin1').toString());
    const foreign = from?.find((address) => !maySendAs(options.account, address));
    if (from === undefined) refuse(reply(550, '5.7.1', 'From: is missing, repeated or unreadable'));
    else if (foreign !== undefined) {
      refuse(reply(550, '5.7.1', `From: ${foreign} is not a sender of account ${options.account.id}`));
    }
  }

  return {
    // Where a header ends is a matter of opinion with bare line ends in it: the check of From: could be fooled.
    bareLineEnds:
      options.bareLineEnds === 'pass' && options.checkFromHeader ? 'reject' : options.bareLineEnds,
    fault: (kind) => refuse(FAULTS[kind]),
    grew: () => writer.sizeChanged(),
    write(piece) {
      if (refusal !== undefined || isCut) return undefined;
      bytes += piece.length;
      if (bytes > options.maxBytes) {
        options.onOversize();
        refuse(reply(552, '5.3.4', `Message exceeds ${options.maxBytes} octets`));
        return undefined;
      }
      inspect(piece);
      return refusal === undefined ? pass(piece) : undefined;
    },
    async end() {
      isEnded = true;
      // The end may have been in the chunk that was waiting when the client left.
      if (isCut) return reply(451, '4.4.2', 'The session ended');
      if (header !== undefined) judge(header);
      if (refusal !== undefined) return refusal;
      if (preamble !== undefined) await writer.write(preamble);
      return writer.end();
    },
    cut(reason) {
      if (isEnded || isCut || refusal !== undefined) return;
      isCut = true;
      writer.cut(reason);
    },
  };
}
