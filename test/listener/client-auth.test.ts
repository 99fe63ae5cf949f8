import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Account } from '../../src/accounts/account.ts';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { hashPassword, verifyPassword } from '../../src/accounts/scrypt.ts';
import type { Clock } from '../../src/clock.ts';
import { type AuthVerdict, createClientAuth } from '../../src/listener/client-auth.ts';
import type { Origin } from '../../src/listener/door.ts';
import { createTestClock } from '../support/clock.ts';
import { account } from './stage.ts';

const QUICK = { n: 1024, r: 8, p: 1 };
const COSTLY = { n: 131_072, r: 8, p: 1 };
const from = (remoteAddress: string, more: Partial<Origin> = {}): Origin => ({
  remoteAddress,
  isLocal: false,
  isTrusted: false,
  mayAuthInClear: false,
  ...more,
});
const REMOTE = from('192.0.2.7');
/** A program of this machine on a listener that needs passwords. */
const HERE = from('127.0.0.1', { isLocal: true });
let withPassword: Account;
let costly: Account;

// The clock's timers keep no process alive, and there is no socket here that would.
const alive = setInterval(() => {}, 60_000);
after(() => clearInterval(alive));

before(async () => {
  withPassword = account('a@x.test', {
    id: 'first',
    user: 'shared@x.test',
    clientPassword: { hash: await hashPassword('right', QUICK) },
  });
  costly = account('costly@x.test', { clientPassword: { hash: await hashPassword('right', COSTLY) } });
});

interface Options {
  readonly refusalMs?: number;
  readonly clock?: Clock;
  readonly accounts?: readonly Account[];
  readonly needsPassword?: boolean;
  readonly serves?: (account: Account) => boolean;
  readonly verify?: typeof verifyPassword;
}

function auth({ refusalMs = 0, needsPassword, accounts, ...deps }: Options = {}) {
  const directory = createAccountDirectory(accounts ?? [withPassword, account('open@x.test')]);
  return createClientAuth(
    { directory: () => directory, ...deps },
    { refusalMs, ...(needsPassword === undefined ? {} : { needsPassword }) },
  );
}

/** A clock that stands still unless told. */
const still = () => createTestClock();
const said = (v: AuthVerdict): string => ('account' in v ? 'in' : `${v.refusal.code} ${v.failure}`);

test('knows an account by its password, by every name, more than once', async () => {
  const a = auth();
  for (const user of ['a@x.test', 'A@X.TEST', 'first', 'shared@x.test', 'a@x.test']) {
    const result = await a.check(user, 'right', REMOTE);
    assert.ok('account' in result && result.account === withPassword, user);
  }
  assert.equal(said(await a.check('\u212aelvin', 'right', REMOTE)), '535 unknown user');
});

test('a user that only looks like one is unknown', async () => {
  const mike = account('mike@x.test', { clientPassword: withPassword.clientPassword });
  for (const user of ['mi\u212ae@x.test', 'm\u0131ke@x.test', 'mike@\uff58.test', '\uff4dike@x.test']) {
    assert.equal(
      said(await auth({ accounts: [mike] }).check(user, 'right', REMOTE)),
      '535 unknown user',
      user,
    );
  }
});

test('refuses with one reply and tells the log why', async () => {
  const a = auth({
    serves: ({ id }) => id !== 'elsewhere@x.test',
    accounts: [
      withPassword,
      account('open@x.test'),
      account('elsewhere@x.test', { clientPassword: withPassword.clientPassword }),
    ],
  });
  for (const [user, password, why] of [
    ['a@x.test', 'wrong', 'wrong password'],
    ['a@x.test', '', 'wrong password'],
    ['nobody@x.test', 'right', 'unknown user'],
    ['open@x.test', '', 'account has no password and this listener needs one'],
    ['elsewhere@x.test', 'right', 'account may not be used on this listener'],
    ['', '', 'unknown user'],
    ['__proto__', 'x', 'unknown user'],
  ] as const) {
    // Local, so that each name is counted for itself and no lock-out falls in.
    const result = await a.check(user, password, HERE);
    assert.ok('refusal' in result);
    assert.equal(result.failure, why, user);
    assert.deepEqual(result.refusal, {
      code: 535,
      enhanced: '5.7.8',
      text: 'Authentication credentials invalid',
    });
  }
});

test('a trusted client may send a dummy for an account without a password, and only for such a one', async () => {
  for (const where of [
    from('127.0.0.1', { isLocal: true, isTrusted: true }),
    from('10.1.2.3', { isTrusted: true }),
  ]) {
    const a = auth();
    assert.equal(said(await a.check('open@x.test', 'x', where)), 'in');
    assert.equal(said(await a.check('a@x.test', 'x', where)), '535 wrong password');
    assert.equal(said(await a.check('a@x.test', 'right', where)), 'in');
    assert.equal(said(await a.check('nobody', 'x', where)), '535 unknown user');
    const strict = auth({ needsPassword: true });
    assert.equal(
      said(await strict.check('open@x.test', 'x', where)),
      '535 account has no password and this listener needs one',
    );
  }
});

/** Virtual ms until this is answered. */
async function answeredAfter(
  clock: ReturnType<typeof still>,
  check: () => Promise<unknown>,
): Promise<number> {
  const startedAt = clock.monotonic();
  let isDone = false;
  const done = check().then(() => {
    isDone = true;
  });
  while (!isDone) {
    await new Promise((resolve) => setImmediate(resolve));
    if (clock.pending() > 0) clock.advance(1);
  }
  await done;
  return clock.monotonic() - startedAt;
}

test('a refusal comes no sooner than its time, whatever the reason', async () => {
  const clock = still();
  const a = auth({ clock, refusalMs: 120 });
  for (const user of ['a@x.test', 'nobody', 'open@x.test'])
    assert.equal(await answeredAfter(clock, () => a.check(user, 'wrong', HERE)), 120, user);
});

test('an account with a costly hash is refused after the time an unknown user is', async () => {
  const clock = still();
  /** What a comparison would take, in virtual time. */
  const verify: typeof verifyPassword = async (hash, password) => {
    clock.advance(hash === costly.clientPassword?.hash ? 1_000 : 50);
    return verifyPassword(hash, password);
  };
  const times: number[] = [];
  for (const user of ['costly@x.test', 'a@x.test', 'nobody', 'open@x.test', 'a@x.test', 'costly@x.test']) {
    const a = auth({
      clock,
      verify,
      refusalMs: 300,
      accounts: [withPassword, costly, account('open@x.test')],
    });
    // The measurement of the costliest comes with the first refusal.
    await answeredAfter(clock, () => a.check('warm-up', 'wrong', HERE));
    times.push(await answeredAfter(clock, () => a.check(user, 'wrong', HERE)));
  }
  assert.ok(Math.max(...times) - Math.min(...times) <= 1, times.join(', '));
});

test('delays grow with every wrong password; a right one does not clear what an address did', async () => {
  const clock = still();
  const a = auth({ clock });
  const attempt = async (password: string, where = REMOTE): Promise<string> =>
    said(await a.check('a@x.test', password, where))
      .split(' ')
      .slice(0, 2)
      .join(' ');
  for (let i = 0; i < 4; i++) assert.equal(await attempt('wrong'), '535 wrong');
  assert.equal(await attempt('right'), '454 locked');
  clock.advance(1_000);
  assert.equal(await attempt('wrong'), '535 wrong');
  clock.advance(1_999);
  assert.equal(await attempt('right'), '454 locked');
  clock.advance(1);
  assert.equal(await attempt('right'), 'in');
  assert.equal(await attempt('wrong'), '535 wrong');
  assert.equal(await attempt('right'), '454 locked');
  // A program of this machine has its account's row, and that is forgiven.
  for (let i = 0; i < 3; i++) assert.equal(await attempt('wrong', HERE), '535 wrong');
  assert.equal(await attempt('right', HERE), 'in');
  for (let i = 0; i < 4; i++) assert.equal(await attempt('wrong', HERE), '535 wrong');
  assert.equal(await attempt('right', HERE), '454 locked');
});

test('a login to an own account buys no guesses at another', async () => {
  const own = account('own@x.test', { clientPassword: withPassword.clientPassword });
  const a = auth({ clock: still(), accounts: [withPassword, own] });
  let guesses = 0;
  for (let i = 0; i < 30; i++) {
    if (said(await a.check('a@x.test', `guess ${i}`, REMOTE)).startsWith('535')) guesses += 1;
    await a.check('own@x.test', 'right', REMOTE);
  }
  assert.equal(guesses, 4);
});

test('an id and a user name of one account share what was guessed at it', async () => {
  const a = auth({ clock: still() });
  let guesses = 0;
  for (let i = 0; i < 12; i++) {
    const user = ['a@x.test', 'first', 'shared@x.test', 'FIRST'][i % 4] ?? '';
    if (said(await a.check(user, `guess ${i}`, HERE)).startsWith('535')) guesses += 1;
  }
  assert.equal(guesses, 4);
});

for (const [what, where] of [
  ['an address', REMOTE],
  ['this machine', HERE],
] as const) {
  test(`a hundred guesses at once from ${what} are as good as four`, async () => {
    let checked = 0;
    const verify: typeof verifyPassword = (hash, password) => {
      if (password.startsWith('guess')) checked += 1;
      return verifyPassword(hash, password);
    };
    const a = auth({ clock: still(), verify });
    const results = await Promise.all(
      Array.from({ length: 100 }, (_, i) => a.check('a@x.test', `guess ${i}`, where)),
    );
    assert.equal(checked, 4);
    assert.equal(results.filter((r) => 'refusal' in r && r.refusal.code === 454).length, 96);
  });
}

test('one address that guesses does not lock out another', async () => {
  const a = auth({ clock: still() });
  for (let i = 0; i < 5; i++) await a.check('a@x.test', 'wrong', REMOTE);
  assert.equal(said(await a.check('a@x.test', 'right', from('192.0.2.8'))), 'in');
  assert.match(said(await a.check('b@x.test', 'right', REMOTE)), /^454 locked/);
});

test('on this host one program that guesses does not lock out the others', async () => {
  const a = auth({ clock: still() });
  for (let i = 0; i < 6; i++) await a.check('printer', 'wrong', HERE);
  assert.equal(said(await a.check('a@x.test', 'right', HERE)), 'in');
});

test('many right logins at once all get in', async () => {
  const b = account('b@x.test', { clientPassword: withPassword.clientPassword });
  const a = auth({ accounts: [withPassword, b] });
  const results = await Promise.all(
    Array.from({ length: 40 }, (_, i) => a.check(i % 2 === 0 ? 'a@x.test' : 'b@x.test', 'right', REMOTE)),
  );
  assert.equal(results.filter((r) => 'account' in r).length, 40);
});

test('a changed hash forgets what was remembered', async () => {
  const accounts = [withPassword];
  const a = createClientAuth({ directory: () => createAccountDirectory(accounts) }, { refusalMs: 0 });
  assert.ok('account' in (await a.check('a@x.test', 'right', REMOTE)));
  accounts[0] = account('a@x.test', { clientPassword: { hash: await hashPassword('newer', QUICK) } });
  assert.ok('refusal' in (await a.check('a@x.test', 'right', REMOTE)));
});

test('a password compared with a mistaken entry is no wrong password when the entry is mended meanwhile', async () => {
  const mended = createAccountDirectory([withPassword]);
  const broken = createAccountDirectory(
    [{ ...withPassword, clientPassword: { hash: costly.clientPassword?.hash ?? '' } }],
    {
      problems: new Map([['first', 'unknown key']]),
      isComplete: true,
      hidesSenders: false,
    },
  );
  let directory = broken;
  const a = createClientAuth(
    {
      directory: () => directory,
      verify: async () => {
        directory = mended;
        return false;
      },
    },
    { refusalMs: 0 },
  );
  assert.equal(said(await a.check('first', 'right', REMOTE)), '454 the accounts file has a mistake');
});
