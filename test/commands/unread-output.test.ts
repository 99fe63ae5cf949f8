/** Commands whose standard output nobody reads any more: what was begun is done, and the exit code is its own. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { startCli } from '../support/run-cli.ts';

const USER = 'user@x.org';

test(
  'a message is sent, a failure is one, and what has no end of its own ends',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [USER, 'revoked@x.org'] });
    defer(() => provider.close());
    const relay = await startRelay({ accounts: [provider.entry(USER)], caFile: provider.caFile });
    defer(() => relay.stop());
    provider.token.revoke('revoked@x.org');
    const directory = mkdtempSync(join(tmpdir(), 'unread-'));
    defer(() => rmSync(directory, { recursive: true }));
    const accounts = join(directory, 'accounts.json');
    writeFileSync(accounts, JSON.stringify([USER, 'revoked@x.org'].map((user) => provider.entry(user))), {
      mode: 0o600,
    });
    const log = join(directory, 'log');
    writeFileSync(log, '{"level":30,"msg":"first"}\n'.repeat(10_000));
    const unread = async (...words: readonly string[]) => {
      const run = startCli(words, {
        env: { NODE_EXTRA_CA_CERTS: provider.caFile, XOAUTH2_RELAY_ACCOUNTS: accounts },
      });
      run.closeStdout();
      const { code, stderr } = await run.exited;
      return [code, stderr];
    };
    assert.deepEqual(await unread('send', 'to@y.org', '--from', USER, '--port', String(relay.smtpPort)), [
      0,
      '',
    ]);
    assert.deepEqual(await unread('send', 'to@y.org', '--direct', USER), [0, '']);
    assert.equal(provider.messages.length, 2);
    assert.deepEqual(await unread('check', USER), [0, '']);
    assert.deepEqual(await unread('check'), [1, '']);
    const admin = ['--admin-port', String(relay.adminPort)];
    assert.deepEqual(await unread('status', '--watch', ...admin), [0, '']);
    assert.deepEqual(await unread('logs', '--follow', '-n', '10000', '--log-file', log), [0, '']);
  }),
);
