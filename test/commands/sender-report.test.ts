import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { greeted } from '../support/dialogue.ts';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';

const entry = (email: string, more: object = {}): object => ({
  email,
  provider: 'gmail',
  client_id: 'c',
  client_secret: 's',
  refresh_token: 'r',
  ...more,
});

test(
  'check --sender says which account takes an address and why, without asking anybody',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'sender-report-'));
    defer(() => rmSync(directory, { recursive: true }));
    const file = join(directory, 'accounts.json');
    writeFileSync(
      file,
      JSON.stringify([
        entry('rest@x.test', {
          senders: ['*'],
          deny: ['no@y.test'],
          rewrite_sender: true,
          rewrite_from: 'foreign',
        }),
        entry('team@x.test', { senders: ['*@team.test'], preference: 5 }),
        entry('safe@x.test', { senders: ['*@team.test'], password: 'p' }),
      ]),
      { mode: 0o600 },
    );
    const ask = async (sender: string, more: string[] = []) =>
      runCli(['check', '--sender', sender, '--accounts', file, ...more]);
    const team = await ask('a@team.test');
    assert.equal(team.code, 0);
    assert.match(team.stdout, /team@x\.test +a@team\.test +matches a "\*@domain" pattern; preference 5\n/);
    assert.match(team.stdout, /safe@x\.test .*only after AUTH/);
    const root = await ask('root@host', ['--json']);
    assert.deepEqual(
      JSON.parse(root.stdout).accounts.map((row: { account: string; leaves_as: string }) => [
        row.account,
        row.leaves_as,
      ]),
      [['rest@x.test', 'rest@x.test']],
    );
    const denied = await ask('no@y.test');
    assert.equal(denied.code, 1);
    assert.match(
      denied.stdout,
      /nobody takes mail from no@y\.test: refused by "deny" of account rest@x\.test/,
    );
    assert.match((await ask('<>')).stdout, /add "<>" to "senders"/);
  }),
);

test(
  'check --sender tells what the relay answers where the entry of the account has a mistake',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['a@x.test'] });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [provider.entry('a@x.test'), provider.entry('b@x.test', { smtp: 'nowhere' })],
      caFile: provider.caFile,
    });
    defer(() => relay.stop());
    const client = await greeted(relay.smtpPort);
    defer(() => client.socket.destroy());
    const { text } = await client.send('MAIL FROM:<b@x.test>');
    const told = await runCli(['check', '--sender', 'b@x.test', '--json', '--accounts', relay.accountsFile]);
    assert.deepEqual(
      JSON.parse(told.stdout).without_auth.map(({ reply }: { reply: string }) => reply),
      [text],
    );
  }),
);
