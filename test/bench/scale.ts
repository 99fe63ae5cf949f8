/**
 * `npm run bench -- scale`: what many accounts cost. For each number: time to listening and to
 * ready (the token endpoint answers in 250 ms), a reload, the stop, memory; and the longest a message of a kept-open
 * session takes while all that happens, beside the same message through a splice and a process that only sleeps: what
 * they see is the machine's own. Prints tables; asserts nothing.
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { testAuthority } from '../support/certificate.ts';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { waitFor } from '../support/wait-for.ts';
import { counts, saveTo } from './asked.ts';
import { saveBaseline } from './baseline.ts';
import { beginRelay, benchEntry, certificateFiles, clear, helper, printed, rssMiB, table } from './stage.ts';

const QUIET_MS = 5_000;
const TOKEN_MS = 250;

interface Probe {
  /** The longest, ms, since the question before. */
  longest(): Promise<number>;
  end(): void;
}

async function startProbe(name: 'probe' | 'idle', args: readonly string[] = []): Promise<Probe> {
  const child = spawn(process.execPath, [fileURLToPath(new URL(`./${name}.js`, import.meta.url)), ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  await lines.next();
  return {
    async longest() {
      child.stdin.write('\n');
      const { value } = await lines.next();
      return Math.max(0, ...(JSON.parse(String(value)) as number[]));
    },
    end: () => void child.kill('SIGKILL'),
  };
}

const ms = (value: number): string =>
  value < 10_000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`;

const tokens = await startTokenEndpoint('gmail');
const costs: (readonly string[])[] = [
  [
    'accounts',
    'listening',
    'ready (tokens at once)',
    'reload',
    'one more',
    'stop',
    'MiB',
    'after all',
    'kB an account',
    'longest turn',
  ],
];
const stalls: (readonly string[])[] = [
  [
    'accounts',
    'while',
    'it takes',
    'longest message',
    '… by the splice',
    'idle process late by',
    "relay's longest turn",
  ],
];
try {
  const [cert, key] = certificateFiles();
  const sink = await helper('sink', [cert, key]);
  const splice = await helper('splice', [String(sink.port), testAuthority().file]);
  const entry = (i: number): object =>
    benchEntry(
      tokens,
      `user${i}@example.com`,
      sink.port,
      // The one whose messages are timed: no limit and no new connection comes between.
      i === 0
        ? { min_connections: 1, recipients_per_day: 0, messages_per_connection: 1_000_000 }
        : { min_connections: 0 },
    );
  let aloneMiB: number | undefined;

  async function measure(count: number): Promise<void> {
    const accounts = Array.from({ length: count }, (_, i) => entry(i));
    tokens.delayMs = TOKEN_MS;
    const concurrency = Math.min(1_000, Math.max(50, count / 100));
    const relay = await beginRelay(accounts, ['--precache-concurrency', String(concurrency)], {
      isWatched: true,
    });
    const probes = await Promise.all([
      startProbe('probe', [String(relay.smtp), 'user0@example.com']),
      startProbe('probe', [String(splice.port), 'user0@example.com']),
      startProbe('idle'),
    ]);
    const longest = async (): Promise<readonly number[]> =>
      Promise.all([...probes.map((probe) => probe.longest()), relay.longestTurn()]);
    let longestTurn = 0;
    /** Resolves with what it takes, ms. */
    const during = async (name: string, what: () => Promise<unknown>): Promise<number> => {
      await delay(500);
      await longest();
      process.stderr.write(`${count} accounts: ${name}\n`);
      const startedAt = performance.now();
      await what();
      const took = performance.now() - startedAt;
      await delay(200);
      const seen = await longest();
      longestTurn = Math.max(longestTurn, seen.at(-1) ?? 0);
      stalls.push([count.toLocaleString('en'), name, ms(took), ...seen.map(ms)]);
      return took;
    };
    const get = (path: string) => async (): Promise<void> => {
      const answer = await fetch(`http://127.0.0.1:${relay.admin}${path}`);
      await answer.arrayBuffer();
    };
    /** The first event of the stream, to its end. */
    const snapshot = async (): Promise<void> => {
      const abort = new AbortController();
      const answer = await fetch(`http://127.0.0.1:${relay.admin}/admin/events`, { signal: abort.signal });
      let tail = '';
      for await (const chunk of answer.body ?? []) {
        tail += Buffer.from(chunk as Uint8Array).toString('latin1');
        if (/\]\}\n\n/.test(tail)) break;
        tail = tail.slice(-4);
      }
      abort.abort();
    };
    const reloaded = async (): Promise<void> => {
      const before = relay.reloads();
      process.kill(relay.pid, 'SIGHUP');
      await waitFor(() => relay.reloads() > before, {
        timeoutMs: 300_000,
        everyMs: 50,
        what: 'the reload',
      });
    };
    let readyMs = 0;
    await during('tokens fetched at the start', async () => {
      readyMs = (await relay.ready()).ms;
    });
    tokens.delayMs = 0;
    const started = rssMiB(relay.pid, 'VmRSS');
    await during('nothing', () => delay(QUIET_MS));
    await during('/metrics', get('/metrics'));
    await during('/admin/accounts', get('/admin/accounts'));
    await during('/admin/tokens', get('/admin/tokens'));
    await during('event stream, its snapshot', snapshot);
    const reload = await during('SIGHUP', reloaded);
    writeFileSync(relay.accounts, JSON.stringify([...accounts, entry(count)]));
    const more = await during('SIGHUP, one account more', reloaded);
    const after = rssMiB(relay.pid, 'VmRSS');
    for (const probe of probes) probe.end();
    const stop = await relay.stop();
    aloneMiB ??= after;
    if (count > 1)
      costs.push([
        count.toLocaleString('en'),
        ms(relay.listeningMs),
        `${ms(readyMs)} (${concurrency})`,
        ms(reload),
        ms(more),
        ms(stop),
        started.toFixed(0),
        after.toFixed(0),
        (((after - aloneMiB) * 1024) / count).toFixed(1),
        ms(longestTurn),
      ]);
  }

  for (const count of [1, ...counts]) await measure(count);
  table('Many accounts: resident memory of the process, and beyond that with one account', costs);
  table('The longest a message takes', stalls);
  if (saveTo !== undefined) saveBaseline(saveTo, { tables: printed });
} finally {
  await tokens.close();
  clear();
}
