/**
 * A dialogue with a listener of our own, for `send`. In: where it listens. Out: replies, or a `StepError`
 * that says at which stage it broke. Owns its socket.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { Settings } from '../config.ts';
import { type ClientDialogue, dialogueOver, expect, StepError } from '../enrol/client-dialogue.ts';
import type { ProbeStage } from '../enrol/explain.ts';
import { parseCapabilities } from '../protocol/capabilities.ts';
import { createReplyParser, type ParsedReply } from '../protocol/reply-parser.ts';

export interface ListenerTarget {
  readonly host: string;
  readonly port: number;
  readonly tls: 'none' | 'starttls' | 'implicit';
  /** For each step, ms. */
  readonly timeoutMs: number;
  /** Every line of the dialogue, secrets masked. */
  trace(line: string): void;
}

/** Where a program of this machine reaches the first listener. */
export function addressOf([first]: Settings['listeners']): Pick<ListenerTarget, 'host' | 'port' | 'tls'> {
  const { host = '127.0.0.1', port = 0, tls = 'none' } = first ?? {};
  return { host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host, port, tls };
}

/** Connects up to and including the last EHLO. Throws a `StepError`. */
export async function dialListener(target: ListenerTarget): Promise<ClientDialogue> {
  const { host, port, tls, timeoutMs, trace } = target;
  const tcp = connectTcp({ host, port });
  let socket: Socket = tcp;
  try {
    await settled(tcp, 'connect', 'tcp', timeoutMs);
    const secure = async (): Promise<void> => {
      const servername = isIP(host) > 0 ? {} : { servername: host };
      socket = connectTls({ socket: tcp, minVersion: 'TLSv1.2', ...servername });
      await settled(socket, 'secureConnect', 'tls', timeoutMs);
    };
    if (tls === 'implicit') await secure();
    let lines = createLineReader(socket, timeoutMs);
    const dialogue = (ehlo: readonly string[]): ClientDialogue =>
      dialogueOver(
        {
          capabilities: parseCapabilities(ehlo),
          exchange: lines.exchange,
          close: () => void socket.destroy(),
        },
        trace,
      );
    const greeting = expect(await lines.reply('greeting'), 'greeting');
    for (const text of greeting.lines) trace(`S: ${greeting.code} ${text}`);
    const hello = async (): Promise<readonly string[]> =>
      expect(await dialogue([]).command('EHLO localhost', 'ehlo'), 'ehlo').lines;
    let ehlo = await hello();
    if (tls === 'starttls') {
      if (!ehlo.some((line) => /^STARTTLS$/i.test(line.trim())))
        throw new StepError('tls', 'no STARTTLS offered');
      expect(await dialogue([]).command('STARTTLS', 'tls'), 'tls');
      lines.release();
      await secure();
      lines = createLineReader(socket, timeoutMs);
      ehlo = await hello();
    }
    return dialogue(ehlo);
  } catch (error) {
    socket.destroy();
    tcp.destroy();
    throw error;
  }
}

/** One reply after the other from a socket. */
function createLineReader(socket: Socket, timeoutMs: number) {
  const parser = createReplyParser();
  const replies: ParsedReply[] = [];
  let failure: string | undefined;
  let wake = (): void => {};
  const onData = (chunk: Buffer): void => {
    try {
      replies.push(...parser.feed(chunk));
    } catch {
      failure ??= 'answers that are no SMTP replies';
    }
    wake();
  };
  const onEnd = (error?: Error): void => {
    failure ??= (error as NodeJS.ErrnoException | undefined)?.code ?? 'connection closed';
    wake();
  };
  const onClose = (): void => onEnd();
  socket.on('data', onData).on('error', onEnd).on('close', onClose);
  const reply = async (stage: ProbeStage): Promise<ParsedReply> => {
    const deadline = setTimeout(() => {
      failure ??= 'timeout';
      wake();
    }, timeoutMs);
    try {
      for (;;) {
        const next = replies.shift();
        if (next !== undefined) return next;
        if (failure !== undefined) throw new StepError(stage, failure);
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      clearTimeout(deadline);
    }
  };
  return {
    reply,
    exchange: (octets: string | Buffer, stage: ProbeStage): Promise<ParsedReply> => {
      socket.write(octets);
      return reply(stage);
    },
    /** Before TLS takes the socket over; what came in clear text after STARTTLS is dropped. */
    release: (): void => void socket.off('data', onData).off('error', onEnd).off('close', onClose),
  };
}

function settled(socket: Socket, event: string, stage: ProbeStage, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const finish = (said?: string): void => {
      clearTimeout(timer);
      // Later errors belong to whoever reads; without a listener they would end the process.
      socket.on('error', () => {});
      if (said === undefined) resolve();
      else reject(new StepError(stage, said));
    };
    const timer = setTimeout(() => finish('ETIMEDOUT'), timeoutMs);
    socket.once(event, () => finish());
    socket.once('error', (error: NodeJS.ErrnoException) => finish(error.code ?? error.message));
    socket.once('close', () => finish('connection closed'));
  });
}
