// needs: redis-server, haproxy
/** A rolling upgrade as docs/fleet.md describes it: HAProxy, two relays, load, each restarted in turn. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRedis } from '../support/redis.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { waitFor, within } from '../support/wait-for.ts';
import { closedPort } from '../tokens/support.ts';

const USER = 'sender@example.com';
const CLIENTS = 4;

interface Balancer {
  readonly port: number;
  /** Answer of one command of the runtime API. */
  ask(command: string): Promise<string>;
}

async function startHaproxy(defer: Defer, servers: Readonly<Record<string, number>>): Promise<Balancer> {
  const directory = mkdtempSync(join(tmpdir(), 'haproxy-'));
  const socket = join(directory, 'admin.sock');
  const port = await closedPort();
  const lines = Object.entries(servers).map(
    ([name, at]) =>
      `  server ${name} 127.0.0.1:${at} check inter 200ms fall 2 rise 1 send-proxy-v2 check-send-proxy`,
  );
  const configuration = `global
  stats socket ${socket} level admin
  maxconn 200
defaults
  mode tcp
  timeout connect 2s
  timeout client 5m
  timeout server 11m
  option redispatch
  retries 3
frontend smtp
  bind 127.0.0.1:${port}
  default_backend relays
backend relays
  balance leastconn
  option smtpchk EHLO balancer
${lines.join('\n')}
`;
  const file = join(directory, 'haproxy.cfg');
  writeFileSync(file, configuration);
  const child: ChildProcess = spawn('haproxy', ['-db', '-f', file], { stdio: 'ignore' });
  defer(async () => {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    if (child.exitCode === null && child.kill('SIGKILL')) await gone;
    rmSync(directory, { recursive: true, force: true });
  });
  const ask = (command: string): Promise<string> =>
    within(
      new Promise<string>((resolve, reject) => {
        let text = '';
        connect(socket)
          .on('error', reject)
          .on('data', (chunk) => (text += String(chunk)))
          .on('close', () => resolve(text))
          .end(`${command}\n`);
      }),
      5_000,
      'HAProxy',
    );
  await waitFor(async () => (await ask('show stat').catch(() => '')).includes('relays'), { what: 'HAProxy' });
  return { port, ask };
}

/** A column of `show stat` for a server. */
async function column(balancer: Balancer, server: string, name: string): Promise<string> {
  const [head = '', ...rows] = (await balancer.ask('show stat')).trim().split('\n');
  const at = head.replace('# ', '').split(',').indexOf(name);
  return rows.find((row) => row.startsWith(`relays,${server},`))?.split(',')[at] ?? '';
}

test(
  'a rolling upgrade behind HAProxy: nothing deferred, nothing lost, nothing twice',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [USER], latencyMs: 5 });
    defer(() => provider.close());
    const redis = await startRedis();
    defer(() => redis.kill());
    const relay = async (port: number): Promise<RelayProcess> => {
      const started = await startRelay({
        accounts: [provider.entry(USER, { login_interval_ms: 0 })],
        caFile: provider.caFile,
        args: ['--port', String(port), '--proxy-protocol', 'true', '--allow', '127.0.0.0/8'],
        env: { XOAUTH2_RELAY_STORE: redis.url, XOAUTH2_RELAY_STATE_KEY: 'fleet-test-passphrase-0123456789' },
      });
      defer(() => started.stop());
      return started;
    };
    const ports = { a: await closedPort(), b: await closedPort() };
    const running = { a: await relay(ports.a), b: await relay(ports.b) };
    const balancer = await startHaproxy(defer, ports);
    const isUp = async (name: 'a' | 'b'): Promise<boolean> =>
      /^(UP|no check)/.test(await column(balancer, name, 'status'));
    await waitFor(async () => (await isUp('a')) && (await isUp('b')), { what: 'both relays in rotation' });

    const acknowledged: string[] = [];
    const trouble: string[] = [];
    let isOver = false;
    let serial = 0;
    const clients = Array.from({ length: CLIENTS }, async () => {
      while (!isOver) {
        const id = `upgrade-${++serial}-`;
        const client = await smtpClient(balancer.port);
        try {
          await client.expect(undefined, 220);
          await client.expect('EHLO load.test', 250);
          await client.expect(`MAIL FROM:<${USER}>`, 250);
          await client.expect('RCPT TO:<to@example.net>', 250);
          await client.expect('DATA', 354);
          const answer = await client.body(`Subject: ${id}\r\n\r\nx\r\n`);
          if (answer.code === 250) acknowledged.push(id);
          else trouble.push(answer.text);
          await client.send('QUIT');
        } catch (error) {
          trouble.push(String(error));
        } finally {
          client.end();
        }
      }
    });

    for (const name of ['a', 'b'] as const) {
      const before = acknowledged.length;
      await waitFor(() => acknowledged.length > before + 20, { what: 'mail flowing', timeoutMs: 20_000 });
      await balancer.ask(`set server relays/${name} state drain`);
      await waitFor(async () => (await column(balancer, name, 'scur')) === '0', { what: 'the last session' });
      assert.equal((await running[name].stop()).code, 0);
      running[name] = await relay(ports[name]);
      await balancer.ask(`set server relays/${name} state ready`);
      await waitFor(() => isUp(name), { what: 'the relay in rotation again' });
    }
    const before = acknowledged.length;
    await waitFor(() => acknowledged.length > before + 20, { what: 'mail flowing', timeoutMs: 20_000 });
    isOver = true;
    await Promise.all(clients);

    assert.deepEqual(trouble, []);
    const delivered = provider.messages.map((m) => /upgrade-\d+-/.exec(m.body.toString('latin1'))?.[0]);
    assert.deepEqual([...delivered].sort(), [...acknowledged].sort(), 'each exactly once');
    console.log(`${acknowledged.length} messages during the upgrade`);
  }),
);
