// needs: msmtp, swaks, swaks-tls
/** The recipes for msmtp, swaks and devices with the real programs. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { issueCertificate } from '../support/certificate.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { runProgram } from '../support/program.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { readRecipe } from '../support/recipe.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';

const USERS = ['alice@example.com', 'alerts@example.com', 'bob@example.org', 'scanner@example.com'];

function temporary(defer: Defer): string {
  const directory = mkdtempSync(join(tmpdir(), 'recipe-'));
  defer(() => rmSync(directory, { recursive: true }));
  return directory;
}

async function setUp(
  defer: Defer,
  args: readonly string[] = [],
): Promise<{ provider: Provider; relay: RelayProcess }> {
  const provider = await startProvider({ users: USERS });
  defer(() => provider.close());
  const closed = ['bob@example.org', 'scanner@example.com'];
  const relay = await startRelay({
    accounts: USERS.map((user) =>
      provider.entry(user, closed.includes(user) ? { password: { env: 'PW' } } : {}),
    ),
    caFile: provider.caFile,
    env: { PW: 'THE-PASSWORD' },
    args,
  });
  defer(() => relay.stop());
  return { provider, relay };
}

test(
  'msmtp sends as either account of the recipe',
  leakless(async (_t, defer) => {
    const { provider, relay } = await setUp(defer);
    const directory = temporary(defer);
    const password = join(directory, 'password');
    writeFileSync(password, 'THE-PASSWORD\n');
    const file = join(directory, 'msmtprc');
    const recipe = readRecipe('msmtp.md').block('account default');
    writeFileSync(
      file,
      recipe.replace('port 2525', `port ${relay.smtpPort}`).replace('/etc/bob-relay-password', password),
      {
        mode: 0o600,
      },
    );
    for (const account of ['alerts', 'bob']) {
      const sent = await runProgram('msmtp', ['-C', file, '--debug', '-a', account, 'you@example.net'], {
        input: 'Subject: test\n\nhello\n',
      });
      assert.equal(sent.code, 0, sent.output);
      assert.match(sent.output, /<-- 250 2\.0\.0 OK .* - gsmtp/);
    }
    const messages = await provider.received(2);
    assert.deepEqual(
      messages.map((m) => m.user),
      ['alerts@example.com', 'bob@example.org'],
    );
  }),
);

test(
  'the commands of the swaks recipe send',
  leakless(async (_t, defer) => {
    const { provider, relay } = await setUp(defer);
    const directory = temporary(defer);
    writeFileSync(join(directory, 'report.pdf'), '%PDF-1.4 not really');
    const script = readRecipe('swaks.md')
      .block('swaks --server')
      .replaceAll('--port 2525', `--port ${relay.smtpPort}`);
    const sent = await runProgram('sh', ['-e', '-c', script], { cwd: directory });
    assert.equal(sent.code, 0, sent.output);
    const messages = await provider.received(3);
    assert.deepEqual(
      messages[2]?.recipients.map((r) => r.address),
      ['one@example.net', 'two@example.net'],
    );
  }),
);

test(
  'a device logs in over STARTTLS at a listener beside the one for this machine',
  leakless(async (_t, defer) => {
    const directory = temporary(defer);
    const certificate = issueCertificate();
    writeFileSync(join(directory, 'relay.crt'), certificate.certPem);
    writeFileSync(join(directory, 'relay.key'), certificate.keyPem, { mode: 0o600 });
    const printers = readRecipe('printers.md');
    const config = printers
      .block('"listeners"')
      .replace(/"port": \d+/g, '"port": 0')
      .replaceAll('192.0.2.10', '127.0.0.1');
    writeFileSync(join(directory, 'relay.json'), config);
    const { provider, relay } = await setUp(defer, ['--config', join(directory, 'relay.json')]);
    const { listeners } = (await relay.event('listening')) as unknown as { listeners: { port: number }[] };
    assert.equal(listeners.length, 3);
    const port = listeners[1]?.port;
    const command = printers
      .block('swaks --server')
      .replace('192.0.2.10', '127.0.0.1')
      .replace('--port 587', `--port ${port} --auth-password THE-PASSWORD`);
    const sent = await runProgram('sh', ['-c', command]);
    assert.equal(sent.code, 0, sent.output);
    assert.equal((await provider.received(1))[0]?.user, 'scanner@example.com');
    const without = await runProgram('swaks', [
      '--server',
      '127.0.0.1',
      '--port',
      String(port),
      '--from',
      'alice@example.com',
      '--to',
      'you@example.net',
    ]);
    assert.match(without.output, /<\*\* 530/);
  }),
);
