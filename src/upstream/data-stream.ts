/** A body that leaves after DATA while it comes in, dots doubled. In: pieces. Out: the decision. */
import { createDotStuffer } from '../protocol/dot-stuffing.ts';
import { isPositive } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import type { UpstreamConnection } from './connection.ts';
import type { UpstreamError } from './failure.ts';
import type { Decision, SubmissionStream } from './talk.ts';
import { CHUNK_TIMEOUT_MS } from './timeouts.ts';

export interface DataDialogue {
  lost(error: unknown): UpstreamError;
  outOfStep(): UpstreamError;
  /** The last octet is about to be written. How long its answer may take, ms. */
  ending(): number;
  /** Judges the reply to the whole body. Rejects with `UpstreamError`. */
  decide(reply: ParsedReply | undefined): Promise<Decision>;
}

export function createDataStream(connection: UpstreamConnection, dialogue: DataDialogue): SubmissionStream {
  const stuffer = createDotStuffer();
  // From now on a reply is the final one; if it comes before the final dot it is a refusal.
  let early: ParsedReply | undefined;
  let failure: UpstreamError | undefined;
  let isEnding = false;
  const final = connection.expect(1, undefined).then(
    ([reply]) => {
      if (!isEnding) early = reply;
      return reply;
    },
    (error: unknown) => {
      failure = dialogue.lost(error);
      return undefined;
    },
  );
  return {
    push(chunk) {
      if (early !== undefined || failure !== undefined) return undefined;
      return connection.write(stuffer.push(chunk)) ? undefined : connection.drained(CHUNK_TIMEOUT_MS);
    },
    async finish() {
      if (early !== undefined) {
        // Answered before the end: the rest of the body was never sent, so the connection is lost to us.
        connection.destroy();
        if (isPositive(early)) throw dialogue.outOfStep();
        return { stage: 'end', reply: early };
      }
      if (failure === undefined) {
        isEnding = true;
        const answerMs = dialogue.ending();
        connection.write([stuffer.end()]);
        connection.limitWait(answerMs);
      }
      const reply = await final;
      if (failure !== undefined) throw failure;
      return dialogue.decide(reply);
    },
  };
}
