/**
 * `npm run bench [-- quick]`: what a message costs in the relay, beside a process that only splices the
 * same sockets, in the same run and in turn. Prints a table; asserts nothing. `npm run bench -- scale`
 * measures thousands of accounts instead (scale.ts), `-- flights` round trips by recipients (flights.ts),
 * `-- fleet` limits shared through Redis (fleet.ts), `-- graph` Microsoft Graph beside SMTP (graph.ts).
 */
import { connect } from 'node:net';
import { cpus } from 'node:os';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import { silentLog } from '../../src/log.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';
import { testAuthority } from '../support/certificate.ts';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { type Load, run } from './load.ts';
import {
  benchEntry,
  bodyOf,
  certificateFiles,
  clear,
  cpuSeconds,
  directory,
  flights,
  helper,
  MIB,
  median,
  rssMiB,
  startRelay,
  table,
} from './stage.ts';

for (const other of ['scale', 'flights', 'fleet', 'graph']) {
  if (!process.argv.includes(other)) continue;
  await import(`./${other}.js`);
  process.exit();
}

const QUICK = process.argv.includes('quick');
const ROUNDS = QUICK ? 1 : 3;
const SESSIONS = 8;

const tokens = await startTokenEndpoint('gmail');
try {
  const files = certificateFiles();
  const sink = await helper('sink', files);
  const sinkWithout = await helper('sink', [...files, 'nochunking']);
  const splice = await helper('splice', [String(sink.port), testAuthority().file]);
  const entry = (email: string, port: number, more: object = {}): object =>
    benchEntry(tokens, email, port, {
      max_connections: SESSIONS,
      min_connections: SESSIONS,
      messages_per_connection: 1_000_000,
      // Gmail's own day would end the run.
      recipients_per_day: 0,
      ...more,
    });
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
  await tokens.close();
  clear();
}
