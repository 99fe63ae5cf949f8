/**
 * Walks an account's way to its provider without sending anything: token, DNS, TCP, TLS, EHLO, AUTH, MAIL
 * FROM as each sender, RSET. In: account and where its token comes from. Out: one step after the other,
 * failures explained. Owns one connection at a time and closes it.
 */
import { lookup } from 'node:dns/promises';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Account } from '../accounts/account.ts';
import { parseCapabilities } from '../protocol/capabilities.ts';
import { formatReply, type Reply } from '../protocol/reply.ts';
import { createReplyParser, type ParsedReply } from '../protocol/reply-parser.ts';
import { formatXoauth2 } from '../protocol/xoauth2.ts';
import { type AccessToken, TokenError } from '../tokens/access-token.ts';
import { certificateDoubt, type Explanation, explain, type Stage } from './explain.ts';

export interface ProbeStep {
  readonly stage: Stage;
  readonly ok: boolean;
  readonly ms: number;
  /** Facts where it went well, the other side's words where not. Never a secret. */
  readonly detail: string;
  readonly explanation?: Explanation;
  /** Something that is well now and will not stay so. */
  readonly doubt?: string;
}

export interface ProbeDeps {
  token(): Promise<AccessToken>;
  onStep(step: ProbeStep): void;
  /** For each step, ms. */
  readonly timeoutMs: number;
  /** For the explanation. */
  readonly grant: string;
}

/** What a step failed with. */
class StepError extends Error {
  readonly stage: Stage;
  constructor(stage: Stage, said: string) {
    super(said);
    this.stage = stage;
  }
}

/** Walks the whole way or to the first failure. Resolves with the steps; never rejects. */
export async function probeAccount(account: Account, deps: ProbeDeps): Promise<readonly ProbeStep[]> {
  const steps: ProbeStep[] = [];
  const add = (step: ProbeStep): void => {
    steps.push(step);
    deps.onStep(step);
  };
  let startedAt = performance.now();
  const passed = (stage: Stage, detail: string, doubt?: string): void => {
    const now = performance.now();
    add({
      stage,
      ok: true,
      ms: Math.round(now - startedAt),
      detail,
      ...(doubt === undefined ? {} : { doubt }),
    });
    startedAt = now;
  };
  const failed = (stage: Stage, said: string, sender?: string): void => {
    const { host, port } = account.upstream;
    const trouble = {
      stage,
      said,
      provider: account.provider,
      host,
      port,
      user: account.user,
      grant: deps.grant,
    };
    add({
      stage,
      ok: false,
      ms: Math.round(performance.now() - startedAt),
      detail: said,
      explanation: explain(sender === undefined ? trouble : { ...trouble, sender }),
    });
    startedAt = performance.now();
  };
  let smtp: SmtpDialogue | undefined;
  try {
    const token = await deps.token();
    passed('token', describeToken(token, Date.now()));
    const address = await resolveHost(account.upstream.host);
    passed('dns', address);
    smtp = await openDialogue(account, address, deps.timeoutMs, passed);
    const { capabilities } = smtp;
    if (!capabilities.authMechanisms.includes('XOAUTH2'))
      throw new StepError('auth', `no XOAUTH2 among AUTH ${capabilities.authMechanisms.join(' ')}`);
    passed('auth', formatReply(await authenticate(smtp, account.user, token)));
    for (const sender of account.senders.filter((s) => !s.startsWith('*@'))) {
      const reply = await smtp.command(`MAIL FROM:<${sender}>`, 'sender');
      if (reply.code >= 400) failed('sender', formatReply(reply), sender);
      else passed('sender', sender);
      await smtp.command('RSET', 'sender');
    }
    await smtp.command('QUIT', 'sender').catch(() => undefined);
  } catch (error) {
    if (error instanceof StepError) failed(error.stage, error.message);
    else if (error instanceof TokenError) failed('token', error.message);
    else throw error;
  } finally {
    smtp?.close();
  }
  return steps;
}

/** Life of a token, and of a JWT who it is for: `aud`, `scp` or `roles`, `exp`, nothing else of it. */
export function describeToken(token: AccessToken, now: number): string {
  const minutes = Math.round((token.expiresAt - now) / 60_000);
  const age = Math.round((now - token.obtainedAt) / 1_000);
  const life = `${minutes} min left, ${age} s old`;
  const claims = publicClaims(token.reveal());
  return claims === undefined ? life : `${life}, ${claims}`;
}

/** Claims that a person needs to see why a token is refused; undefined for an opaque token. */
export function publicClaims(token: string): string | undefined {
  const [, payload, signature] = token.split('.');
  if (payload === undefined || signature === undefined) return undefined;
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString());
    const shown = ['aud', 'scp', 'roles', 'exp'].flatMap((name) => {
      const value = (claims as Record<string, unknown> | null)?.[name];
      if (name === 'exp' && typeof value === 'number') return [`exp ${new Date(value * 1000).toISOString()}`];
      if (typeof value === 'string') return [`${name} ${value.slice(0, 200)}`];
      if (Array.isArray(value))
        return [
          `${name} ${value
            .filter((v) => typeof v === 'string')
            .join(' ')
            .slice(0, 200)}`,
        ];
      return [];
    });
    return shown.length === 0 ? undefined : shown.join(', ');
  } catch {
    return undefined;
  }
}

async function resolveHost(host: string): Promise<string> {
  if (isIP(host) > 0) return host;
  try {
    return (await lookup(host)).address;
  } catch (error) {
    throw new StepError('dns', (error as NodeJS.ErrnoException).code ?? 'no address');
  }
}

interface SmtpDialogue {
  readonly capabilities: ReturnType<typeof parseCapabilities>;
  command(line: string, stage: Stage): Promise<ParsedReply>;
  close(): void;
}

/** Connects up to and including the second EHLO. Throws a `StepError`. */
async function openDialogue(
  account: Account,
  address: string,
  timeoutMs: number,
  passed: (stage: Stage, detail: string, doubt?: string) => void,
): Promise<SmtpDialogue> {
  const { host, port, tls } = account.upstream;
  const servername = isIP(host) > 0 ? undefined : host;
  const tcp = connectTcp({
    host: address,
    port,
    ...(account.localAddress === undefined ? {} : { localAddress: account.localAddress }),
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
    let lines = createLineReader(socket, timeoutMs);
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
      lines = createLineReader(socket, timeoutMs);
      ehlo = await hello();
    }
    const capabilities = parseCapabilities(ehlo.lines);
    passed('ehlo', ehlo.lines.slice(1).join(', '));
    return {
      capabilities,
      command: (line, stage) => lines.command(line, stage),
      close: () => void socket.destroy(),
    };
  } catch (error) {
    socket.destroy();
    tcp.destroy();
    throw error;
  }
}

/** Always the two-step form: some servers refuse a long token on the AUTH line. */
async function authenticate(smtp: SmtpDialogue, user: string, token: AccessToken): Promise<Reply> {
  const challenge = await smtp.command('AUTH XOAUTH2', 'auth');
  if (challenge.code !== 334) throw new StepError('auth', formatReply(challenge));
  const reply = await smtp.command(formatXoauth2(user, token.reveal()), 'auth');
  // A second 334 carries an error; the server's verdict comes after an empty line.
  const verdict = reply.code === 334 ? await smtp.command('', 'auth') : reply;
  return expect(verdict, 'auth');
}

function expect<R extends Reply>(reply: R, stage: Stage): R {
  if (reply.code >= 400) throw new StepError(stage, formatReply(reply));
  return reply;
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
  const reply = async (stage: Stage): Promise<ParsedReply> => {
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
    command: (line: string, stage: Stage): Promise<ParsedReply> => {
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
