/**
 * Other relays in place of ours, as far as this machine has them: Postfix, which queues, and Haraka, which forwards
 * while the client waits, as we do. Neither has XOAUTH2 of its own: Postfix logs in by PLAIN, Haraka not at all. In:
 * certificates. Out: what a message costs all of their processes until the provider has it, or why they are left out.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect as connectPlain, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { testAuthority } from '../support/certificate.ts';
import { freePort } from '../support/free-port.ts';
import { startPostfix } from '../support/postfix.ts';
import { waitFor } from '../support/wait-for.ts';
import { run } from './load.ts';
import type { Absent } from './peers.ts';
import { bodyOf, directory, helper, isOpen, median, spawnChild } from './stage.ts';

export interface OtherRelay {
  readonly name: string;
  readonly port: number;
  /** What its 250 means. */
  readonly promise: 'queued' | 'the provider has it';
  /** Of all its processes, those that have ended included. */
  cpuSeconds(): number;
  /** What the sink behind it has had so far. */
  sunk(): Promise<{ readonly messages: number; readonly connections: number }>;
  stop(): Promise<void>;
}

const TICKS_A_SECOND = 100;

/** CPU of a process and all below it. */
function treeCpuSeconds(root: number): number {
  const children = new Map<number, number[]>();
  const ticks = new Map<number, number>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    let stat: string;
    try {
      stat = readFileSync(`/proc/${entry}/stat`, 'latin1');
    } catch {
      continue;
    }
    const fields = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
    const [parent = 0] = fields.slice(1);
    children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
    // User and system time, its own and that of children that have ended.
    ticks.set(
      Number(entry),
      fields.slice(11, 15).reduce((sum, n) => sum + n, 0),
    );
  }
  const total = (pid: number): number =>
    (ticks.get(pid) ?? 0) + (children.get(pid) ?? []).reduce((sum, child) => sum + total(child), 0);
  return total(root) / TICKS_A_SECOND;
}

/** Asks a sink for its counts. */
export async function sunk(port: number, isTls: boolean): Promise<{ messages: number; connections: number }> {
  const socket: Socket = isTls
    ? connectTls({ port, host: 'localhost', ca: readFileSync(testAuthority().file) })
    : connectPlain({ port, host: '127.0.0.1' });
  const text = await new Promise<string>((resolve, reject) => {
    let heard = '';
    socket.once('error', reject);
    socket.on('data', (chunk) => {
      heard += chunk.toString();
      const answer = /^214 .*(?=\r\n)/m.exec(heard);
      if (answer !== null) resolve(answer[0]);
    });
    socket.write('HELP\r\n');
  }).finally(() => socket.destroy());
  const [, messages = 0, connections = 0] = text.split(' ').map(Number);
  return { messages, connections };
}

async function startPostfixRelay(files: readonly string[]): Promise<OtherRelay | Absent> {
  const name = 'Postfix';
  if (spawnSync('postconf', ['-d', 'mail_version']).error !== undefined)
    return { name, why: 'not installed (Debian: postfix)' };
  if (process.getuid?.() !== 0) return { name, why: 'an instance of its own needs root' };
  const sink = await helper('sink', files);
  const hop = `[localhost]:${sink.port}`;
  const postfix = await startPostfix({
    relayPort: sink.port,
    settings: {
      relayhost: hop,
      smtp_host_lookup: 'native',
      smtp_tls_security_level: 'secure',
      smtp_tls_wrappermode: 'yes',
      smtp_tls_CAfile: testAuthority().file,
      smtp_tls_secure_cert_match: 'localhost',
      smtp_sasl_auth_enable: 'yes',
      smtp_sasl_mechanism_filter: 'plain',
      smtp_sasl_security_options: '',
      smtp_sasl_tls_security_options: '',
      smtp_sasl_password_maps: `inline:{ { ${hop} = ann@example.com:password } }`,
      // As many connections as the others have, and none closed between two messages.
      smtp_tls_connection_reuse: 'yes',
      smtp_connection_cache_destinations: hop,
      default_destination_concurrency_limit: '20',
      initial_destination_concurrency: '20',
      default_process_limit: '200',
    },
  });
  const pid = Number(readFileSync(join(postfix.directory, 'spool/pid/master.pid'), 'utf8'));
  return {
    name,
    port: postfix.port,
    promise: 'queued',
    cpuSeconds: () => treeCpuSeconds(pid),
    sunk: () => sunk(sink.port, true),
    stop: postfix.stop,
  };
}

async function startHaraka(files: readonly string[]): Promise<OtherRelay | Absent> {
  const name = 'Haraka';
  const home = join(directory, 'haraka');
  mkdirSync(join(home, 'plugins'), { recursive: true });
  writeFileSync(join(home, 'package.json'), '{ "private": true }');
  const npm = ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--omit=optional', 'Haraka@3'];
  const installed = spawnSync('npm', npm, { cwd: home, timeout: 180_000 });
  if (installed.status !== 0) return { name, why: 'npm cannot install it now' };
  cpSync(join(home, 'node_modules/Haraka/config'), join(home, 'config'), { recursive: true });
  const sink = await helper('sink', [...files, 'starttls']);
  const port = await freePort();
  const config: Record<string, string> = {
    'smtp.ini': `listen=127.0.0.1:${port}\nnodes=0\n`,
    'smtp_forward.ini': `host=localhost\nport=${sink.port}\nenable_tls=true\nenable_outbound=true\n[tls]\nrejectUnauthorized=false\n`,
    'log.ini': '[main]\nlevel=notice\n',
    me: 'localhost\n',
    plugins: 'take_all\nqueue/smtp_forward\n',
  };
  for (const [file, text] of Object.entries(config)) writeFileSync(join(home, 'config', file), text);
  writeFileSync(join(home, 'plugins/take_all.js'), 'exports.hook_rcpt = (next) => next(OK);\n');
  const pid = spawnChild(process.execPath, [join(home, 'node_modules/Haraka/bin/haraka'), '-c', home]);
  await waitFor(() => isOpen(port), { what: 'Haraka' });
  return {
    name,
    port,
    promise: 'the provider has it',
    cpuSeconds: () => treeCpuSeconds(pid),
    sunk: () => sunk(sink.port, false),
    stop: async () => {},
  };
}

const ROUNDS = 3;
const MESSAGES = 1_000;

async function rowOf(relay: OtherRelay, sessions: number): Promise<string[]> {
  const us: number[] = [];
  const rates: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const wanted = (await relay.sunk()).messages + MESSAGES;
    const spent = relay.cpuSeconds();
    const at = performance.now();
    await run({ port: relay.port, sessions, messages: MESSAGES, body: bodyOf(4_096) });
    await waitFor(async () => (await relay.sunk()).messages >= wanted, {
      what: `${relay.name} to hand over ${MESSAGES} messages`,
      everyMs: 50,
      timeoutMs: 120_000,
    });
    // The first round warms up.
    if (round === 0) continue;
    rates.push((MESSAGES / (performance.now() - at)) * 1000);
    us.push(((relay.cpuSeconds() - spent) / MESSAGES) * 1e6);
  }
  const { messages, connections } = await relay.sunk();
  return [
    relay.name,
    relay.promise,
    median(us).toFixed(0),
    median(rates).toFixed(0),
    (messages / connections).toFixed(messages > 10 * connections ? 0 : 1),
  ];
}

/** One row for each that is there: 4 kB, sessions kept open.  */
export async function otherRelayRows(
  files: readonly string[],
  sessions: number,
  startOurs: () => Promise<OtherRelay>,
): Promise<{ readonly rows: string[][]; readonly absent: readonly Absent[] }> {
  const rows = [
    ['relay', '250 means', 'µs of all processes', 'msg/s at the provider', 'messages a connection'],
  ];
  const absent: Absent[] = [];
  for (const start of [startOurs, () => startPostfixRelay(files), () => startHaraka(files)]) {
    const relay = await start();
    if ('why' in relay) {
      absent.push(relay);
      continue;
    }
    rows.push(await rowOf(relay, sessions).finally(relay.stop));
  }
  return { rows, absent };
}
