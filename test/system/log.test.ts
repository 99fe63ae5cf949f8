/** Mail goes on whatever becomes of the log, and a stop ends the process. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { greeted, transact } from '../support/dialogue.ts';
import { freePort } from '../support/free-port.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';
import { waitFor, within } from '../support/wait-for.ts';

const ANN = 'ann@gmail.example';
/** Far above what a pipe holds. */
const MESSAGES = 300;

function temporary(defer: Defer): string {
  const directory = mkdtempSync(join(tmpdir(), 'log-'));
  defer(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** A relay whose standard output is `stdout`; it cannot say its ports, so they are given. */
async function startMute(
  defer: Defer,
  stdout: number | 'pipe',
  more: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
) {
  const provider = await startProvider({ users: [ANN] });
  defer(() => provider.close());
  const directory = temporary(defer);
  writeFileSync(join(directory, 'accounts.json'), JSON.stringify([provider.entry(ANN)]), { mode: 0o600 });
  const [port, adminPort] = [await freePort(), await freePort()];
  const child = spawn(
    process.execPath,
    [
      join(repositoryRoot, 'bin/xoauth2-relay.js'),
      'serve',
      ...['--accounts', join(directory, 'accounts.json')],
      ...['--port', `${port}`, '--admin-port', `${adminPort}`, '--log-level', 'debug', ...more],
    ],
    {
      stdio: ['ignore', stdout, 'inherit'],
      env: { ...process.env, NODE_EXTRA_CA_CERTS: provider.caFile, ...env },
    },
  );
  defer(() => void child.kill('SIGKILL'));
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const admin = async (path: string): Promise<string | undefined> =>
    fetch(`http://127.0.0.1:${adminPort}${path}`, { headers: { connection: 'close' } }).then(
      async (response) => (response.ok ? response.text() : undefined),
      () => undefined,
    );
  await waitFor(() => admin('/readyz'), { what: 'the relay being ready' });
  return { provider, child, port, admin, exited };
}

async function send(port: number, count: number): Promise<void> {
  const client = await greeted(port);
  for (let i = 0; i < count; i++) assert.equal((await transact(client, { from: ANN })).code, 250);
  client.end();
}

test(
  'standard output on a full disk: every message is relayed, the stop is prompt',
  leakless(async (_t, defer) => {
    const fd = openSync('/dev/full', 'w');
    defer(() => closeSync(fd));
    const { child, port, admin, exited } = await startMute(defer, fd);
    await send(port, MESSAGES);
    const metric = async (name: string): Promise<number> =>
      Number(
        new RegExp(`^xoauth2_relay_log_lines_${name} (\\d+)$`, 'm').exec(
          (await admin('/metrics')) ?? '',
        )?.[1],
      );
    assert.equal(await metric('dropped_total'), 0);
    assert.ok((await metric('waiting')) >= MESSAGES, `${await metric('waiting')} lines`);
    // More than waits in memory: 4 MiB.
    const client = await greeted(port);
    while ((await metric('dropped_total')) === 0)
      for (let i = 0; i < 1_000; i++) await client.send(`MAIL FROM:<${'x'.repeat(60)}${i}@nobody.example>`);
    client.end();
    child.kill('SIGTERM');
    assert.equal(await within(exited, 5_000, 'the end'), 0);
  }),
);

test(
  'a pipe that nobody reads: every message is relayed, memory is bounded, the stop is prompt',
  leakless(async (_t, defer) => {
    const { child, port, exited } = await startMute(defer, 'pipe');
    await send(port, MESSAGES);
    child.kill('SIGTERM');
    assert.equal(await within(exited, 5_000, 'the end'), 0);
    child.stdout?.destroy();
  }),
);

test(
  'a reader that has left: every message is relayed',
  leakless(async (_t, defer) => {
    const { child, port, exited } = await startMute(defer, 'pipe');
    child.stdout?.destroy();
    await send(port, 20);
    child.kill('SIGTERM');
    assert.equal(await within(exited, 5_000, 'the end'), 0);
  }),
);

test(
  'a log file on a full disk: every message is relayed, and when there is room again the log says what is missing',
  leakless(async (t, defer) => {
    const disk = join(temporary(defer), 'disk');
    mkdirSync(disk);
    if (!mountSmall(t, defer, disk)) return;
    const { child, port, admin, exited } = await startMute(defer, 'pipe', [
      '--log-file',
      join(disk, 'relay.log'),
    ]);
    writeFileSync(join(disk, 'ballast'), Buffer.alloc(40_960));
    // More than waits in memory: 4 MiB.
    const client = await greeted(port);
    for (let dropped = 0; dropped === 0; ) {
      for (let i = 0; i < 1_000; i++) await client.send(`MAIL FROM:<${'x'.repeat(60)}${i}@nobody.example>`);
      const metrics = (await admin('/metrics')) ?? '';
      dropped = Number(/^xoauth2_relay_log_lines_dropped_total (\d+)$/m.exec(metrics)?.[1]);
    }
    client.end();
    await send(port, 5);
    execFileSync('mount', ['-o', 'remount,size=64m', disk]);
    const log = (): string => readFileSync(join(disk, 'relay.log'), 'utf8');
    await waitFor(() => log().includes('"event":"log_dropped"'), {
      what: 'the line that says what is missing',
    });
    child.kill('SIGTERM');
    assert.equal(await within(exited, 5_000, 'the end'), 0);
    const lines = log()
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as { event: string; dropped?: number });
    assert.ok((lines.find((line) => line.event === 'log_dropped')?.dropped ?? 0) > 0);
    assert.equal(lines.at(-1)?.event, 'stopped');
  }),
);

function mountSmall(t: TestContext, defer: Defer, directory: string): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', directory], { stdio: 'pipe' });
  } catch {
    t.skip('needs the right to mount');
    return false;
  }
  defer(() => execFileSync('umount', ['-l', directory]));
  return true;
}

test(
  'a disk that hangs in a write: every message is relayed, and a stop ends the process',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    // Stands in for the disk: a write to it blocks its thread, which Node awaits at its end.
    const [fifo, preload] = [join(directory, 'fifo'), join(directory, 'hangs.mjs')];
    execFileSync('mkfifo', [fifo]);
    writeFileSync(
      preload,
      `import fs from 'node:fs';
       import { syncBuiltinESMExports } from 'node:module';
       const disk = fs.openSync(${JSON.stringify(fifo)}, fs.constants.O_RDWR);
       const { write } = fs;
       fs.write = (fd, ...rest) => write(disk, ...rest);
       syncBuiltinESMExports();`,
    );
    const { child, port, exited } = await startMute(
      defer,
      'pipe',
      ['--log-file', join(directory, 'relay.log')],
      { NODE_OPTIONS: `--import=${preload}` },
    );
    await send(port, MESSAGES);
    child.kill('SIGTERM');
    await within(exited, 5_000, 'the end');
    // What ends by it has ended well for a service manager.
    assert.equal(child.signalCode, 'SIGTERM');
  }),
);

test(
  'a FIFO that nobody reads as log file: every message is relayed, the stop is prompt',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const fifo = join(directory, 'relay.1.log');
    execFileSync('mkfifo', [fifo]);
    const held = openSync(fifo, constants.O_RDWR);
    defer(() => closeSync(held));
    const { child, port, exited } = await startMute(defer, 'pipe', [
      '--log-file',
      join(directory, 'relay.log'),
    ]);
    await send(port, MESSAGES);
    child.kill('SIGTERM');
    assert.equal(await within(exited, 5_000, 'the end'), 0);
  }),
);

test(
  'what the log says last is there after a fatal error and after a stop',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [ANN] });
    defer(() => provider.close());
    const preload = join(temporary(defer), 'fatal.mjs');
    // A line and the end in the same turn.
    writeFileSync(
      preload,
      "process.once('SIGUSR2', () => { process.emit('SIGTERM', 'SIGTERM'); throw new Error('fatal'); });",
    );
    for (const [signal, last, code] of [
      ['SIGTERM', 'stopped', 0],
      ['SIGUSR2', 'stopping', 1],
    ] as const) {
      const relay = await startRelay({
        accounts: [provider.entry(ANN)],
        caFile: provider.caFile,
        env: { NODE_OPTIONS: `--import=${preload}` },
      });
      defer(() => relay.stop());
      relay.signal(signal);
      assert.equal((await relay.exited).code, code);
      assert.ok(
        relay.lines.some((line) => line.event === last),
        signal,
      );
    }
  }),
);
