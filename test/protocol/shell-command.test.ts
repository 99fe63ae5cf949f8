/** The commands that cures name: what a shell makes of them is what was meant. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { explain } from '../../src/protocol/causes/book.ts';
import { commandFor } from '../../src/protocol/shell-command.ts';

/** The words that the program is given. */
function wordsOf(command: string): readonly string[] {
  const script = `relay() { printf '%s\\n' "$@"; }; ${command.replace('xoauth2-relay', 'relay')}`;
  return execFileSync('sh', ['-c', script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
    .trimEnd()
    .split('\n');
}

test('an address of letters and digits stands as it is', () => {
  for (const address of ['alice@example.com', 'a.b+c_d-e@x.test', 'müller@x.test', 'MAILBOX'])
    assert.equal(
      commandFor('account add', address, '--replace'),
      `xoauth2-relay account add ${address} --replace`,
    );
});

test('a shell takes any address as one word, and the program as no option', () => {
  for (const address of [
    "o'brien@x.test",
    'a&b@x.test',
    '`id`@x.test',
    '$(id)@x.test',
    '~a@x.test',
    '#a@x.test',
    '{a,b}@x.test',
    '"a b"@x.test',
  ])
    assert.deepEqual(wordsOf(commandFor('token', address)), ['token', address]);
  assert.deepEqual(wordsOf(commandFor('account add', "-o'b@x.test", '--replace', '--imap')), [
    'account',
    'add',
    '--replace',
    '--imap',
    '--',
    "-o'b@x.test",
  ]);
});

test('a cure that names an account can be typed as it stands', () => {
  const { cure } = explain({
    stage: 'token',
    said: 'invalid_grant',
    provider: 'outlook',
    host: 'smtp.office365.com',
    port: 587,
    user: "o'brien@x.test",
    account: "o'brien@x.test",
    grant: 'refresh_token',
  });
  assert.ok(cure.includes(commandFor('account invite', "o'brien@x.test")), cure);
  assert.ok(cure.includes(commandFor('account add', "o'brien@x.test", '--replace')), cure);
});
