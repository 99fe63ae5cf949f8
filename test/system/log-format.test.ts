/** `--log-format`: people on a terminal, programs on a pipe, a log file always JSON. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot } from '../support/relay-process.ts';
import { startCli } from '../support/run-cli.ts';
import { waitFor, within } from '../support/wait-for.ts';

test(
  'serve says on a terminal where it listens and how many can send; JSON elsewhere unless asked otherwise',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['a@x.org', 'b@x.org'] });
    defer(() => provider.close());
    provider.token.revoke('b@x.org');
    const directory = mkdtempSync(join(tmpdir(), 'log-format-'));
    defer(() => rmSync(directory, { recursive: true }));
    const accounts = join(directory, 'accounts.json');
    writeFileSync(accounts, JSON.stringify([provider.entry('a@x.org'), provider.entry('b@x.org')]), {
      mode: 0o600,
    });
    const args = ['serve', '--accounts', accounts, '--port', '0', '--admin-port', '0'];
    const env = { NODE_EXTRA_CA_CERTS: provider.caFile };

    // util-linux gives the command a terminal of its own.
    const command = [process.execPath, join(repositoryRoot, 'bin/xoauth2-relay.js'), ...args].join(' ');
    const child = spawn('script', ['-qec', `exec ${command}`, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...env, TERM: 'xterm', NO_COLOR: '' },
    });
    let screen = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      screen += text;
    });
    const ended = new Promise((resolve) => child.once('close', resolve));
    await waitFor(() => screen.includes('can send'), { what: 'the first screen' });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are what it looks for
    assert.match(screen, /\x1b\[33m1 of 2 accounts can send/);
    assert.match(screen, /SMTP +\S*127\.0\.0\.1:\d+/);
    assert.match(screen, /dashboard +\S*http:\/\/127\.0\.0\.1:\d+\//);
    assert.doesNotMatch(screen, /"event":/);
    child.stdin.write('\x03');
    await within(ended, 20_000, 'serve ends by ^C');
    child.stdin.destroy();

    const start = (more: readonly string[]) => {
      const run = startCli([...args, ...more], { env });
      defer(() => run.signal('SIGKILL'));
      return run;
    };
    const piped = start([]);
    await piped.seen(/"event":"ready".*"usable":1/);
    piped.signal('SIGTERM');
    await piped.exited;

    const file = join(directory, 'relay.log');
    const pretty = start(['--log-format', 'pretty', '--log-file', file]);
    await waitFor(() => existsWith(file, '"event":"ready"'), {
      what: 'JSON in the file',
    });
    pretty.signal('SIGTERM');
    await pretty.exited;
    const asked = start(['--log-format', 'pretty']);
    await asked.seen(/ready: 1 of 2 accounts can send/);
    asked.signal('SIGTERM');
    await asked.exited;
  }),
);

function existsWith(file: string, text: string): boolean {
  try {
    return readFileSync(file, 'utf8').includes(text);
  } catch {
    return false;
  }
}
