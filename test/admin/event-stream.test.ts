/** Readers of the event stream that do not read, and those beside them. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { openEventStream } from '../../src/admin/event-stream.ts';
import { createLive } from '../../src/admin/live.ts';
import { createSeries } from '../../src/admin/series.ts';
import { createTransactionLog } from '../../src/admin/transaction-log.ts';
import { createFakeAdminBackend } from '../support/fake-admin-backend.ts';

function setUp(t: TestContext, accounts: number) {
  t.mock.timers.enable({ apis: ['setInterval', 'setTimeout'] });
  const backend = createFakeAdminBackend(
    Array.from({ length: accounts }, (_, i) => ({ email: `a${i}@example.com` })),
  );
  const live = createLive(
    { backend, transactions: createTransactionLog(10), series: createSeries(60) },
    { version: '9.9.9' },
  );
  t.after(() => live.close());
  return { backend, live };
}

test('an account that is new is told to who listens, though another never reads his snapshot to its end', (t) => {
  const { backend, live } = setUp(t, 3);
  const heard: string[] = [];
  t.after(live.hub.subscribe(({ name, json }) => heard.push(`${name} ${JSON.parse(json).id ?? ''}`)));
  for (const _ of live.snapshot()) {
  }
  const stuck = live.snapshot()[Symbol.iterator]();
  stuck.next();
  stuck.next();
  backend.set({ email: 'new@example.com' });
  live.changed('new@example.com');
  t.mock.timers.tick(1_000);
  assert(heard.includes('account new@example.com'), heard.join('\n'));
});

test('who takes nothing of what waits for him for a minute is cut off; who takes a little is not', async (t) => {
  const { live } = setUp(t, 2_000);
  const cut: string[] = [];
  const open = (who: string) => openEventStream(live, { onClose: () => undefined, cut: () => cut.push(who) });
  const still = open('still');
  const slow = open('slow').body.getReader();
  t.after(() => slow.cancel());
  t.after(() => still.end());
  for (let i = 0; i < 6; i++) {
    await slow.read();
    t.mock.timers.tick(15_000);
  }
  assert.deepEqual(cut, ['still']);
});

test('thousands of accounts that changed at once are told of in slices', async (t) => {
  const { backend, live } = setUp(t, 20);
  const told: string[] = [];
  t.after(live.hub.subscribe(({ name }) => name === 'account' && told.push(name)));
  const { row } = backend;
  t.mock.method(backend, 'rows', () => []);
  t.mock.method(backend, 'row', (id: string) => {
    const until = performance.now() + 1;
    while (performance.now() < until);
    return row(id);
  });
  for (let i = 0; i < 20; i++) live.changed(`a${i}@example.com`);
  t.mock.timers.tick(1_000);
  const atOnce = told.length;
  while (told.length < 20) await new Promise((turn) => setImmediate(turn));
  assert(atOnce < 5, `${atOnce} of 20 in one turn`);
});

test('that a token is a second older is no news', async (t) => {
  const { backend, live } = setUp(t, 0);
  backend.set({ email: 'ann@example.com', tokenLifeS: 3_600 });
  const told: unknown[] = [];
  t.after(live.hub.subscribe(({ name, json }) => name === 'account' && told.push(JSON.parse(json))));
  const [row] = [...backend.rows()];
  assert(row);
  let age = 0;
  const older = <T extends object>(token: T): T => ({ ...token, expires_in_s: 3_600 - age, age_s: age });
  t.mock.method(backend, 'rows', () => [
    { ...row, token: older(row.token), tokens: [{ resource: 'smtp', status: 'ready', ...older(row.token) }] },
  ]);
  for (; age < 3; age++) {
    t.mock.timers.tick(10_000);
    for (let turn = 0; turn < 10; turn++) await new Promise((resume) => setImmediate(resume));
  }
  assert.equal(told.length, 1);
});
