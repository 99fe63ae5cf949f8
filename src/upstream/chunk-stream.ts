/**
 * A body that leaves in BDAT chunks (RFC 3030) while it comes in. In: pieces. Out: the decision. The
 * first chunk ends with the header section: Exchange counts the declared size of that chunk as header.
 */
import { isPositive } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import type { UpstreamConnection } from './connection.ts';
import type { UpstreamError } from './failure.ts';
import type { Decision, SubmissionStream } from './talk.ts';
import { CHUNK_TIMEOUT_MS, FINAL_TIMEOUT_MS } from './timeouts.ts';

/** Chunks have at least this many octets: few replies, little memory. */
const CHUNK_OCTETS = 256 * 1024;
const END_OF_HEADER = '\r\n\r\n';

const sizeOf = (pieces: readonly Buffer[]): number => pieces.reduce((sum, piece) => sum + piece.length, 0);

export interface ChunkDialogue {
  lost(error: unknown): UpstreamError;
  /** A chunk was taken. */
  taken(reply: ParsedReply): void;
  /** A chunk was refused: the decision on the message. */
  refused(reply: ParsedReply): Decision;
  /** Writes the last chunk and waits for the decision. Rejects with `UpstreamError`. */
  sendLast(parts: readonly (string | Buffer)[]): Promise<Decision>;
}

export function createChunkStream(connection: UpstreamConnection, dialogue: ChunkDialogue): SubmissionStream {
  let held: Buffer[] = [];
  let octets = 0;
  let isHeaderSent = false;
  let refusal: ParsedReply | undefined;
  let failure: UpstreamError | undefined;

  /** Takes what is held, as one piece for the first chunk and another for what follows the header section. */
  function take(): Buffer[][] {
    const pieces = held;
    held = [];
    octets = 0;
    if (isHeaderSent) return [pieces];
    isHeaderSent = true;
    const all = Buffer.concat(pieces);
    const at = all.indexOf(END_OF_HEADER);
    const end = at + END_OF_HEADER.length;
    return at < 0 || end === all.length ? [pieces] : [[all.subarray(0, end)], [all.subarray(end)]];
  }

  async function send(chunks: readonly Buffer[][]): Promise<void> {
    for (const pieces of chunks) {
      void connection.expect(1, FINAL_TIMEOUT_MS).then(
        ([reply]) => {
          if (reply === undefined) return;
          if (isPositive(reply)) dialogue.taken(reply);
          else refusal ??= reply;
        },
        (error: unknown) => {
          failure ??= dialogue.lost(error);
        },
      );
      // One write each: several at once would be copied together for TLS.
      connection.write([`BDAT ${sizeOf(pieces)}\r\n`]);
      for (const piece of pieces) if (!connection.write([piece])) await connection.drained(CHUNK_TIMEOUT_MS);
    }
  }

  return {
    push(chunk) {
      if (refusal !== undefined || failure !== undefined) return undefined;
      // What is held last goes with LAST: that chunk is never empty.
      const sent = octets < CHUNK_OCTETS ? undefined : send(take());
      held.push(chunk);
      octets += chunk.length;
      return sent;
    },
    async finish() {
      if (failure !== undefined) throw failure;
      if (refusal !== undefined) return dialogue.refused(refusal);
      const chunks = take();
      const last = chunks.pop() ?? [];
      await send(chunks);
      try {
        const decision = await dialogue.sendLast([`BDAT ${sizeOf(last)} LAST\r\n`, ...last]);
        return refusal === undefined ? decision : dialogue.refused(refusal);
      } catch (error) {
        // A chunk refused while LAST was on its way: the refusal is the answer, not the loss after it.
        if (refusal !== undefined) return dialogue.refused(refusal);
        throw error;
      }
    },
  };
}
