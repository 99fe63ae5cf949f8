/** What `check`, `account add` and `send` see of an SMTP dialogue: one command after the other, watched by a person. */
import type { Capabilities } from '../protocol/capabilities.ts';
import { formatReply, type Reply } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import type { ProbeStage } from './explain.ts';

/** What a step failed with. */
export class StepError extends Error {
  override readonly name = 'StepError';
  readonly stage: ProbeStage;
  constructor(stage: ProbeStage, said: string) {
    super(said);
    this.stage = stage;
  }
}

export interface ClientDialogue {
  readonly capabilities: Capabilities;
  /** Sends a line; `shown` stands for it in the trace where it is secret. Throws a `StepError`. */
  command(line: string, stage: ProbeStage, shown?: string): Promise<ParsedReply>;
  close(): void;
}

/** The reply, unless it refuses. Throws a `StepError`. */
export function expect<R extends Reply>(reply: R, stage: ProbeStage): R {
  if (reply.code >= 400) throw new StepError(stage, formatReply(reply));
  return reply;
}
