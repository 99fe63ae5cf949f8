/** What `check`, `account add` and `send` see of an SMTP dialogue: one command after the other, watched by a person. */
import type { Capabilities } from '../protocol/capabilities.ts';
import { formatReply, type Reply } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import { QUIT_TIMEOUT_MS } from '../upstream/connection.ts';
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
  /** Sends a line; `shown` stands for it in the trace where it is secret. Throws a `StepError`, also for what would be more than one command. */
  command(line: string, stage: ProbeStage, shown?: string): Promise<ParsedReply>;
  /** Sends octets as they are, the end of the body among them. Throws a `StepError`. */
  content(octets: Buffer, stage: ProbeStage): Promise<ParsedReply>;
  /** What was wanted has been said: waits for the answer no longer than a relay does. Never rejects. */
  quit(): Promise<void>;
  close(): void;
}

/** The line as it is sent: what a person or a file put into it must not begin another one. Throws a `StepError`. */
export function commandLine(line: string, stage: ProbeStage): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: refusing them is the purpose
  if (/[\u0000\r\n]/.test(line)) throw new StepError(stage, 'a line break in a command: not sent');
  return `${line}\r\n`;
}

/** The dialogue over a connection that answers what it is sent; `trace` gets every line of it. */
export function dialogueOver(
  connection: {
    readonly capabilities: Capabilities;
    exchange(octets: string | Buffer, stage: ProbeStage, timeoutMs?: number): Promise<ParsedReply>;
    close(): void;
  },
  trace: (line: string) => void,
): ClientDialogue {
  const say = async (
    octets: string | Buffer,
    stage: ProbeStage,
    shown: string,
    timeoutMs?: number,
  ): Promise<ParsedReply> => {
    trace(`C: ${shown}`);
    const reply = await connection.exchange(octets, stage, timeoutMs);
    for (const text of reply.lines) trace(`S: ${reply.code} ${text}`);
    return reply;
  };
  return {
    capabilities: connection.capabilities,
    command: async (line, stage, shown = line) => say(commandLine(line, stage), stage, shown),
    content: (octets, stage) => say(octets, stage, `(${octets.length} octets)`),
    quit: () =>
      say('QUIT\r\n', 'sender', 'QUIT', QUIT_TIMEOUT_MS).then(
        () => {},
        () => {},
      ),
    close: () => connection.close(),
  };
}

/** What a command is answered with where it goes well (RFC 5321 §4.3.2): DATA with 3yz, all others with 2yz. */
export const isGood = ({ code }: Reply, command: string): boolean =>
  Math.floor(code / 100) === (command === 'DATA' ? 3 : 2);

/** The reply to `command`, unless it is another than a good one. Throws a `StepError`. */
export function expect<R extends Reply>(reply: R, stage: ProbeStage, command = ''): R {
  if (!isGood(reply, command)) throw new StepError(stage, formatReply(reply));
  return reply;
}
