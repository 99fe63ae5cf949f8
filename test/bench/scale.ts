/**
 * `npm run bench -- scale [1000 10000 100000]`: what many accounts cost. For each number: time to listening
 * and to ready (the token endpoint answers in 250 ms), memory, and the longest a message of a kept-open
 * session is held up by a scrape, a listing, a reload. Prints a table; asserts nothing.
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { waitFor } from '../support/wait-for.ts';
import {
  benchEntry,
  certificateFiles,
  clear,
  helper,
  type Relay,
  rssMiB,
  startRelay,
  table,
} from './stage.ts';

const counts = process.argv
  .slice(2)
  .map(Number)
  .filter((n) => n > 0);
const QUIET_MS = 3_000;

interface Probe {
  /** The longest message, ms, since the question before. */
  longest(): Promise<number>;
  end(): void;
}

async function startProbe(port: number): Promise<Probe> {
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL('./probe.js', import.meta.url)), String(port), 'user0@example.com'],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
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

const ms = (value: number): string => `${value.toFixed(0)} ms`;

const tokens = await startTokenEndpoint('gmail');
try {
  const sink = await helper('sink', certificateFiles());
  const entry = (i: number): object =>
    benchEntry(tokens, `user${i}@example.com`, sink.port, { min_connections: i === 0 ? 1 : 0 });

  async function measure(count: number): Promise<readonly string[]> {
    const accounts = Array.from({ length: count }, (_, i) => entry(i));
    tokens.delayMs = 250;
    const concurrency = Math.min(1_000, Math.max(50, count / 100));
    const relay: Relay = await startRelay(accounts, ['--precache-concurrency', String(concurrency)]);
    tokens.delayMs = 0;
    const started = rssMiB(relay.pid, 'VmRSS');
    const probe = await startProbe(relay.smtp);
    const during = async (what: () => Promise<unknown>): Promise<string> => {
      await delay(500);
      await probe.longest();
      const startedAt = performance.now();
      await what();
      const took = performance.now() - startedAt;
      await delay(200);
      return `${ms(await probe.longest())} (${ms(took)})`;
    };
    const get = (path: string) => async (): Promise<void> => {
      const answer = await fetch(`http://127.0.0.1:${relay.admin}${path}`);
      await answer.arrayBuffer();
    };
    const reloaded = async (): Promise<void> => {
      const before = (readFileSync(relay.log, 'utf8').match(/"event":"reloaded"/g) ?? []).length;
      process.kill(relay.pid, 'SIGHUP');
      await waitFor(
        () => (readFileSync(relay.log, 'utf8').match(/"event":"reloaded"/g) ?? []).length > before,
        {
          timeoutMs: 120_000,
          everyMs: 50,
          what: 'the reload',
        },
      );
    };
    await probe.longest();
    await delay(QUIET_MS);
    const quiet = ms(await probe.longest());
    const scrape = await during(get('/metrics'));
    const listing = await during(get('/admin/accounts'));
    const unchanged = await during(reloaded);
    writeFileSync(relay.accounts, JSON.stringify([...accounts, entry(count)]));
    const added = await during(reloaded);
    const after = rssMiB(relay.pid, 'VmRSS');
    probe.end();
    await relay.stop();
    return [
      count.toLocaleString('en'),
      ms(relay.listeningMs),
      `${(relay.readyMs / 1000).toFixed(1)} s at ${concurrency}`,
      started.toFixed(0),
      after.toFixed(0),
      quiet,
      scrape,
      listing,
      unchanged,
      added,
    ];
  }

  const rows: (readonly string[])[] = [
    [
      'accounts',
      'listening',
      'ready (at once)',
      'MiB',
      'MiB at the end',
      'longest message, quiet',
      '… during a scrape (it took)',
      '… a listing',
      '… a reload',
      '… with a new account',
    ],
  ];
  for (const count of counts.length > 0 ? counts : [1_000, 10_000]) rows.push(await measure(count));
  table('Many accounts', rows);
} finally {
  await tokens.close();
  clear();
}
