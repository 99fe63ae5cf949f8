/** A real Redis on a free loopback port, which keeps what `save` wrote and nothing else. Needs Debian's redis-server. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './free-port.ts';
import { waitFor } from './wait-for.ts';

export interface Redis {
  readonly url: string;
  readonly port: number;
  /** Answer of one command, as redis-cli prints it. */
  command(...words: string[]): string;
  /** SIGKILL: everything in it is gone. */
  kill(): Promise<void>;
  /** On the same port again, after a kill with what stood in it at the last `command('save')`. */
  start(): Promise<void>;
  /** Holds it still without closing anything. */
  freeze(): void;
  thaw(): void;
}

export async function startRedis(): Promise<Redis> {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), 'redis-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  let child: ChildProcess | undefined;
  const command = (...words: string[]): string =>
    execFileSync('redis-cli', ['-p', String(port), ...words], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 5000,
    }).trim();
  const redis: Redis = {
    url: `redis://127.0.0.1:${port}`,
    port,
    command,
    async kill() {
      const dying = child;
      child = undefined;
      if (dying === undefined || dying.exitCode !== null) return;
      const gone = new Promise((resolve) => dying.once('exit', resolve));
      dying.kill('SIGKILL');
      await gone;
    },
    async start() {
      const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
      const answers = (): boolean => {
        // It ends at once where another program has its port for a moment.
        if (child === undefined || child.exitCode !== null)
          child = spawn('redis-server', options, { cwd: directory, stdio: 'ignore' });
        try {
          return command('ping') === 'PONG';
        } catch {
          return false;
        }
      };
      await waitFor(answers, { what: 'Redis answering' });
    },
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
  };
  await redis.start();
  return redis;
}
