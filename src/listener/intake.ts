/**
 * A body on its way from the client to the relay. In: content pieces. Out: the same pieces to the relay's
 * `BodyWriter`, or a refusal of our own (size, loop, From:, bare line ends), after which the rest is
 * thrown away and nothing is delivered. Owns the header while it is not judged, and octets of small pieces.
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

/** More than these `Received` lines mean that the message goes round (RFC 5321 §6.3 asks for a generous threshold; a Gmail to Microsoft path has about ten). */
const MAX_RECEIVED = 30;
/** After so many pieces below this they are put together: each that is held costs some 200 octets of its own. */
const MAX_SMALL = 64;
const SMALL_OCTETS = 512;
const SLAB_OCTETS = 4 * 1024;

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
  /** Told of a message that is too long. */
  readonly onOversize: () => void;
  /** Told of a refusal: nothing of the message is held any more. */
  readonly onRefuse: () => void;
}

/** The relay's `BodyWriter` with our own judgement before it. */
export interface Intake extends BodyWriter {
  readonly bareLineEnds: BareLineEnds;
  /** A line end that this listener does not take: refused, and what is upstream already is cut off. */
  fault(kind: BodyFault): void;
  /** This will be the answer; what is upstream already is cut off. Only the first counts. */
  refuse(r: Reply): void;
}

export function createIntake(writer: BodyWriter, options: IntakeOptions): Intake {
  let bytes = 0;
  let header: HeaderCollector | undefined = createHeaderCollector(MAX_HEADER_OCTETS);
  let refusal: Reply | undefined;
  let isCut = false;
  let { preamble } = options;
  const heldBack: Buffer[] = [];
  let smallOnes = 0;
  let slab: Buffer | undefined;
  let inSlab = 0;

  function pass(piece: Buffer): Promise<void> | undefined {
    if (preamble === undefined) return writer.write(piece);
    const wait = writer.write(preamble);
    preamble = undefined;
    return wait === undefined ? writer.write(piece) : wait.then(() => writer.write(piece));
  }

  function refuse(r: Reply): void {
    if (refusal !== undefined || isCut) return;
    refusal = r;
    header = undefined;
    heldBack.length = 0;
    writer.cut(`refused: ${r.text}`);
    options.onRefuse();
  }

  function judge(section: Buffer): void {
    header = undefined;
    if (countReceived(section.toString('latin1')) > MAX_RECEIVED) {
      refuse(reply(554, '5.4.6', `Routing loop: more than ${MAX_RECEIVED} Received lines`));
      return;
    }
    if (!options.checkFromHeader) return;
    const from = parseFromAddresses(section.toString());
    const foreign = from?.find((address) => !maySendAs(options.account, address));
    if (from === undefined) refuse(reply(550, '5.7.1', 'From: is missing, repeated or unreadable'));
    else if (foreign !== undefined) {
      refuse(reply(550, '5.7.1', `From: ${foreign} is not a sender of account ${options.account.id}`));
    }
  }

  function take(piece: Buffer): Promise<void> | undefined {
    const current = header;
    const section = current?.push(piece);
    if (section !== undefined) judge(section);
    // A second From: may stand in what was not judged.
    if (current?.isTooLong() === true && options.checkFromHeader) refuse(HEADER_TOO_LONG);
    if (refusal !== undefined) return undefined;
    if (current === undefined || options.changeHeader === undefined) return pass(piece);
    heldBack.push(piece);
    if (section === undefined) return undefined;
    if (current.isTooLong()) {
      refuse(HEADER_TOO_LONG);
      return undefined;
    }
    // All but the empty line, which is not the section's.
    return letGo(current.octets() - 2);
  }

  /** What was held back of a header that is to be changed; its section has `octets`. */
  function letGo(octets: number): Promise<void> | undefined {
    const all = Buffer.concat(heldBack.splice(0));
    const section = all.subarray(0, octets);
    const changed = options.changeHeader?.(section);
    if (changed === undefined) return all.length === 0 ? undefined : pass(all);
    writer.sizeChanged();
    writer.headerChanged(section);
    const rest = all.subarray(octets);
    const wait = changed.length === 0 ? undefined : pass(changed);
    if (rest.length === 0) return wait;
    return wait === undefined ? pass(rest) : wait.then(() => pass(rest));
  }

  /** The small pieces so far as one. */
  function emptySlab(): Promise<void> | undefined {
    if (slab === undefined || inSlab === 0 || refusal !== undefined) return undefined;
    const piece = Buffer.from(slab.subarray(0, inSlab));
    inSlab = 0;
    return take(piece);
  }

  function collect(piece: Buffer): Promise<void> | undefined {
    slab ??= Buffer.allocUnsafeSlow(SLAB_OCTETS);
    const wait = inSlab + piece.length > slab.length ? emptySlab() : undefined;
    inSlab += piece.copy(slab, inSlab);
    return wait;
  }

  /** What was not passed on yet, then the end. */
  async function finish(): Promise<Reply> {
    if (inSlab > 0) await emptySlab();
    const unfinished = header;
    if (unfinished !== undefined) {
      judge(unfinished.end());
      if (refusal === undefined && options.changeHeader !== undefined) await letGo(unfinished.octets());
    }
    if (refusal !== undefined) return refusal;
    if (preamble !== undefined) await writer.write(preamble);
    return writer.end();
  }

  return {
    // Where a header ends is a matter of opinion with bare line ends in it: the check of From: could be fooled.
    bareLineEnds:
      options.bareLineEnds === 'pass' && options.checkFromHeader ? 'reject' : options.bareLineEnds,
    fault: (kind) => refuse(FAULTS[kind]),
    sizeChanged: () => writer.sizeChanged(),
    headerChanged: (clientHeader) => writer.headerChanged(clientHeader),
    refuse,
    write(piece) {
      if (refusal !== undefined || isCut) return undefined;
      bytes += piece.length;
      if (bytes > options.maxBytes) {
        options.onOversize();
        refuse(reply(552, '5.3.4', `Message exceeds ${options.maxBytes} octets`));
        return undefined;
      }
      if (piece.length < SMALL_OCTETS && ++smallOnes > MAX_SMALL) return collect(piece);
      const wait = emptySlab();
      return wait === undefined ? take(piece) : wait.then(() => (isCut ? undefined : take(piece)));
    },
    end() {
      // The end may have been in the chunk that was waiting when the client left.
      if (isCut) return Promise.resolve(reply(451, '4.4.2', 'The session ended'));
      const isPassedOn = inSlab === 0 && header === undefined && preamble === undefined;
      return isPassedOn && refusal === undefined ? writer.end() : finish();
    },
    cut(reason) {
      if (isCut || refusal !== undefined) return;
      isCut = true;
      writer.cut(reason);
    },
    giveUp: () => writer.giveUp(),
  };
}
