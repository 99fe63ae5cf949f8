import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { greeted, sendMail, transact } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type RelayProcess, repositoryRoot, startRelay } from '../support/relay-process.ts';
import { startServing } from '../support/serving.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@gmail.example';
const BOB = 'bob@gmail.example';
const CARL = 'carl@gmail.example';
const DORA = 'dora@gmail.example';

/** Says in the end of a process where its debugger listens. */
const LOOK = `import inspector from 'node:inspector';
process.on('exit', () => console.error('at the end: ' + inspector.url()));`;

async function start(defer: Defer, more = {}): Promise<{ provider: Provider; relay: RelayProcess }> {
  const provider = await startProvider({ users: [ANN, BOB, CARL] });
  defer(() => provider.close());
  const relay = await startRelay({
    accounts: [ANN, BOB, CARL].map((user) => provider.entry(user, more)),
    caFile: provider.caFile,
  });
  defer(() => relay.stop());
  return { provider, relay };
}

/** Sends for `user` without a pause until told to stop; every reply's code. */
function stream(relay: RelayProcess, user: string): { stop: () => Promise<number[]>; sent: () => number } {
  const codes: number[] = [];
  let going = true;
  const run = (async () => {
    const client = await greeted(relay.smtpPort);
    while (going) codes.push((await transact(client, { from: user })).code);
    client.end();
    return codes;
  })();
  return {
    sent: () => codes.length,
    stop: () => {
      going = false;
      return run;
    },
  };
}

test(
  'that an account is drained is forgotten with the account',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    const drained = await fetch(`${relay.adminUrl}/admin/accounts/${BOB}/drain`, { method: 'POST' });
    assert.equal(drained.status, 200);
    assert.equal((await sendMail(relay.smtpPort, { from: BOB })).code, 451);
    await relay.reload([provider.entry(ANN)]);
    await relay.reload([provider.entry(ANN), provider.entry(BOB)]);
    assert.equal((await sendMail(relay.smtpPort, { from: BOB })).code, 250);
  }),
);

test(
  'SIGHUP applies what changed while mail flows; what did not keeps its token and connections',
  leakless(async (_t, defer) => {
    // However many messages flow meanwhile, no connection ends because of their number.
    const lasting = { messages_per_connection: 1_000_000 };
    const { provider, relay } = await start(defer, lasting);
    const streams = [stream(relay, ANN), stream(relay, ANN)];
    await waitFor(() => streams.every((s) => s.sent() >= 20), { what: 'mail flowing' });
    const connections = provider.smtp.sessions.filter((s) => s.user === ANN).length;

    const changed = provider.entry(BOB, { ...lasting, senders: ['*@bob.example'] });
    const line = await relay.reload([provider.entry(ANN, lasting), changed, provider.entry(DORA)]);
    assert.equal(line.event, 'reloaded');
    assert.deepEqual([line.added, line.changed, line.removed, line.untouched], [[DORA], [BOB], [CARL], 1]);
    const before = streams.map((s) => s.sent());
    await waitFor(() => streams.every((s, i) => s.sent() >= (before[i] ?? 0) + 20), {
      what: 'mail flowing on',
    });
    for (const s of streams) assert.deepEqual([...new Set(await s.stop())], [250]);

    assert.equal(provider.token.count(ANN), 1);
    assert.equal(provider.smtp.sessions.filter((s) => s.user === ANN && s.closed).length, 0);
    assert.ok(provider.smtp.sessions.filter((s) => s.user === ANN).length >= connections);
    assert.equal((await sendMail(relay.smtpPort, { from: DORA })).code, 250);
    assert.equal((await sendMail(relay.smtpPort, { from: 'x@bob.example' })).code, 250);
    assert.match((await sendMail(relay.smtpPort, { from: CARL })).text, /^550 5\.7\.1 .*carl@gmail\.example/);
    await waitFor(() => provider.smtp.sessions.filter((s) => s.user === CARL).every((s) => s.closed), {
      what: "the removed account's connections to close",
    });
  }),
);

test(
  'SIGHUP before anything is loaded is no end',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [ANN] });
    defer(() => provider.close());
    const program = readFileSync(join(repositoryRoot, 'bin/xoauth2-relay.js'), 'utf8');
    const load = "await import('../dist/cli.js');";
    assert.ok(program.includes(load));
    const directory = mkdtempSync(join(tmpdir(), 'early-signal-'));
    defer(() => rmSync(directory, { recursive: true }));
    const bin = join(directory, 'relay.mjs');
    writeFileSync(
      bin,
      program.replace(
        load,
        `process.kill(process.pid, 'SIGHUP'); await new Promise((go) => setTimeout(go, 50));
        await import(${JSON.stringify(join(repositoryRoot, 'dist/cli.js'))});`,
      ),
    );
    const relay = await startRelay({ accounts: [provider.entry(ANN)], caFile: provider.caFile, bin });
    defer(() => relay.stop());
    assert.equal((await sendMail(relay.smtpPort, { from: ANN })).code, 250);
  }),
);

test(
  'a broken accounts file changes nothing and is reported; a bad account does not stop the others',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    const connections = provider.smtp.connections;
    for (const broken of ['{ "accounts": [', '', '{ "accounts": 7 }', '[{"email": 1}]']) {
      assert.equal((await relay.reload(broken)).event, 'reload_failed', broken);
    }
    assert.equal((await sendMail(relay.smtpPort, { from: ANN })).code, 250);
    assert.equal(provider.token.count(), 3);
    assert.equal(provider.smtp.connections, connections);

    const bad = { ...provider.entry(BOB), client_id: 7 };
    const from = relay.lines.length;
    const line = await relay.reload([provider.entry(ANN), bad, provider.entry(DORA)]);
    assert.equal(line.event, 'reloaded');
    const problem = await relay.event('account_problem', { from });
    assert.equal(problem.path, 'accounts[1].client_id');
    assert.equal((await sendMail(relay.smtpPort, { from: DORA })).code, 250);
    // Its mail waits for the operator: never a bounce because of our own file.
    assert.match((await sendMail(relay.smtpPort, { from: BOB })).text, /^451 4\./);
  }),
);

test(
  'a typo in an entry bounces nothing and removes nobody; status names the entry; the mended file serves it again',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    const { email, ...nameless } = provider.entry(BOB);
    const login = async (user: string, password: string): Promise<number> => {
      const client = await greeted(relay.smtpPort);
      const plain = Buffer.from(`\0${user}\0${password}`).toString('base64');
      const { code } = await client.send(`AUTH PLAIN ${plain}`);
      client.end();
      return code;
    };
    const withPassword = { ...provider.entry(CARL), password: 'open sesame' };
    const typo = await relay.reload([
      provider.entry(ANN),
      { ...nameless, emial: email } as never,
      withPassword,
    ]);
    assert.deepEqual([typo.event, typo.removed, typo.added], ['reloaded', [], []]);
    for (const sender of [BOB, 'whoever@else.example'])
      assert.match((await sendMail(relay.smtpPort, { from: sender })).text, /^451 4\.3\.5 /, sender);
    assert.equal((await sendMail(relay.smtpPort, { from: ANN })).code, 250);
    const { accounts } = await relay.admin<{ accounts: Record<string, unknown>[] }>('/admin/accounts');
    const rows = new Map(accounts.map((row) => [row.id, row]));
    for (const id of [BOB, 'accounts[1]']) {
      assert.equal(rows.get(id)?.status, 'misconfigured', id);
      assert.match(String(rows.get(id)?.reason), /accounts\[1\]\.emial \(line \d+\)/, id);
    }

    // Another mistake in an entry whose owner is known: its client must not hear 535 and give up.
    const wrong = { ...withPassword, max_connections: 'many' };
    const bad = await relay.reload([provider.entry(ANN), provider.entry(BOB), wrong]);
    assert.deepEqual([bad.removed, bad.changed], [[], [BOB]]);
    assert.equal(await login(CARL, 'open sesame'), 454);

    const mended = await relay.reload([provider.entry(ANN), provider.entry(BOB), withPassword]);
    assert.deepEqual([mended.removed, mended.added, mended.changed], [[], [], [CARL]]);
    assert.equal(await login(CARL, 'open sesame'), 235);
    assert.equal(await login(CARL, 'wrong'), 535);
    assert.equal((await sendMail(relay.smtpPort, { from: BOB })).code, 250);
    assert.match((await sendMail(relay.smtpPort, { from: 'whoever@else.example' })).text, /^550 5\.7\.1 /);
    const gone = await relay.reload([provider.entry(ANN), withPassword]);
    assert.deepEqual(gone.removed, [BOB]);
  }),
);

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(
    `${signal} drains: idle sessions hear 421, the transaction under way is finished, exit 0`,
    leakless(async (_t, defer) => {
      const { provider, relay } = await start(defer);
      let release = (): void => {};
      provider.smtp.script(
        'end-of-data',
        {},
        { until: new Promise<void>((r) => (release = r)), normal: true },
      );
      const idle = await greeted(relay.smtpPort);
      defer(() => idle.reset());
      const busy = await greeted(relay.smtpPort);
      defer(() => busy.reset());
      const verdict = transact(busy, { from: ANN });
      await waitFor(() => provider.smtp.sessions.some((s) => s.commands.some((c) => /^BDAT/.test(c))), {
        what: 'the body at the provider',
      });
      relay.signal(signal);
      assert.equal((await idle.reply()).code, 421);
      await idle.closed();
      await assert.rejects(smtpClient(relay.smtpPort), /ECONNREFUSED/);
      release();
      assert.equal((await verdict).code, 250);
      assert.deepEqual(await relay.exited, { code: 0, signal: null });
      assert.equal(provider.messages.length, 1);
      await provider.assertDisconnected();
      assert.ok(
        provider.smtp.sessions.every((s) => s.quit),
        'QUIT to the provider',
      );
    }),
  );
}

for (const stage of ['greeting', 'MAIL', 'DATA', 'end-of-data'] as const) {
  test(
    `the stop deadline ends a message whose provider is silent at ${stage}: the client hears 421, exit 0`,
    leakless(async (_t, defer) => {
      const provider = await startProvider({ users: [ANN] });
      defer(() => provider.close());
      // The warm connections first, so that it is this message that meets the silence.
      const relay = await startRelay({
        accounts: [provider.entry(ANN, stage === 'DATA' ? { chunking: false } : {})],
        caFile: provider.caFile,
        args: ['--stop-deadline-ms', '2000', ...(stage === 'greeting' ? ['--no-precache'] : [])],
      });
      defer(() => relay.stop());
      const silence = provider.smtp.script(stage, {}, { after: 'hang' });
      const client = await greeted(relay.smtpPort);
      defer(() => client.reset());
      const verdict = transact(client, { from: ANN });
      await waitFor(() => silence.hits > 0, { what: 'the silence' });
      relay.signal('SIGTERM');
      const heard = await verdict;
      assert.equal(heard.code, 421);
      await client.closed();
      assert.deepEqual(await relay.exited, { code: 0, signal: null });
      assert.equal(provider.messages.length, 0);
      if (stage === 'greeting') return;
      // Whoever reads the log must know that the message may have been delivered, or that it cannot have been.
      const isUnknown = stage !== 'DATA';
      const { outcome, reply } = relay.lines.find((line) => line.event === 'transaction') ?? {};
      assert.equal(outcome, isUnknown ? 'unknown' : 'aborted');
      assert.equal(/delivery status unknown/.test(heard.text), isUnknown, heard.text);
      const told = JSON.stringify(reply ?? null);
      assert.equal(/delivery status unknown/.test(told), isUnknown, told);
    }),
  );
}

test(
  'a second signal cuts: the process ends at once, and whoever waits for a verdict hears 421 that it is unknown',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    provider.smtp.script('end-of-data', {}, { after: 'hang' });
    const client = await greeted(relay.smtpPort);
    defer(() => client.reset());
    const verdict = transact(client, { from: ANN });
    // Not that with which the server is proved.
    const hasBody = (commands: readonly string[]): boolean => /MAIL .*BDAT/s.test(commands.join('\n'));
    await waitFor(() => provider.smtp.sessions.some((s) => hasBody(s.commands)), {
      what: 'the body at the provider',
    });
    relay.signal('SIGTERM');
    await relay.line((l) => l.event === 'stopping' || l.event === 'draining');
    relay.signal('SIGTERM');
    assert.equal((await relay.exited).code, 1);
    const heard = await verdict;
    assert.equal(heard.code, 421);
    assert.match(heard.text, /delivery status unknown/);
    assert.equal(relay.lines.find((line) => line.event === 'transaction')?.outcome, 'unknown');
    assert.equal(provider.messages.length, 0);
  }),
);

test(
  'the accounts of the admin API and the totals of its tokens have the keys other programs read',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    provider.token.revoke(BOB);
    assert.equal((await sendMail(relay.smtpPort, { from: ANN })).code, 250);
    const { accounts } = await relay.admin<{ accounts: Record<string, unknown>[] }>('/admin/accounts');
    const ann = accounts.find((a) => a.id === ANN);
    assert.deepEqual(
      Object.keys({ ...ann }).filter((key) =>
        ['id', 'email', 'provider', 'status', 'token', 'pool', 'messages', 'last_error'].includes(key),
      ).length,
      8,
    );
    const { token, pool, messages } = ann as Record<'token' | 'pool' | 'messages', Record<string, unknown>>;
    assert.equal(token.cached, true);
    for (const key of ['expires_at', 'expires_in_s', 'age_s']) assert.ok(key in token, key);
    for (const key of ['size', 'idle', 'busy', 'max']) assert.equal(typeof pool[key], 'number', key);
    assert.deepEqual([messages.relayed, messages.deferred, messages.rejected], [1, 0, 0]);
    const totals = await relay.admin('/admin/tokens');
    for (const key of [
      'cache_hits',
      'cache_misses',
      'refresh_attempts',
      'refresh_success',
      'refresh_failures',
    ]) {
      assert.equal(typeof totals[key], 'number', key);
    }
    assert.equal(totals.refresh_success, 3);
    for (const path of ['/healthz', '/readyz', '/metrics', '/']) {
      const response = await fetch(relay.adminUrl + path, { headers: { connection: 'close' } });
      await response.arrayBuffer();
      assert.equal(response.status, 200, path);
    }
  }),
);

test(
  'SIGUSR1 opens no debugger, SIGUSR2 ends nothing',
  leakless(async (_t, defer) => {
    const { relay } = await startServing(defer, ANN, {
      env: { NODE_OPTIONS: '--inspect-port=0' },
    });
    for (const signal of ['SIGUSR1', 'SIGUSR2'] as const) {
      relay.signal(signal);
      await relay.line((line) => line.event === 'signal_ignored' && line.signal === signal);
    }
    assert.equal((await sendMail(relay.smtpPort, { from: ANN })).code, 250);
    assert.doesNotMatch(relay.output(), /debugger/i);
  }),
);

test(
  'a SIGUSR1 that comes before the program runs leaves no debugger open',
  leakless(async (_t, defer) => {
    // Runs before it, and waits until Node has done what it does by itself.
    const before = `import inspector from 'node:inspector';
process.kill(process.pid, 'SIGUSR1');
while (inspector.url() === undefined) await new Promise(setImmediate);`;
    const child = spawn(process.execPath, [join(repositoryRoot, 'bin/xoauth2-relay.js'), '--version'], {
      env: {
        ...process.env,
        NODE_OPTIONS: `--inspect-port=0 --import data:text/javascript,${encodeURIComponent(before)} --import data:text/javascript,${encodeURIComponent(LOOK)}`,
      },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (text) => {
      said += String(text);
    });
    const ended = new Promise((resolve) => child.once('close', resolve));
    defer(async () => void (await ended));
    await ended;
    assert.match(said, /Debugger listening/);
    assert.match(said, /at the end: undefined/);
  }),
);
