/**
 * `npm run bench [-- quick]`: what a message costs in the relay, beside a process that only splices the
 * same sockets, in the same run and in turn. Prints a table; asserts nothing.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import { silentLog } from '../../src/log.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';
import { issueCertificate, testAuthority } from '../support/certificate.ts';
import { repositoryRoot } from '../support/relay-process.ts';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { waitFor } from '../support/wait-for.ts';
import { type Load, run } from './load.ts';

const QUICK = process.argv.includes('quick');
const ROUNDS = QUICK ? 1 : 3;
const TICKS_PER_SECOND = 100;
const MIB = 1_048_576;
const SESSIONS = 8;

const directory = mkdtempSync(join(tmpdir(), 'relay-bench-'));
const children: ChildProcess[] = [];
const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
const cpuSeconds = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
};
const rssMiB = (pid: number, which: 'VmRSS' | 'VmHWM'): number =>
  Number(new RegExp(`${which}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) /
  1024;

/** Lines of 76 characters, as base64 makes them. */
const bodyOf = (octets: number): Buffer => {
  const head = 'From: ann@example.com\r\nTo: bob@example.net\r\nSubject: bench\r\n\r\n';
  return Buffer.from(
    head + `${'QUJD'.repeat(19)}\r\n`.repeat(Math.max(1, Math.round((octets - head.length) / 78))),
  );
};

async function helper(name: string, args: readonly string[]): Promise<{ port: number; pid: number }> {
  const child = spawn(process.execPath, [fileURLToPath(new URL(`./${name}.js`, import.meta.url)), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout?.once('data', (line: Buffer) => resolve(Number(line.toString())));
    child.once('exit', () => reject(new Error(`${name} ended`)));
  });
  return { port, pid: child.pid ?? 0 };
}

interface Relay {
  readonly smtp: number;
  readonly pid: number;
  readonly admin: number;
  readonly readyMs: number;
  readonly warm: number;
  stop(): Promise<void>;
}

async function startRelay(accounts: readonly object[], more: readonly string[] = []): Promise<Relay> {
  const file = join(directory, `accounts-${children.length}.json`);
  const log = join(directory, `log-${children.length}`);
  writeFileSync(file, JSON.stringify(accounts), { mode: 0o600 });
  const out = openSync(log, 'w');
  const child = spawn(
    process.execPath,
    [
      join(repositoryRoot, 'bin/xoauth2-relay.js'),
      'serve',
      '--accounts',
      file,
      '--port',
      '0',
      '--admin-port',
      '0',
      ...more,
    ],
    { stdio: ['ignore', out, 'inherit'], env: { ...process.env, NODE_EXTRA_CA_CERTS: testAuthority().file } },
  );
  closeSync(out);
  children.push(child);
  const event = (name: string): Record<string, never> | undefined => {
    const line = readFileSync(log, 'utf8')
      .split('\n')
      .find((l) => l.includes(`"event":"${name}"`));
    return line === undefined ? undefined : JSON.parse(line);
  };
  const ready = await waitFor(() => event('ready'), { timeoutMs: 120_000, what: 'the relay being ready' });
  const listening = event('listening') as unknown as Record<'smtp' | 'admin', { port: number }>;
  return {
    smtp: listening.smtp.port,
    admin: listening.admin.port,
    pid: child.pid ?? 0,
    readyMs: Number(ready.ms),
    warm: Number(ready.warm),
    stop: () =>
      new Promise((resolve) => {
        child.once('exit', () => resolve());
        child.kill('SIGTERM');
      }),
  };
}

/** Upstream round trips of a transaction, mean of all so far. */
async function flights(relay: Relay): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${relay.admin}/metrics`, { headers: { connection: 'close' } });
  const text = await answer.text();
  const total = (name: string): number =>
    [...text.matchAll(new RegExp(`^xoauth2_relay_transaction_flights_${name}(?:{[^}]*})? (\\S+)$`, 'gm'))]
      .map((match) => Number(match[1]))
      .reduce((sum, value) => sum + value, 0);
  return `${(total('sum') / total('count')).toFixed(3)} of ${total('count')} messages`;
}

function table(title: string, rows: readonly (readonly string[])[]): void {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((r) => r[i]?.length ?? 0))) ?? [];
  console.log(`\n${title}`);
  for (const row of rows) console.log(`  ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('   ')}`);
}

const tokens = await startTokenEndpoint('gmail');
try {
  const certificate = issueCertificate();
  writeFileSync(join(directory, 'cert.pem'), certificate.certPem);
  writeFileSync(join(directory, 'key.pem'), certificate.keyPem);
  const files = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
  const sink = await helper('sink', files);
  const sinkWithout = await helper('sink', [...files, 'nochunking']);
  const splice = await helper('splice', [String(sink.port), testAuthority().file]);
  const entry = (email: string, port: number, more: object = {}): object => {
    const account = tokens.account(email) ?? tokens.add(email);
    return {
      email,
      provider: 'gmail',
      client_id: account.clientId,
      client_secret: account.clientSecret,
      refresh_token: account.refreshToken,
      token_url: tokens.url,
      smtp: `smtps://localhost:${port}`,
      login_interval_ms: 0,
      max_connections: SESSIONS,
      min_connections: SESSIONS,
      messages_per_connection: 1_000_000,
      ...more,
    };
  };
  console.log(
    `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.versions.node}; ${ROUNDS} rounds, medians`,
  );

  const relay = await startRelay([entry('ann@example.com', sink.port)]);
  const relayData = await startRelay([entry('ann@example.com', sinkWithout.port)]);
  const measure = async (pid: number, load: Load): Promise<{ us: number; rate: number }> => {
    const before = cpuSeconds(pid);
    const seconds = await run(load);
    return { us: ((cpuSeconds(pid) - before) / load.messages) * 1e6, rate: load.messages / seconds };
  };
  let held = '';
  const rows: string[][] = [
    ['traffic', 'relay µs CPU', 'splice µs CPU', 'ratio', 'relay msg/s', 'splice msg/s'],
  ];
  const loads: readonly [string, number, number, Partial<Load>][] = [
    ['4 kB, kept open', 4_096, 6_000, {}],
    ['4 kB, kept open, pipelined', 4_096, 6_000, { pipelined: true }],
    ['4 kB, connection per message', 4_096, 2_000, { reconnect: true }],
    ['100 kB, kept open', 102_400, 2_000, {}],
    ['100 kB, kept open, pipelined', 102_400, 2_000, { pipelined: true }],
    ['10 MB, kept open', 10 * MIB, 40, {}],
    ['30 MB, one at a time', 30 * MIB, 8, { sessions: 1 }],
  ];
  for (const [name, octets, count, more] of loads) {
    const load = {
      sessions: SESSIONS,
      messages: QUICK ? Math.ceil(count / 4) : count,
      body: bodyOf(octets),
      ...more,
    };
    // Up to here bodies were held whole; larger ones stream.
    if (held === '' && octets > MIB) held = await flights(relay);
    const relays: { us: number; rate: number }[] = [];
    const splices: { us: number; rate: number }[] = [];
    // The first pair warms both up.
    for (let round = 0; round <= ROUNDS; round++) {
      const r = await measure(relay.pid, { ...load, port: relay.smtp });
      const s = await measure(splice.pid, { ...load, port: splice.port });
      if (round === 0) continue;
      relays.push(r);
      splices.push(s);
    }
    const [r, s] = [relays, splices].map((list) => ({
      us: median(list.map((m) => m.us)),
      rate: median(list.map((m) => m.rate)),
    })) as [{ us: number; rate: number }, { us: number; rate: number }];
    rows.push([
      name,
      r.us.toFixed(0),
      s.us.toFixed(0),
      (r.us / s.us).toFixed(2),
      r.rate.toFixed(1),
      s.rate.toFixed(1),
    ]);
  }
  const withoutChunking = { port: relayData.smtp, sessions: SESSIONS, messages: 2_000, body: bodyOf(4_096) };
  await measure(relayData.pid, withoutChunking);
  const dataOnly = await measure(relayData.pid, withoutChunking);
  rows.push([
    '4 kB, upstream without CHUNKING',
    dataOnly.us.toFixed(0),
    '',
    '',
    dataOnly.rate.toFixed(1),
    '',
  ]);
  table('CPU of the process per message, and rate', rows);

  const before = rssMiB(relay.pid, 'VmRSS');
  const big = await run({ port: relay.smtp, sessions: 20, messages: 20, body: bodyOf(30 * MIB) });
  const peak = rssMiB(relay.pid, 'VmHWM');
  const greeting: number[] = [];
  for (let i = 0; i < 200; i++) {
    const startedAt = performance.now();
    await new Promise<void>((resolve, reject) => {
      const socket = connect(relay.smtp, '127.0.0.1', () => {});
      socket.once('error', reject).once('data', () => {
        greeting.push(performance.now() - startedAt);
        socket.destroy();
        resolve();
      });
    });
  }
  greeting.sort((a, b) => a - b);
  const roundTrips = `${held} with CHUNKING, ${await flights(relayData)} without`;
  await relayData.stop();
  await relay.stop();

  tokens.delayMs = 250;
  const many = (count: number): object[] =>
    Array.from({ length: count }, (_, i) =>
      entry(`user${i}@example.com`, sink.port, { max_connections: 1, min_connections: 1 }),
    );
  const precache: string[] = [];
  for (const count of [100, 1_000]) {
    const file = await parseAccounts(JSON.stringify(many(count)), { env: {}, directory });
    const service = createTokenService({ log: silentLog });
    service.applyAccounts(file.accounts);
    const result = await service.precache();
    precache.push(`${count} accounts in ${(result.ms / 1000).toFixed(2)} s`);
    if (count === 100) {
      const loops = 1_000_000;
      const startedAt = performance.now();
      for (let i = 0; i < loops; i++) service.peek('user1@example.com');
      precache.push(`a cached token in ${(((performance.now() - startedAt) / loops) * 1e6).toFixed(0)} ns`);
    }
    await service.close();
  }
  tokens.delayMs = 0;
  const thousand = await startRelay(many(1_000));
  const resident = rssMiB(thousand.pid, 'VmRSS');
  table('Others', [
    ['flights per message up to 100 kB', roundTrips],
    [
      '20 × 30 MB in parallel',
      `${(600 / big).toFixed(0)} MB/s, resident ${before.toFixed(0)} → at most ${peak.toFixed(0)} MiB`,
    ],
    ['connect to 220', `median ${greeting[100]?.toFixed(2)} ms, 99th ${greeting[197]?.toFixed(2)} ms`],
    ['pre-cache, endpoint answers in 250 ms', precache.join('; ')],
    [
      '1,000 accounts, one warm TLS connection each',
      `${thousand.warm} warm after ${(thousand.readyMs / 1000).toFixed(1)} s, resident ${resident.toFixed(0)} MiB`,
    ],
  ]);
  await thousand.stop();
} finally {
  for (const child of children) if (child.exitCode === null) child.kill('SIGKILL');
  await tokens.close();
  rmSync(directory, { recursive: true, force: true });
}
