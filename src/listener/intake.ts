/**
 * A body on its way from the client to the relay. In: content pieces. Out: the same pieces to the relay's
 * `BodyWriter`, or a refusal of our own (size, loop, From:, bare line ends), after which the rest is
 * thrown away and nothing is delivered. Owns the header while it is not judged, octets of small pieces, and
 * its share of the memory for bodies.
 */
import type { Account } from '../accounts/account.ts';
import { maySendAs } from '../accounts/directory.ts';
import type { BareLineEnds, BodyFault } from '../protocol/body-decoder.ts';
import { parseFromAddresses } from '../protocol/from-header.ts';
import { createHeaderCollector, type HeaderCollector } from '../protocol/header-section.ts';
import { HEADER_TOO_LONG, MAX_HEADER_OCTETS } from '../protocol/message-header.ts';
import { countReceived } from '../protocol/received.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import type { BodyWriter } from '../relay/relay.ts';
import type { Share } from './held-budget.ts';

/** More than these `Received` lines mean that the message goes round (RFC 5321 §6.3 asks for a generous threshold; a Gmail to Microsoft path has about ten). */
const MAX_RECEIVED = 30;
/** After so many pieces below this they are put together: each that is held costs some 200 octets of its own. */
const MAX_SMALL = 64;
const SMALL_OCTETS = 512;
const SLAB_OCTETS = 4 * 1024;

export const SESSION_ENDED = reply(451, '4.4.2', 'The session ended');
export const NO_MEMORY = reply(452, '4.3.1', 'Too many messages in progress, try again later');
const FAULTS: Readonly<Record<BodyFault, Reply>> = {
  bare_cr: reply(554, '5.6.0', 'Bare CR in the message; lines end with CRLF (RFC 5321 section 2.3.8)'),
  bare_lf: reply(554, '5.6.0', 'Bare LF in the message; lines end with CRLF (RFC 5321 section 2.3.8)'),
};

export interface IntakeOptions {
  readonly account: Account;
  readonly maxBytes: number;
  readonly checkFromHeader: boolean;
  readonly bareLineEnds: BareLineEnds;
  /** Another header section in place of the client's; undefined where it stays. Absent: nothing is held back. */
  readonly changeHeader?: (section: Buffer) => Buffer | undefined;
  /** Goes out before the first octet of the client's. */
  readonly preamble: Buffer | undefined;
  /** Of the memory for bodies. */
  readonly share: Share;
  /** Told of a message that is too long. */
  readonly onOversize: () => void;
  /** The final reply is known. */
  readonly onEnd: () => void;
}

/** The relay's `BodyWriter` with our own judgement before it. A class: closures of each message would cost more than it does. */
export class Intake implements BodyWriter {
  readonly bareLineEnds: BareLineEnds;
  /** The body is complete, the final reply awaited. */
  isEnding = false;
  readonly #writer: BodyWriter;
  readonly #options: IntakeOptions;
  #octets = 0;
  #header: HeaderCollector | undefined = createHeaderCollector(MAX_HEADER_OCTETS);
  #refusal: Reply | undefined;
  #isCut = false;
  #preamble: Buffer | undefined;
  readonly #heldBack: Buffer[] = [];
  #smallOnes = 0;
  #slab: Buffer | undefined;
  #inSlab = 0;

  constructor(writer: BodyWriter, options: IntakeOptions) {
    this.#writer = writer;
    this.#options = options;
    this.#preamble = options.preamble;
    // Where a header ends is a matter of opinion with bare line ends in it: the check of From: could be fooled.
    this.bareLineEnds =
      options.bareLineEnds === 'pass' && options.checkFromHeader ? 'reject' : options.bareLineEnds;
  }

  write(piece: Buffer): Promise<void> | undefined {
    if (this.#refusal !== undefined || this.#isCut) return undefined;
    this.#octets += piece.length;
    const room = this.#options.share.cover(this.#octets);
    if (room === true) return this.#accept(piece);
    if (room instanceof Promise) return room.then((isGranted) => this.#accept(isGranted ? piece : undefined));
    return this.#accept(undefined);
  }

  sizeChanged(): void {
    this.#writer.sizeChanged();
  }

  headerChanged(clientHeader: Buffer): void {
    this.#writer.headerChanged(clientHeader);
  }

  /** A line end that this listener does not take: refused, and what is upstream already is cut off. */
  fault(kind: BodyFault): void {
    this.#refuse(FAULTS[kind]);
  }

  async end(): Promise<Reply> {
    this.isEnding = true;
    const final = this.#isPassedOn ? await this.#writer.end() : await this.#finish();
    this.#options.share.release();
    this.#options.onEnd();
    return final;
  }

  /** A message that waits to be sent is not sent to a client that is gone: it would send it again. */
  abort(): void {
    if (!this.#isCut && this.#refusal === undefined) {
      this.#isCut = true;
      this.#writer.abort();
    }
    if (!this.isEnding) this.#options.share.release();
  }

  giveUp(): void {
    this.#writer.giveUp();
  }

  /** `undefined`: there is no memory for it. */
  #accept(piece: Buffer | undefined): Promise<void> | undefined {
    if (this.#refusal !== undefined || this.#isCut) return undefined;
    const { maxBytes, onOversize } = this.#options;
    if (piece === undefined) {
      this.#refuse(NO_MEMORY);
      return undefined;
    }
    if (this.#octets > maxBytes) {
      onOversize();
      this.#refuse(reply(552, '5.3.4', `Message exceeds ${maxBytes} octets`));
      return undefined;
    }
    if (piece.length < SMALL_OCTETS && ++this.#smallOnes > MAX_SMALL) return this.#collect(piece);
    const wait = this.#emptySlab();
    return wait === undefined
      ? this.#take(piece)
      : wait.then(() => (this.#isCut ? undefined : this.#take(piece)));
  }

  #pass(piece: Buffer): Promise<void> | undefined {
    const writer = this.#writer;
    const preamble = this.#preamble;
    if (preamble === undefined) return writer.write(piece);
    this.#preamble = undefined;
    const wait = writer.write(preamble);
    return wait === undefined ? writer.write(piece) : wait.then(() => writer.write(piece));
  }

  /** This will be the answer; what is upstream already is cut off. Only the first counts. */
  #refuse(r: Reply): void {
    if (this.#refusal !== undefined || this.#isCut) return;
    this.#refusal = r;
    this.#header = undefined;
    this.#heldBack.length = 0;
    this.#writer.abort();
    this.#options.share.release();
  }

  #judge(section: Buffer): void {
    const { account, checkFromHeader } = this.#options;
    this.#header = undefined;
    if (countReceived(section.toString('latin1')) > MAX_RECEIVED) {
      this.#refuse(reply(554, '5.4.6', `Routing loop: more than ${MAX_RECEIVED} Received lines`));
      return;
    }
    if (!checkFromHeader) return;
    const from = parseFromAddresses(section.toString());
    const foreign = from?.find((address) => !maySendAs(account, address));
    if (from === undefined) this.#refuse(reply(550, '5.7.1', 'From: is missing, repeated or unreadable'));
    else if (foreign !== undefined)
      this.#refuse(reply(550, '5.7.1', `From: ${foreign} is not a sender of account ${account.id}`));
  }

  #take(piece: Buffer): Promise<void> | undefined {
    const { checkFromHeader, changeHeader } = this.#options;
    const header = this.#header;
    const section = header?.push(piece);
    if (section !== undefined) this.#judge(section);
    // A second From: may stand in what was not judged.
    if (header?.isTooLong() === true && checkFromHeader) this.#refuse(HEADER_TOO_LONG);
    if (this.#refusal !== undefined) return undefined;
    if (header === undefined || changeHeader === undefined) return this.#pass(piece);
    this.#heldBack.push(piece);
    if (section === undefined) return undefined;
    if (header.isTooLong()) {
      this.#refuse(HEADER_TOO_LONG);
      return undefined;
    }
    // All but the empty line, which is not the section's.
    return this.#letGo(header.octets() - 2);
  }

  /** What was held back of a header that is to be changed; its section has `octets`. */
  #letGo(octets: number): Promise<void> | undefined {
    const all = Buffer.concat(this.#heldBack.splice(0));
    const section = all.subarray(0, octets);
    const changed = this.#options.changeHeader?.(section);
    if (changed === undefined) return all.length === 0 ? undefined : this.#pass(all);
    this.#writer.sizeChanged();
    this.#writer.headerChanged(section);
    const rest = all.subarray(octets);
    const wait = changed.length === 0 ? undefined : this.#pass(changed);
    if (rest.length === 0) return wait;
    return wait === undefined ? this.#pass(rest) : wait.then(() => this.#pass(rest));
  }

  /** The small pieces so far as one. */
  #emptySlab(): Promise<void> | undefined {
    if (this.#slab === undefined || this.#inSlab === 0 || this.#refusal !== undefined) return undefined;
    const piece = Buffer.from(this.#slab.subarray(0, this.#inSlab));
    this.#inSlab = 0;
    return this.#take(piece);
  }

  #collect(piece: Buffer): Promise<void> | undefined {
    this.#slab ??= Buffer.allocUnsafeSlow(SLAB_OCTETS);
    const wait = this.#inSlab + piece.length > this.#slab.length ? this.#emptySlab() : undefined;
    this.#inSlab += piece.copy(this.#slab, this.#inSlab);
    return wait;
  }

  /** Nothing of it is left here. */
  get #isPassedOn(): boolean {
    const isLeft = this.#inSlab > 0 || this.#header !== undefined || this.#preamble !== undefined;
    return !isLeft && this.#refusal === undefined && !this.#isCut;
  }

  /** What was not passed on yet, then the end. */
  async #finish(): Promise<Reply> {
    // The end may have been in the chunk that was waiting when the client left.
    if (this.#isCut) return SESSION_ENDED;
    if (this.#inSlab > 0) await this.#emptySlab();
    const header = this.#header;
    if (header !== undefined) {
      this.#judge(header.end());
      if (this.#refusal === undefined && this.#options.changeHeader !== undefined)
        await this.#letGo(header.octets());
    }
    if (this.#refusal !== undefined) return this.#refusal;
    if (this.#preamble !== undefined) await this.#writer.write(this.#preamble);
    return this.#writer.end();
  }
}
