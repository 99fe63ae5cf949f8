/**
 * `npm run bench`, see asked.ts: what a message costs in the relay, with the noise of the measurement, and compared with
 * a run that was saved.
 */
import { connect } from 'node:net';
import { loadavg } from 'node:os';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import { silentLog } from '../../src/log.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';
import { testAuthority } from '../support/certificate.ts';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { against, isQuick, other, saveTo } from './asked.ts';
import { compare, MACHINE, type Measured, readBaseline, saveBaseline } from './baseline.ts';
import { LATENCIES_MS, latencyRows, type Way } from './latency.ts';
import { type Load, run } from './load.ts';
import { type OtherRelay, otherRelayRows, sunk } from './other-relays.ts';
import { startPeers } from './peers.ts';
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
  printed,
  type Relay,
  rssMiB,
  startRelay,
  table,
} from './stage.ts';

if (other !== undefined) {
  await import(`./${other}.js`);
  process.exit();
}

const ROUNDS = isQuick ? 3 : 7;
const SESSIONS = 20;
const WARM_UP_MESSAGES = 10_000;
const before = against === undefined ? undefined : readBaseline(against);

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
    `${MACHINE}, Node ${process.versions.node}, load ${loadavg()[0]?.toFixed(1)}; ${ROUNDS} rounds, medians`,
  );

  /** Ours with an upstream of its own. */
  async function startOurs(): Promise<OtherRelay> {
    const { port } = await helper('sink', files);
    const own = await startRelay([entry('ann@example.com', port)]);
    await run({ port: own.smtp, sessions: SESSIONS, messages: WARM_UP_MESSAGES, body: bodyOf(4_096) });
    return {
      name: 'xoauth2-relay',
      port: own.smtp,
      promise: 'the provider has it',
      cpuSeconds: () => cpuSeconds(own.pid),
      sunk: () => sunk(port, true),
      stop: async () => void (await own.stop()),
    };
  }

  const relay = await startRelay([entry('ann@example.com', sink.port)]);
  const relayData = await startRelay([entry('ann@example.com', sinkWithout.port)]);
  const peers = await startPeers(sink.port);
  const present = peers.filter((peer) => 'pid' in peer);
  const measure = async (pid: number, load: Load): Promise<{ us: number; rate: number }> => {
    const spent = cpuSeconds(pid);
    const seconds = await run(load);
    return { us: ((cpuSeconds(pid) - spent) / load.messages) * 1e6, rate: load.messages / seconds };
  };
  // A process is slower until its code has been compiled.
  await run({ port: relay.smtp, sessions: SESSIONS, messages: WARM_UP_MESSAGES, body: bodyOf(4_096) });
  const measured: Record<string, Measured> = {};
  let held = '';
  const rows: string[][] = [
    [
      'traffic',
      'relay µs',
      'splice µs',
      'ratio',
      'noise',
      'relay msg/s',
      'splice msg/s',
      ...present.map(({ name }) => `${name} µs`),
      ...(before === undefined ? [] : ['ratio against']),
    ],
  ];
  const loads: readonly [string, number, number, Partial<Load>][] = [
    ['4 kB, kept open', 4_096, 4_000, {}],
    ['4 kB, kept open, pipelined', 4_096, 4_000, { pipelined: true }],
    ['4 kB, connection per message', 4_096, 800, { reconnect: true }],
    ['100 kB, kept open', 102_400, 1_200, {}],
    ['100 kB, kept open, pipelined', 102_400, 1_200, { pipelined: true }],
    ['10 MB, kept open', 10 * MIB, 20, {}],
    ['30 MB, one at a time', 30 * MIB, 5, { sessions: 1 }],
  ];
  for (const [name, octets, count, more] of loads) {
    const load = {
      sessions: SESSIONS,
      messages: isQuick ? Math.ceil(count / 2) : count,
      body: bodyOf(octets),
      ...more,
    };
    // Up to here bodies were held whole; larger ones stream.
    if (held === '' && octets > MIB) held = await flights(relay);
    const of = {
      relay: [] as number[],
      splice: [] as number[],
      ratio: [] as number[],
      noise: [] as number[],
    };
    const rates = { relay: [] as number[], splice: [] as number[] };
    const ofPeers = present.map((): number[] => []);
    // The first round warms up.
    for (let round = 0; round <= ROUNDS; round++) {
      const one = await measure(splice.pid, { ...load, port: splice.port });
      const r = await measure(relay.pid, { ...load, port: relay.smtp });
      const two = await measure(splice.pid, { ...load, port: splice.port });
      for (const [i, peer] of present.entries()) {
        const { us } = await measure(peer.pid, { ...load, port: peer.port });
        if (round > 0) ofPeers[i]?.push(us);
      }
      if (round === 0) continue;
      const s = (one.us + two.us) / 2;
      of.relay.push(r.us);
      of.splice.push(s);
      of.ratio.push(r.us / s);
      of.noise.push(Math.abs(two.us / one.us - 1));
      rates.relay.push(r.rate);
      rates.splice.push(one.rate, two.rate);
    }
    const m = {
      relay: median(of.relay),
      splice: median(of.splice),
      ratio: median(of.ratio),
      noise: median(of.noise),
    };
    measured[name] = m;
    rows.push([
      name,
      m.relay.toFixed(0),
      m.splice.toFixed(0),
      m.ratio.toFixed(2),
      `±${(m.noise * 100).toFixed(0)} %`,
      median(rates.relay).toFixed(rates.relay.some((rate) => rate < 100) ? 1 : 0),
      median(rates.splice).toFixed(rates.splice.some((rate) => rate < 100) ? 1 : 0),
      ...ofPeers.map((list) => median(list).toFixed(0)),
      ...(before === undefined ? [] : [compare(m, before.rows[name])]),
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
    '',
    dataOnly.rate.toFixed(0),
  ]);
  table(
    `CPU of the process a message, ${SESSIONS} sessions; noise: two runs of the splice against each other`,
    rows.map((row) => Array.from({ length: rows[0]?.length ?? 0 }, (_, i) => row[i] ?? '')),
  );
  const others = isQuick ? { rows: [], absent: [] } : await otherRelayRows(files, SESSIONS, startOurs);
  if (others.rows.length > 0) table(`Relays, 4 kB, ${SESSIONS} sessions kept open`, others.rows);
  const absent = [...peers.filter((peer) => 'why' in peer), ...others.absent];
  for (const { name, why } of absent) console.log(`  ${name}: left out, ${why}`);

  const ways: Way[] = [];
  const late: Relay[] = [];
  for (const latencyMs of LATENCIES_MS) {
    const far = await helper('sink', [...files, `after=${latencyMs}`]);
    const relayFar = await startRelay([
      entry('ann@example.com', far.port, { max_connections: 1, min_connections: 1 }),
    ]);
    late.push(relayFar);
    const spliceFar = await helper('splice', [String(far.port), testAuthority().file]);
    ways.push({ latencyMs, relay: relayFar.smtp, splice: spliceFar.port, provider: far.port });
  }
  table(
    'Time of a 4 kB message, MAIL to the final reply, one session that waits for each reply',
    await latencyRows(ways, bodyOf(4_096), testAuthority().certPem, {
      rounds: isQuick ? 2 : 4,
      messages: 50,
    }),
  );
  for (const relayFar of late) await relayFar.stop();

  const resident = rssMiB(relay.pid, 'VmRSS');
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
  const ofThousand = rssMiB(thousand.pid, 'VmRSS');
  table('Others', [
    ['what', 'measured'],
    ['flights per message up to 100 kB', roundTrips],
    [
      '20 × 30 MB in parallel',
      `${(600 / big).toFixed(0)} MB/s, resident ${resident.toFixed(0)} → at most ${peak.toFixed(0)} MiB`,
    ],
    ['connect to 220', `median ${greeting[100]?.toFixed(2)} ms, 99th ${greeting[197]?.toFixed(2)} ms`],
    ['pre-cache, endpoint answers in 250 ms', precache.join('; ')],
    [
      '1,000 accounts, one warm TLS connection each',
      `${thousand.warm} warm after ${(thousand.readyMs / 1000).toFixed(1)} s, resident ${ofThousand.toFixed(0)} MiB`,
    ],
  ]);
  await thousand.stop();
  if (saveTo !== undefined)
    saveBaseline(saveTo, {
      rows: measured,
      tables: printed,
      absent: absent.map(({ name, why }) => `${name}, ${why}`),
    });
} finally {
  await tokens.close();
  clear();
}
