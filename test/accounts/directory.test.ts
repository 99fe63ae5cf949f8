import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Account } from '../../src/accounts/account.ts';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import { createAccountDirectory, maySendAs } from '../../src/accounts/directory.ts';

const entry = (email: string, more: object = {}): object => ({
  email,
  provider: 'gmail',
  client_id: 'c',
  client_secret: 's',
  refresh_token: 'r',
  ...more,
});
const file = await parseAccounts(
  JSON.stringify([
    entry('catch@example.com', { senders: ['*@Example.com', 'News@Other.org'] }),
    entry('Ann@Example.com', { account_id: 'Sales', user: 'primary@example.com' }),
  ]),
  { env: {}, directory: '/' },
);
assert.deepEqual(file.problems, []);
const directory = createAccountDirectory(file.accounts.map((a) => a.account));
const sender = (address: string): string | undefined => directory.candidates(address)[0]?.account.email;

for (const [address, owner] of [
  ['ann@example.com', 'Ann@Example.com'],
  ['ANN@EXAMPLE.COM', 'Ann@Example.com'],
  ['anybody@example.com', 'catch@example.com'],
  ['ANYBODY@eXample.com', 'catch@example.com'],
  ['news@other.org', 'catch@example.com'],
  ['other@other.org', undefined],
  ['anybody@sub.example.com', undefined],
  ['x@evil.org@example.com', 'catch@example.com'],
  ['example.com', undefined],
  ['*@example.com', 'catch@example.com'],
  ['', undefined],
] as const) {
  test(`${address || 'the null sender'} belongs to ${owner ?? 'nobody'}`, () => {
    assert.equal(sender(address)?.toLowerCase(), owner?.toLowerCase());
  });
}

test('an account is found by id, e-mail and XOAUTH2 user, whatever the case', () => {
  for (const name of ['sales', 'SALES', 'ann@example.com', 'Primary@Example.com'])
    assert.equal(directory.byUser(name)?.id, 'Sales');
  assert.equal(directory.byId('ANN@example.com')?.id, 'Sales');
  assert.equal(directory.byId('nobody'), undefined);
});

test('after AUTH only the own senders may be used', () => {
  const ann = directory.byUser('sales');
  const all = directory.byUser('catch@example.com');
  assert.ok(ann && all);
  assert.deepEqual(
    ['ann@example.com', 'other@example.com'].map((a) => maySendAs(ann, a)),
    [true, false],
  );
  assert.deepEqual(
    ['ann@example.com', 'x@other.org', 'NEWS@other.org'].map((a) => maySendAs(all, a)),
    [true, false, true],
  );
});

const group = await parseAccounts(
  JSON.stringify([
    entry('all@a.test', { senders: ['*', '<>'], deny: ['*@spam.test', 'root@host'] }),
    entry('second@a.test', { senders: ['*@team.test', 'news@team.test'], preference: 20 }),
    entry('first@a.test', { senders: ['*@team.test'], preference: 5 }),
    entry('news@team.test'),
    entry('sub@a.test', { senders: ['*@*.test', 'shop+*@team.test'] }),
  ]),
  { env: {}, directory: '/' },
);
const choices = createAccountDirectory(group.accounts.map((a) => a.account));

for (const [address, expected] of [
  ['news@team.test', ['news@team.test', 'second@a.test', 'first@a.test', 'sub@a.test', 'all@a.test']],
  ['other@team.test', ['first@a.test', 'second@a.test', 'sub@a.test', 'all@a.test']],
  ['shop+1@team.test', ['sub@a.test', 'first@a.test', 'second@a.test', 'all@a.test']],
  ['x@deep.team.test', ['sub@a.test', 'all@a.test']],
  ['x@elsewhere.org', ['all@a.test']],
  ['x@spam.test', ['sub@a.test']],
  ['root@host', []],
  ['', ['all@a.test']],
] as const) {
  test(`${address || 'the null sender'} may be sent by ${expected.join(', ') || 'nobody'}`, () => {
    assert.deepEqual(
      choices.candidates(address).map(({ account }) => account.email),
      expected,
    );
  });
}

test('letters outside ASCII pass a deny only where they are named, and always where nothing is denied', () => {
  const some = choices.accounts[0];
  const ends = (account: object) => createAccountDirectory([{ ...(some as Account), ...account }]);
  const named = ends({ senders: ['*', 'm\u00fcller@host', '*@xn--bcher-kva.test'], deny: ['root@host'] });
  const allowed = (d: typeof named, sender: string) => d.candidates(sender).length > 0;
  for (const sender of ['m\u00fcller@host', 'x@b\u00fccher.test', 'x@xn--bcher-kva.test', 'y@host'])
    assert.ok(allowed(named, sender), sender);
  for (const sender of ['m\u00fcler@host', 'r\u03bfot@host', 'x@\u0430.test', '\u017froot@b\u00fccher.test'])
    assert.ok(!allowed(named, sender), sender);
  const open = ends({ senders: ['*'], deny: [] });
  for (const sender of ['m\u00fcller@host', 'x@b\u00fccher.test', 'x@xn--pam-lmd.test'])
    assert.ok(allowed(open, sender), sender);
  assert.ok(!allowed(open, 'x@\uff48ost'), 'a domain that is no spelling of its own');
});

test('a sender that is refused by name is told apart from one nobody has', () => {
  assert.equal(choices.deniedBy('root@host')?.email, 'all@a.test');
  assert.equal(choices.deniedBy('x@elsewhere.org'), undefined);
});
