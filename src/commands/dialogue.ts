/**
 * An SMTP dialogue a person watches, one command after the other: for `check`, `account add` and `send`.
 * In: where to. Out: replies, or a `StepError` that says at which stage it broke. Owns its socket.
 */
import { lookup } from 'node:dns/promises';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { parseCapabilities } from '../protocol/capabilities.ts';
import { formatReply, type Reply } from '../protocol/reply.ts';
import { createReplyParser, type ParsedReply } from '../protocol/reply-parser.ts';
import { formatXoauth2 } from '../protocol/xoauth2.ts';
import type { AccessToken } from '../tokens/access-token.ts';
import { certificateDoubt, type Stage } from './explain.ts';

/** What a step failed with. */
export class StepError extends Error {
  readonly stage: Stage;
  constructor(stage: Stage, said: string) {
    super(said);
    this.stage = stage;
  }
}

/** The first address of a host. Throws a `StepError`. */
export async function resolveHost(host: string): Promise<string> {
  if (isIP(host) > 0) return host;
  try {
    return (await lookup(host)).address;
  } catch (error) {
    throw new StepError('dns', (error as NodeJS.ErrnoException).code ?? 'no address');
  }
}

export interface SmtpDialogue {
  readonly capabilities: ReturnType<typeof parseCapabilities>;
  /** Sends a line; `shown` stands for it in the trace where it is secret. */
  command(line: string, stage: Stage, shown?: string): Promise<ParsedReply>;
  close(): void;
}

export interface DialogueTarget {
  readonly host: string;
  readonly port: number;
  /** `none` only towards a listener of our own. */
  readonly tls: 'none' | 'starttls' | 'implicit';
  /** What `host` resolved to. */
  readonly address: string;
  readonly localAddress?: string | undefined;
  /** For each step, ms. */
  readonly timeoutMs: number;
  passed?(stage: Stage, detail: string, doubt?: string): void;
  /** Every line of the dialogue, secrets masked. */
  trace?(line: string): void;
}

/** Connects up to and including the last EHLO. Throws a `StepError`. */
export async function openDialogue(target: DialogueTarget): Promise<SmtpDialogue> {
  const { host, port, tls, address, localAddress, timeoutMs, trace = () => {} } = target;
  const passed: NonNullable<DialogueTarget['passed']> = (...facts) => target.passed?.(...facts);
  const servername = isIP(host) > 0 ? undefined : host;
  const tcp = connectTcp({
    host: address,
    port,
    ...(localAddress === undefined ? {} : { localAddress }),
  });
  let socket: Socket = tcp;
  try {
    await settled(tcp, 'connect', 'tcp', timeoutMs);
    passed('tcp', `${address}:${port}`);
    const secure = async (): Promise<void> => {
      const wrapped = connectTls({
        socket: tcp,
        minVersion: 'TLSv1.2',
        ...(servername === undefined ? {} : { servername }),
      });
      socket = wrapped;
      await settled(wrapped, 'secureConnect', 'tls', timeoutMs);
      const { detail, daysLeft } = describeCertificate(wrapped);
      passed('tls', detail, certificateDoubt(daysLeft));
    };
    if (tls === 'implicit') await secure();
    let lines = createLineReader(socket, timeoutMs, trace);
    expect(await lines.reply('greeting'), 'greeting');
    const hello = async (): Promise<ParsedReply> =>
      expect(await lines.command('EHLO localhost', 'ehlo'), 'ehlo');
    let ehlo = await hello();
    if (tls === 'starttls') {
      if (!ehlo.lines.some((line) => /^STARTTLS$/i.test(line.trim())))
        throw new StepError('tls', 'no STARTTLS offered');
      expect(await lines.command('STARTTLS', 'tls'), 'tls');
      lines.release();
      await secure();
      lines = createLineReader(socket, timeoutMs, trace);
      ehlo = await hello();
    }
    const capabilities = parseCapabilities(ehlo.lines);
    passed('ehlo', ehlo.lines.slice(1).join(', '));
    return {
      capabilities,
      command: (line, stage, shown) => lines.command(line, stage, shown),
      close: () => void socket.destroy(),
    };
  } catch (error) {
    socket.destroy();
    tcp.destroy();
    throw error;
  }
}

/** Always the two-step form: some servers refuse a long token on the AUTH line. */
export async function authenticate(smtp: SmtpDialogue, user: string, token: AccessToken): Promise<Reply> {
  const challenge = await smtp.command('AUTH XOAUTH2', 'auth');
  if (challenge.code !== 334) throw new StepError('auth', formatReply(challenge));
  const reply = await smtp.command(formatXoauth2(user, token.reveal()), 'auth', '(access token)');
  // A second 334 carries an error; the server's verdict comes after an empty line.
  const verdict = reply.code === 334 ? await smtp.command('', 'auth') : reply;
  return expect(verdict, 'auth');
}

/** The reply, unless it refuses. Throws a `StepError`. */
export function expect<R extends Reply>(reply: R, stage: Stage): R {
  if (reply.code >= 400) throw new StepError(stage, formatReply(reply));
  return reply;
}

/** One reply after the other from a socket. */
function createLineReader(socket: Socket, timeoutMs: number, trace: (line: string) => void) {
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
  const reply = async (stage: Stage): Promise<ParsedReply> => {
    const deadline = setTimeout(() => {
      failure ??= 'timeout';
      wake();
    }, timeoutMs);
    try {
      for (;;) {
        const next = replies.shift();
        if (next !== undefined) {
          for (const line of next.lines) trace(`S: ${next.code} ${line}`);
          return next;
        }
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
    command: (line: string, stage: Stage, shown = line): Promise<ParsedReply> => {
      trace(`C: ${shown}`);
      socket.write(`${line}\r\n`);
      return reply(stage);
    },
    /** Before TLS takes the socket over; what came in clear text after STARTTLS is dropped. */
    release: (): void => void socket.off('data', onData).off('error', onEnd).off('close', onClose),
  };
}

function settled(socket: Socket, event: string, stage: Stage, timeoutMs: number): Promise<void> {
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

const DAY = 86_400_000;

function describeCertificate(socket: TLSSocket): { detail: string; daysLeft: number } {
  const certificate = socket.getPeerCertificate();
  const daysLeft = Math.floor((Date.parse(certificate.valid_to) - Date.now()) / DAY);
  const name = certificate.subject?.CN ?? certificate.subjectaltname ?? 'no name';
  const issuer = certificate.issuer?.O ?? certificate.issuer?.CN ?? 'unknown issuer';
  return { detail: `${socket.getProtocol()}, ${name} by ${issuer}, ${daysLeft} days left`, daysLeft };
}
