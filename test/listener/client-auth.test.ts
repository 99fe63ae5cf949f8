import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { Account } from '../../src/accounts/account.ts';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { hashPassword } from '../../src/accounts/scrypt.ts';
import { createClientAuth } from '../../src/listener/client-auth.ts';
import { account } from './stage.ts';

const QUICK = { n: 1024, r: 8, p: 1 };
const REMOTE = '192.0.2.7';
let withPassword: Account;

before(async () => {
  withPassword = account('a@x.test', { clientPassword: { hash: await hashPassword('right', QUICK) } });
});

function auth(options: { refusalMs?: number; now?: () => number } = {}) {
  const directory = createAccountDirectory([withPassword, account('open@x.test')]);
  return createClientAuth(
    { directory: () => directory, ...(options.now === undefined ? {} : { now: options.now }) },
    { refusalMs: options.refusalMs ?? 0 },
  );
}

test('knows an account by its password, by every name, more than once', async () => {
  const a = auth();
  for (const user of ['a@x.test', 'A@X.TEST', 'a@x.test']) {
    const result = await a.check(user, 'right', REMOTE);
    assert.ok('account' in result && result.account === withPassword);
  }
});

test('refuses unknown users, open accounts and wrong passwords with one reply', async () => {
  const a = auth();
  const refusals = [];
  for (const [user, password] of [
    ['a@x.test', 'wrong'],
    ['a@x.test', ''],
    ['nobody@x.test', 'right'],
    ['open@x.test', ''],
    ['', ''],
    ['__proto__', 'x'],
  ] as const) {
    // Local, so that each name is counted for itself and no lock-out falls in.
    const result = await a.check(user, password, '127.0.0.1');
    assert.ok('refusal' in result);
    refusals.push(result.refusal);
  }
  assert.deepEqual(
    new Set(refusals.map((r) => `${r.code} ${r.enhanced} ${r.text}`)),
    new Set(['535 5.7.8 Authentication credentials invalid']),
  );
});

test('a refusal comes no sooner than its time, whatever the reason', async () => {
  const a = auth({ refusalMs: 120 });
  const times = await Promise.all(
    (
      [
        ['a@x.test', 'wrong'],
        ['nobody', 'wrong'],
        ['open@x.test', 'wrong'],
      ] as const
    ).map(async ([user, password]) => {
      const started = performance.now();
      await a.check(user, password, '127.0.0.1');
      return performance.now() - started;
    }),
  );
  // Timers round down by up to a millisecond.
  for (const t of times) assert.ok(t >= 119, `${t}`);
});

test('delays grow with every wrong password and end with a right one', async () => {
  let now = 1_000_000;
  const a = auth({ now: () => now });
  const attempt = async (password: string): Promise<string> => {
    const result = await a.check('a@x.test', password, REMOTE);
    return 'account' in result ? 'in' : `${result.refusal.code}${result.locked ? ' locked' : ''}`;
  };
  for (let i = 0; i < 3; i++) assert.equal(await attempt('wrong'), '535');
  assert.equal(await attempt('wrong'), '535');
  assert.equal(await attempt('right'), '454 locked');
  now += 1_000;
  assert.equal(await attempt('wrong'), '535');
  now += 1_999;
  assert.equal(await attempt('right'), '454 locked');
  now += 1;
  assert.equal(await attempt('right'), 'in');
  assert.equal(await attempt('wrong'), '535');
  assert.equal(await attempt('right'), 'in');
});

test('one address that guesses does not lock out another', async () => {
  const a = auth({ now: () => 0 });
  for (let i = 0; i < 5; i++) await a.check('a@x.test', 'wrong', REMOTE);
  assert.ok('account' in (await a.check('a@x.test', 'right', '192.0.2.8')));
  const locked = await a.check('b@x.test', 'right', REMOTE);
  assert.ok('refusal' in locked && locked.locked);
});

test('on this host one program that guesses does not lock out the others', async () => {
  const a = auth({ now: () => 0 });
  for (let i = 0; i < 6; i++) await a.check('printer', 'wrong', '127.0.0.1');
  assert.ok('account' in (await a.check('a@x.test', 'right', '127.0.0.1')));
});

test('many checks at once all get their answer', async () => {
  const a = auth();
  const results = await Promise.all(Array.from({ length: 40 }, () => a.check('a@x.test', 'right', REMOTE)));
  assert.equal(results.filter((r) => 'account' in r).length, 40);
});

test('a changed hash forgets what was remembered', async () => {
  const accounts = [withPassword];
  const a = createClientAuth({ directory: () => createAccountDirectory(accounts) }, { refusalMs: 0 });
  assert.ok('account' in (await a.check('a@x.test', 'right', REMOTE)));
  accounts[0] = account('a@x.test', { clientPassword: { hash: await hashPassword('newer', QUICK) } });
  assert.ok('refusal' in (await a.check('a@x.test', 'right', REMOTE)));
});
