/** Secrets printed by programs, handed by systemd, and times from the environment. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import { formatPlaceIn } from '../../src/accounts/schema.ts';

const parse = (entry: object, env: Record<string, string> = {}, directory = tmpdir()) =>
  parseAccounts(
    JSON.stringify([
      { email: 'a@x.example', provider: 'gmail', client_id: 'c', refresh_token: 'r', ...entry },
    ]),
    { env: { PATH: process.env.PATH ?? '', ...env }, directory },
  );
const credentialOf = async (...args: Parameters<typeof parse>) => {
  const { accounts, problems } = await parse(...args);
  assert.deepEqual(problems, []);
  const credential = accounts[0]?.credential;
  assert.ok(credential?.grant === 'refresh_token');
  return credential;
};
const wrong = async (...args: Parameters<typeof parse>): Promise<string> => {
  const { problems } = await parse(...args);
  return problems.map((problem) => `${formatPlaceIn(problem)} ${problem.message}`).join();
};
const program = (code: string) => ({ command: [process.execPath, '-e', code] });

test('a secret is what a program prints, without its last line break', async () => {
  const { refreshToken, clientSecret } = await credentialOf(
    {
      refresh_token: program('console.log("from " + process.env.WHO)'),
      client_secret: program('process.stdout.write("two\\nlines\\n")'),
    },
    { WHO: 'the vault' },
  );
  assert.equal(refreshToken.reveal(), 'from the vault');
  assert.equal(clientSecret?.reveal(), 'two\nlines');
});

test('what is wrong with a program is said without a word of its output', async () => {
  for (const [code, words] of [
    ['console.log("s3cret"); process.exit(3)', /refresh_token the command .* failed \(exit code 3\)/],
    ['console.error("s3cret")', /printed nothing/],
    ['console.log("s3cret".repeat(20000))', /prints too much/],
  ] as const) {
    const text = await wrong({ refresh_token: program(code) });
    assert.match(text, words);
    assert.doesNotMatch(text, /s3cret/);
  }
  assert.match(
    await wrong({ refresh_token: { command: ['/nowhere/vault'] } }),
    /cannot run \/nowhere\/vault: no such file/,
  );
  assert.match(await wrong({ refresh_token: { command: [] } }), /refresh_token/);
});

test('a program that cannot be run concerns its own account only', async () => {
  const entry = { provider: 'gmail', client_id: 'c', refresh_token: 'r' };
  for (const command of [['/nowhere/vault'], [''], ['/bin/cat', 'a\0b']]) {
    const text = JSON.stringify([
      { ...entry, email: 'a@x.example', refresh_token: { command } },
      { ...entry, email: 'b@x.example' },
    ]);
    const { accounts, unusable } = await parseAccounts(text, { env: {}, directory: tmpdir() });
    assert.deepEqual(
      [accounts.map((a) => a.account.id), unusable.map((u) => u.account.id)],
      [['b@x.example'], ['a@x.example']],
    );
  }
});

test('a systemd credential is read from its directory', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'credentials-'));
  t.after(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, 'gmail-token'), 'from systemd\n');
  const env = { CREDENTIALS_DIRECTORY: directory };
  const credential = await credentialOf({ refresh_token: { credential: 'gmail-token' } }, env);
  assert.equal(credential.refreshToken.reveal(), 'from systemd');
  assert.match(await wrong({ refresh_token: { credential: 'other' } }, env), /no such file/);
  assert.match(await wrong({ refresh_token: { credential: 'gmail-token' } }), /LoadCredential=gmail-token/);
  assert.match(await wrong({ refresh_token: { credential: '../x' } }, env), /refresh_token/);
});

test('the end of a token that is brought along can stand in the environment', async () => {
  const at = Date.parse('2030-01-31T12:00:00Z');
  for (const text of ['2030-01-31T12:00:00Z', String(at / 1000), String(at)]) {
    const entry = { access_token: 't', expires_at: { env: 'ENDS' } };
    assert.equal((await credentialOf(entry, { ENDS: text })).initial?.expiresAt, at, text);
  }
  assert.match(
    await wrong({ access_token: 't', expires_at: { env: 'ENDS' } }),
    /expires_at .*ENDS is not set/,
  );
  assert.match(
    await wrong({ access_token: 't', expires_at: { env: 'ENDS' } }, { ENDS: 'soon' }),
    /expires_at expected a time/,
  );
});
