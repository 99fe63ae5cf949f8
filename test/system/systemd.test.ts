// needs: systemd-analyze
/** The systemd unit, and what the service tells systemd. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { runProgram } from '../support/program.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';

const unit = join(repositoryRoot, 'deploy/systemd/xoauth2-relay.service');

test('systemd accepts the unit and rates it as the unit says', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'unit-'));
  try {
    const text = readFileSync(unit, 'utf8');
    const copy = join(directory, 'xoauth2-relay.service');
    // Neither program nor manual page is installed here.
    writeFileSync(
      copy,
      text.replace('/usr/local/bin/xoauth2-relay', '/bin/true').replace(/^Documentation=.*$/m, ''),
    );
    const verified = await runProgram('systemd-analyze', ['verify', copy]);
    assert.equal(verified.output.trim(), '');
    const rated = await runProgram('systemd-analyze', ['security', '--offline=true', '--no-pager', copy]);
    const [, score] = /exposure level for \S+: ([\d.]+)/.exec(rated.output) ?? [];
    assert(Number(score) < 2, rated.output);
    const [, stated] = /rates it ([\d.]+)/.exec(text) ?? [];
    assert.equal(score, stated);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test(
  'what root does at start and reload cannot be led astray by a link of the service’s user',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'unit-'));
    defer(() => rmSync(directory, { recursive: true }));
    const [etc, run, victim] = ['etc', 'run', 'victim'].map((name) => join(directory, name)) as [
      string,
      string,
      string,
    ];
    const service = join(run, 'xoauth2-relay');
    for (const path of [etc, run, victim, service]) mkdirSync(path);
    writeFileSync(join(etc, 'accounts.json'), '[]', { mode: 0o600 });
    writeFileSync(join(victim, 'accounts.json'), 'untouched');
    // All the names there are, in the only directory that is the service's.
    for (const name of ['accounts.json', 'new', 'xoauth2-relay-accounts'])
      symlinkSync(join(victim, 'accounts.json'), join(service, name));
    if (process.getuid?.() === 0) chownSync(service, 65_534, 65_534);
    const asRoot = [...readFileSync(unit, 'utf8').matchAll(/^Exec\w+=\+\/bin\/sh -c '(.*)'$/gm)].map(
      ([, line]) => (line ?? '').replaceAll('%t', run).replaceAll('/etc/xoauth2-relay', etc),
    );
    assert.equal(asRoot.length, 2);
    // Twice each: a reload finds what the start has made.
    for (const line of [...asRoot, ...asRoot]) {
      const { code, output } = await runProgram('/bin/sh', ['-c', line]);
      assert.equal(code, 0, output);
    }
    assert.equal(readFileSync(join(victim, 'accounts.json'), 'utf8'), 'untouched');
    const copied = lstatSync(join(run, 'xoauth2-relay-accounts/accounts.json'));
    assert.deepEqual(
      [copied.isFile(), copied.mode & 0o777, copied.uid],
      [true, 0o600, statSync(service).uid],
    );
    const place = statSync(join(run, 'xoauth2-relay-accounts'));
    assert.deepEqual([place.uid, place.mode & 0o777], [process.getuid?.(), 0o755]);
  }),
);

/** A notification socket as systemd has one; Node has no UNIX datagrams, Perl does. */
async function listenForNotifications(defer: Defer): Promise<{ path: string; text(): string }> {
  const directory = mkdtempSync(join(tmpdir(), 'notify-'));
  defer(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'socket');
  const script =
    '$| = 1; use Socket; socket(S, PF_UNIX, SOCK_DGRAM, 0); bind(S, sockaddr_un($ARGV[0])); while (defined recv(S, $m, 4096, 0)) { print "$m\\n" }';
  const perl = spawn('perl', ['-e', script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => perl.once('close', resolve));
  defer(() => {
    perl.kill();
    return ended;
  });
  let text = '';
  perl.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await waitFor(() => existsSync(path), { what: 'the notification socket' });
  return { path, text: () => text };
}

test(
  'READY, WATCHDOG, RELOADING and STOPPING reach systemd in that order',
  leakless(async (_t, defer) => {
    const notifications = await listenForNotifications(defer);
    const provider = await startProvider({ users: ['a@x.org'] });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [provider.entry('a@x.org')],
      caFile: provider.caFile,
      env: { NOTIFY_SOCKET: notifications.path, WATCHDOG_USEC: '200000' },
    });
    defer(() => relay.stop());
    const seen = (pattern: RegExp): Promise<true> =>
      waitFor(() => pattern.test(notifications.text()) || undefined, {
        what: `${pattern} in\n${notifications.text()}`,
      });
    await seen(/^READY=1$/m);
    await seen(/^WATCHDOG=1$/m);
    await relay.reload([provider.entry('a@x.org'), provider.entry('b@x.org')]);
    await seen(/^RELOADING=1\nMONOTONIC_USEC=\d+$[\s\S]*^READY=1$/m);
    relay.signal('SIGTERM');
    assert.equal((await relay.exited).code, 0);
    await seen(/^STOPPING=1$/m);
  }),
);
