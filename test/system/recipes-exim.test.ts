// needs: exim
/** The Exim recipe with the real Exim, unpacked beside Postfix, which it excludes as a package. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { type ProgramResult, runProgram } from '../support/program.ts';
import { startProvider } from '../support/provider.ts';
import { readRecipe } from '../support/recipe.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';

const unpacked = join(repositoryRoot, 'build/exim/usr/sbin/exim4');
const exim = existsSync(unpacked) ? unpacked : '/usr/sbin/exim4';

/**
 * Runs Exim where its package's user exists (unpacking creates none): in a mount namespace of its own with
 * that user in /etc/passwd and /etc/group.
 */
function runExim(directory: string, args: readonly string[], input: string): Promise<ProgramResult> {
  for (const name of ['passwd', 'group']) {
    const text = readFileSync(`/etc/${name}`, 'utf8');
    const line =
      name === 'passwd' ? 'Debian-exim:x:8:8::/nonexistent:/usr/sbin/nologin\n' : 'Debian-exim:x:8:\n';
    writeFileSync(join(directory, name), text.includes('Debian-exim:') ? text : text + line);
  }
  const script = 'mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@"';
  const config = ['-C', join(directory, 'exim.conf')];
  return runProgram('unshare', ['-m', 'sh', '-c', script, directory, exim, ...config, ...args], { input });
}

test(
  'Exim routes senders to the relay, with and without a password',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['alice@example.com', 'bob@example.org'] });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [
        provider.entry('alice@example.com'),
        provider.entry('bob@example.org', { password: { env: 'BOB' } }),
      ],
      caFile: provider.caFile,
      env: { BOB: 'THE-PASSWORD' },
    });
    defer(() => relay.stop());
    const directory = mkdtempSync(join(tmpdir(), 'exim-'));
    defer(() => rmSync(directory, { recursive: true }));
    chmodSync(directory, 0o755);
    mkdirSync(join(directory, 'spool'));
    // Exim gives its rights up for this user; 8 is mail on every Debian.
    chownSync(join(directory, 'spool'), 8, 8);
    const recipe = readRecipe('exim.md');
    const routing = recipe.block('begin routers').replace('port = 2525', `port = ${relay.smtpPort}`);
    const configure = (sender: string, needsAuth: boolean): void =>
      writeFileSync(
        join(directory, 'exim.conf'),
        [
          `exim_path = ${exim}`,
          `spool_directory = ${directory}/spool`,
          `log_file_path = ${directory}/spool/%slog`,
          'primary_hostname = mta.example.org',
          'exim_user = mail',
          'exim_group = mail',
          'domainlist local_domains = @',
          routing.replace(/senders = .*/, `senders = ${sender}`),
          needsAuth ? '  hosts_require_auth = 127.0.0.1' : '',
          needsAuth ? recipe.block('begin authenticators') : '',
          'begin retry',
          '* * F,2h,15m',
          '',
        ].join('\n'),
        { mode: 0o644 },
      );

    configure('alice@example.com', false);
    const routed = await runExim(directory, ['-bt', '-f', 'alice@example.com', 'you@example.net'], '');
    assert.match(routed.output, /router = to_relay, transport = to_relay/);
    const send = (from: string) =>
      runExim(directory, ['-odi', '-v', '-f', from, 'you@example.net'], 'Subject: test\n\ntest\n');
    const plain = await send('alice@example.com');
    assert.match(plain.output, /250 2\.0\.0 OK .* - gsmtp/);

    configure('bob@example.org', true);
    const withPassword = await send('bob@example.org');
    assert.match(withPassword.output, /235 2\.7\.0/);
    const messages = await provider.received(2);
    assert.deepEqual(
      messages.map((m) => m.user),
      ['alice@example.com', 'bob@example.org'],
    );
  }),
);
