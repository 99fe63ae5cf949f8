/** Edits of the accounts file by several people at once: none is lost, none comes back. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { editAccounts, findAccount } from '../../src/enrol/accounts-on-disk.ts';
import { createProcesses, formatMark } from '../../src/tokens/process-mark.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startCli } from '../support/run-cli.ts';
import { startSignInServer } from '../support/sign-in-server.ts';

const ANN = 'ann@gmail.example';

test('an account is found by its id or address, and a letter that only looks like its own finds none', () => {
  const text = JSON.stringify([{ email: 'Kim@x.org' }, { account_id: 'Desk-K', email: 'desk@x.org' }]);
  assert.deepEqual(
    ['kim@X.org', 'desk-k', 'DESK@x.org', '\u212aim@x.org', 'desk-\u212a', 'x.org'].map((name) =>
      findAccount(text, name),
    ),
    [0, 1, 1, -1, -1, -1],
  );
});

test('what an editor saves while an edit is brought to the disk is not lost', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'account-edits-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'accounts.json');
  const listOf = (...emails: readonly string[]): string => JSON.stringify(emails.map((email) => ({ email })));
  writeFileSync(file, listOf('a@x'), { mode: 0o600 });
  const handle = await open(file);
  const kind = Object.getPrototypeOf(handle) as { sync(): Promise<void> };
  await handle.close();
  const sync = t.mock.method(kind, 'sync', async () => {
    sync.mock.restore();
    writeFileSync(`${file}.editor`, listOf('a@x', 'editor@x'));
    renameSync(`${file}.editor`, file);
  });
  await editAccounts(file, (text) =>
    listOf(...(JSON.parse(text) as { email: string }[]).map(({ email }) => email), 'b@x'),
  );
  assert.equal(readFileSync(file, 'utf8'), listOf('a@x', 'editor@x', 'b@x'));
  assert.deepEqual(readdirSync(directory), ['accounts.json']);
});

async function setUp(defer: Defer) {
  const provider = await startProvider({ users: [ANN] });
  defer(() => provider.close());
  const signIn = await startSignInServer(provider, ANN);
  defer(() => signIn.close());
  const directory = mkdtempSync(join(tmpdir(), 'account-edits-'));
  defer(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'accounts.json');
  const entry = (email: string) => ({ ...provider.entry(email), provider: 'gmail' });
  const providers = {
    sim: {
      smtp: `starttls://localhost:${provider.smtp.port}`,
      token_url: signIn.tokenUrl,
      device_url: signIn.deviceUrl,
      scope: 'smtp offline_access',
    },
  };
  writeFileSync(
    file,
    `{\n\t"comment": "ours",\n\t"providers": ${JSON.stringify(providers)},\n\t"accounts": [\n\t\t${JSON.stringify(entry('old@gmail.example'))}\n\t]\n}\n`,
    { mode: 0o600 },
  );
  const run = (args: readonly string[], env: Record<string, string> = {}) =>
    startCli(['account', ...args, '--accounts', file, '--admin-port', '1'], {
      env: { NODE_EXTRA_CA_CERTS: provider.caFile, ...env },
    });
  const source = (email: string): string => {
    const path = join(directory, `${email}.source`);
    writeFileSync(path, JSON.stringify([entry(email)]));
    return path;
  };
  const emails = (): string[] =>
    (JSON.parse(readFileSync(file, 'utf8')) as { accounts: { email: string }[] }).accounts
      .map(({ email }) => email)
      .sort();
  /** `account add` as it waits for a person to sign in. */
  const dialogue = async () => {
    signIn.devicePolls = Array<'authorization_pending'>(10_000).fill('authorization_pending');
    const { clientId = '', clientSecret = '' } = provider.token.account(ANN) ?? {};
    const add = run(
      ['add', ANN, '--provider', 'sim', '--sign-in', 'device', '--client-id', clientId, '--no-verify'],
      { XOAUTH2_RELAY_CLIENT_SECRET: clientSecret },
    );
    defer(() => add.signal('SIGKILL'));
    await add.seen(/Waiting/);
    return { ...add, signIn: () => (signIn.devicePolls = []) };
  };
  return { provider, file, directory, run, source, emails, entry, dialogue };
}

test(
  'what others add and remove during a dialogue stays added and removed; the rest of the text stays as it was',
  leakless(async (_t, defer) => {
    const { file, directory, run, source, emails, dialogue } = await setUp(defer);
    const add = await dialogue();
    const bob = run(['import', source('bob@gmail.example')]);
    assert.equal((await bob.exited).code, 0);
    assert.equal((await run(['remove', 'old@gmail.example', '--yes']).exited).code, 0);
    writeFileSync(file, readFileSync(file, 'utf8').replace('"ours"', '"edited by hand"'));
    add.signIn();
    const { code, stderr } = await add.exited;
    assert.equal(code, 0, stderr);
    assert.deepEqual(emails(), [ANN, 'bob@gmail.example']);
    assert.match(readFileSync(file, 'utf8'), /^\{\n\t"comment": "edited by hand",\n\t"providers"/);
    assert.deepEqual(
      readdirSync(directory).filter((name) => /lock|tmp/.test(name)),
      [],
    );
  }),
);

test(
  'the same account added by somebody else during the dialogue is a conflict: nothing is written, the cure is named',
  leakless(async (_t, defer) => {
    const { file, run, source, dialogue } = await setUp(defer);
    const add = await dialogue();
    assert.equal((await run(['import', source(ANN)]).exited).code, 0);
    const before = readFileSync(file, 'utf8');
    add.signIn();
    const { code, stderr } = await add.exited;
    assert.equal(code, 1);
    assert.match(stderr, /ann@gmail\.example was added .* by somebody else meanwhile.*--replace/);
    assert.equal(readFileSync(file, 'utf8'), before);
  }),
);

test(
  'many at once: every one is there; a lock left behind by a killed one holds nobody up',
  leakless(async (_t, defer) => {
    const { file, run, source, emails } = await setUp(defer);
    writeFileSync(`${file}.lock`, formatMark({ ...createProcesses().own, pid: 2 ** 22 - 3 }, Date.now()), {
      mode: 0o600,
    });
    const wanted = Array.from({ length: 6 }, (_, i) => `user${i}@gmail.example`);
    const runs = wanted.map((email) => run(['import', source(email)]).exited);
    for (const { code, stderr } of await Promise.all(runs)) assert.equal(code, 0, stderr);
    assert.deepEqual(emails(), ['old@gmail.example', ...wanted]);
  }),
);

test(
  'an accounts file that is no JSON stays as it is, and each command says so in one line',
  leakless(async (_t, defer) => {
    const { file, run, source } = await setUp(defer);
    const text = '// mine\n{ "accounts": [] }';
    for (const words of [
      ['remove', 'old@gmail.example', '--yes'],
      ['import', source('new@gmail.example')],
      ['add', 'new@gmail.example', '--provider', 'sim', '--client-id', 'c'],
    ]) {
      writeFileSync(file, text);
      const { code, stderr } = await run(words).exited;
      assert.equal(code, 2, stderr);
      assert.equal(
        stderr.trim(),
        `${file}: line 1, column 1: JSON has no comments: remove it (a "comment" key is allowed in an account)`,
      );
      assert.equal(readFileSync(file, 'utf8'), text);
    }
  }),
);
