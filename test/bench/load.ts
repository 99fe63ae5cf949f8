/** The load: SMTP sessions that send message after message and wait for each reply, as an MTA does. */
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

export interface Load {
  readonly port: number;
  readonly sessions: number;
  readonly messages: number;
  /** Body with its final CRLF; dots need no stuffing. */
  readonly body: Buffer;
  /** In place of `body`, another for each message. */
  readonly next?: () => Buffer;
  /** MAIL, RCPT and DATA in one write. */
  readonly pipelined?: boolean;
  /** A connection for each message. */
  readonly reconnect?: boolean;
}

const DOT = Buffer.from('.\r\n');
export const MAIL = 'MAIL FROM:<ann@example.com>\r\n';
export const RCPT = 'RCPT TO:<bob@example.net>\r\n';

/** One client session: `say` writes and waits for `replies` final reply lines. `ca`: it speaks TLS from the start. */
export function session(
  port: number,
  ca?: string,
): Promise<{ say(bytes: string | Buffer, replies: number): Promise<void>; end(): void; socket: Socket }> {
  return new Promise((resolve, reject) => {
    const to = { port, host: '127.0.0.1', noDelay: true };
    const socket = ca === undefined ? connect(to) : connectTls({ ...to, ca, servername: 'localhost' });
    let text = '';
    let wanted = 1;
    let done: () => void = () => resolve({ say, end: () => socket.end('QUIT\r\n'), socket });
    let failed: (error: Error) => void = reject;
    const say = (bytes: string | Buffer, replies: number): Promise<void> =>
      new Promise((ok, no) => {
        wanted = replies;
        done = ok;
        failed = no;
        socket.write(bytes);
      });
    socket.on('error', (e) => failed(e));
    socket.on('close', () => failed(new Error('closed')));
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      for (let lf = text.indexOf('\n'); lf >= 0; lf = text.indexOf('\n')) {
        const line = text.slice(0, lf);
        text = text.slice(lf + 1);
        if (line[3] === '-') continue;
        if (line[0] === '4' || line[0] === '5') return failed(new Error(line));
        if (--wanted === 0) done();
      }
    });
  });
}

/** One message on a session. */
export async function messageOf(
  s: Awaited<ReturnType<typeof session>>,
  load: Pick<Load, 'body' | 'next' | 'pipelined'>,
): Promise<void> {
  if (load.pipelined === true) await s.say(`${MAIL}${RCPT}DATA\r\n`, 3);
  else {
    await s.say(MAIL, 1);
    await s.say(RCPT, 1);
    await s.say('DATA\r\n', 1);
  }
  // One write for small bodies, as an MTA's buffer makes of it.
  const body = load.next?.() ?? load.body;
  if (body.length < 65_536) await s.say(Buffer.concat([body, DOT]), 1);
  else {
    s.socket.cork();
    s.socket.write(body);
    const last = s.say(DOT, 1);
    s.socket.uncork();
    await last;
  }
}

/** Sends all messages; resolves with the seconds it took. */
export async function run(load: Load): Promise<number> {
  const startedAt = performance.now();
  let left = load.messages;
  await Promise.all(
    Array.from({ length: load.sessions }, async () => {
      let s = await session(load.port);
      await s.say('EHLO bench\r\n', 1);
      while (left-- > 0) {
        await messageOf(s, load);
        if (load.reconnect === true && left > 0) {
          s.end();
          s = await session(load.port);
          await s.say('EHLO bench\r\n', 1);
        }
      }
      s.socket.removeAllListeners('close');
      s.end();
    }),
  );
  return (performance.now() - startedAt) / 1000;
}
