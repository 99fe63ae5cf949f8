import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createEventHub } from '../../src/admin/event-hub.ts';
import { createLive } from '../../src/admin/live.ts';
import { createMetrics } from '../../src/admin/metrics.ts';
import { type OpenApi, openApi } from '../../src/admin/openapi.ts';
import { createRoutes, type RouteOptions, type Routes } from '../../src/admin/routes.ts';
import { createSeries } from '../../src/admin/series.ts';
import { createTransactionLog } from '../../src/admin/transaction-log.ts';
import { createTestClock } from '../support/clock.ts';
import { createFakeAdminBackend, type FakeAdminBackend, fakeRecord } from '../support/fake-admin-backend.ts';
import { schemaFaults } from '../support/schema-check.ts';
import { createTestLog } from '../tokens/support.ts';
import { SIGN_IN_CALLS } from './sign-in-calls.ts';

interface Ask {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

function createHouse(
  backend: FakeAdminBackend = createFakeAdminBackend([{ email: 'ann@example.com', tokenLifeS: 1800 }]),
  options: Partial<RouteOptions> = {},
) {
  const log = createTestLog();
  const transactions = createTransactionLog(1000);
  const series = createSeries(60);
  const metrics = createMetrics(backend, { version: '9.9.9' });
  const live = createLive({ backend, transactions, series }, { version: '9.9.9' });
  const routes: Routes = createRoutes(
    { backend, metrics, transactions, series, live, log },
    { host: '127.0.0.1', version: '9.9.9', accountsFile: '/nowhere/accounts.json', ...options },
  );
  let cuts = 0;
  const ask = async (path: string, how: Ask = {}): Promise<Response> =>
    routes.fetch(
      new Request(`http://127.0.0.1:9090${path}`, {
        method: how.method ?? 'GET',
        headers: { host: '127.0.0.1:9090', ...how.headers },
        ...(how.body === undefined ? {} : { body: how.body }),
      }),
      { cut: () => void cuts++ },
    );
  return { backend, transactions, series, metrics, live, routes, ask, cuts: () => cuts, log };
}

/** Every operation of the description with a request that exercises it and the status it should have. */
const CALLS: readonly (Ask & {
  path: string;
  template: string;
  status: number;
  before?: (b: FakeAdminBackend) => void;
})[] = [
  { template: '/healthz', path: '/healthz', status: 200 },
  { template: '/readyz', path: '/readyz', status: 200 },
  { template: '/admin/relay', path: '/admin/relay', status: 200 },
  {
    template: '/readyz',
    path: '/readyz',
    status: 503,
    before: (b) => {
      b.warmedUp = false;
    },
  },
  { template: '/metrics', path: '/metrics', status: 200 },
  { template: '/admin/openapi.json', path: '/admin/openapi.json', status: 200 },
  { template: '/admin/accounts', path: '/admin/accounts', status: 200 },
  { template: '/admin/accounts/{id}', path: '/admin/accounts/ann@example.com', status: 200 },
  { template: '/admin/accounts/{id}', path: '/admin/accounts/ANN%40Example.com', status: 200 },
  { template: '/admin/accounts/{id}', path: '/admin/accounts/nobody', status: 404 },
  {
    template: '/admin/accounts/{id}/refresh',
    method: 'POST',
    path: '/admin/accounts/ann@example.com/refresh',
    status: 200,
  },
  {
    template: '/admin/accounts/{id}/refresh',
    method: 'POST',
    path: '/admin/accounts/ann@example.com/refresh',
    status: 502,
    before: (b) => {
      b.refreshResult = { ok: false, error: 'revoked' };
    },
  },
  {
    template: '/admin/accounts/{id}/refresh',
    method: 'POST',
    path: '/admin/accounts/nobody/refresh',
    status: 404,
  },
  {
    template: '/admin/accounts/{id}/token',
    method: 'DELETE',
    path: '/admin/accounts/ann@example.com/token',
    status: 200,
  },
  {
    template: '/admin/accounts/{id}/token',
    method: 'DELETE',
    path: '/admin/accounts/nobody/token',
    status: 404,
  },
  {
    template: '/admin/accounts/{id}/retry',
    method: 'POST',
    path: '/admin/accounts/ann@example.com/retry',
    status: 200,
  },
  {
    template: '/admin/accounts/{id}/drain',
    method: 'POST',
    path: '/admin/accounts/ann@example.com/drain',
    status: 200,
  },
  {
    template: '/admin/accounts/{id}/resume',
    method: 'POST',
    path: '/admin/accounts/ann@example.com/resume',
    status: 200,
  },
  { template: '/admin/tokens', path: '/admin/tokens', status: 200 },
  { template: '/admin/breakers', path: '/admin/breakers', status: 200 },
  { template: '/admin/unclear', path: '/admin/unclear', status: 200 },
  {
    template: '/admin/unclear/{key}/delivered',
    method: 'POST',
    path: '/admin/unclear/KEY/delivered',
    status: 200,
  },
  {
    template: '/admin/unclear/{key}/again',
    method: 'POST',
    path: '/admin/unclear/nobody/again',
    status: 404,
  },
  { template: '/admin/fleet', path: '/admin/fleet', status: 200 },
  { template: '/admin/series', path: '/admin/series', status: 200 },
  {
    template: '/admin/transactions',
    path: '/admin/transactions?limit=5&account=ann@example.com&outcome=relayed',
    status: 200,
  },
  { template: '/admin/transactions', path: '/admin/transactions?limit=0', status: 400 },
  { template: '/admin/transactions', path: '/admin/transactions?outcome=lost', status: 400 },
  { template: '/admin/reload', method: 'POST', path: '/admin/reload', status: 200 },
  {
    template: '/admin/reload',
    method: 'POST',
    path: '/admin/reload',
    status: 422,
    before: (b) => {
      b.reloadResult = {
        ok: false,
        added: [],
        changed: [],
        removed: [],
        untouched: [],
        errors: [{ path: 'accounts[0]', message: 'expected an object' }],
      };
    },
  },
  {
    template: '/admin/log-level',
    method: 'POST',
    path: '/admin/log-level',
    status: 200,
    headers: { 'content-type': 'application/json' },
    body: '{"level":"debug"}',
  },
  {
    template: '/admin/log-level',
    method: 'POST',
    path: '/admin/log-level',
    status: 400,
    body: '{"level":"loud"}',
  },
  { template: '/admin/log-level', method: 'POST', path: '/admin/log-level', status: 400, body: 'not json' },
  ...SIGN_IN_CALLS,
];

const described: OpenApi = openApi('9.9.9');

describe('answers and their description', () => {
  for (const call of CALLS) {
    it(`${call.method ?? 'GET'} ${call.path} answers ${call.status} as described`, async () => {
      const house = createHouse();
      house.backend.breakerRows = [
        {
          name: 'oauth2.googleapis.com',
          kind: 'token_endpoint',
          state: 'open',
          failures: 4,
          opened_at: new Date().toISOString(),
          retry_at: null,
        },
      ];
      house.transactions.add(fakeRecord());
      house.transactions.add(fakeRecord({ outcome: 'aborted' }));
      call.before?.(house.backend);
      const answer = await house.ask(call.path, call);
      assert.equal(answer.status, call.status);
      const operation = described.paths[call.template]?.[(call.method ?? 'GET').toLowerCase()];
      const content = operation?.responses[String(call.status)]?.content ?? {};
      const [[type, { schema }] = ['', { schema: {} }]] = Object.entries(content);
      assert.ok(
        answer.headers.get('content-type')?.startsWith(type),
        answer.headers.get('content-type') ?? 'none',
      );
      const body: unknown = type === 'application/json' ? await answer.json() : await answer.text();
      assert.deepEqual(schemaFaults(body, schema, described.components.schemas), []);
    });
  }

  it('describes every route and no other', () => {
    const called = new Set(CALLS.map((c) => `${(c.method ?? 'GET').toLowerCase()} ${c.template}`));
    const all = Object.entries(described.paths).flatMap(([path, ops]) =>
      Object.keys(ops).map((m) => `${m} ${path}`),
    );
    const elsewhere = ['get /', 'get /admin/events'];
    assert.deepEqual(
      all.filter((op) => !called.has(op) && !elsewhere.includes(op)),
      [],
    );
    assert.deepEqual(
      [...called].filter((op) => !all.includes(op)),
      [],
    );
  });

  it('answers an unknown path with 404 as JSON', async () => {
    const answer = await createHouse().ask('/admin/nothing');
    assert.equal(answer.status, 404);
    assert.deepEqual(await answer.json(), { error: 'no such path' });
  });
});

describe('contract', () => {
  it('lists an account with exactly the keys other programs read', async () => {
    const { accounts } = (await (await createHouse().ask('/admin/accounts')).json()) as {
      accounts: Record<string, object>[];
    };
    const [row = {}] = accounts;
    for (const key of ['id', 'email', 'provider', 'status', 'token', 'pool', 'messages', 'last_error'])
      assert.ok(key in row, key);
    assert.deepEqual(Object.keys(row.token ?? {}), ['cached', 'expires_at', 'expires_in_s', 'age_s']);
    assert.deepEqual(Object.keys(row.pool ?? {}), ['size', 'idle', 'busy', 'max']);
    assert.deepEqual(Object.keys(row.messages ?? {}), ['relayed', 'deferred', 'rejected']);
  });

  it('has token totals at the top level, with rates', async () => {
    const tokens = (await (await createHouse().ask('/admin/tokens')).json()) as Record<string, unknown>;
    assert.equal(tokens.cache_hits, 90);
    assert.equal(tokens.cache_hit_rate, 0.9);
    assert.equal(tokens.refresh_success_rate, 0.9);
    const [row = {}] = tokens.accounts as object[];
    for (const key of [
      'id',
      'age_s',
      'expires_in_s',
      'source',
      'uses',
      'last_used_at',
      'refresh_token_obtained_at',
    ])
      assert.ok(key in row, key);
  });

  it('finds an account by id and by e-mail', async () => {
    const house = createHouse(createFakeAdminBackend([{ id: 'sales/eu', email: 'sales@example.com' }]));
    for (const name of ['sales%2Feu', 'sales@example.com', 'SALES%40EXAMPLE.COM']) {
      const answer = await house.ask(`/admin/accounts/${name}/drain`, { method: 'POST' });
      assert.equal(answer.status, 200, name);
    }
    assert.deepEqual(house.backend.actions, Array(3).fill('drain sales/eu'));
  });

  it('is not ready while no account is usable', async () => {
    const house = createHouse(createFakeAdminBackend([{ email: 'a@example.com', status: 'needs_consent' }]));
    assert.equal((await house.ask('/readyz')).status, 503);
    assert.equal((await house.ask('/healthz')).status, 200);
    house.backend.set({ email: 'a@example.com', status: 'ready' });
    assert.equal((await house.ask('/readyz')).status, 200);
  });
});

describe('event stream', () => {
  /** Reads events until `wanted` has come; the stream is cancelled then. */
  async function readUntil(
    answer: Response,
    wanted: string,
    onEvent: (name: string) => void = () => {},
  ): Promise<{ name: string; body: unknown }[]> {
    const events: { name: string; body: unknown }[] = [];
    let rest = '';
    assert.ok(answer.body);
    for await (const chunk of answer.body) {
      rest += Buffer.from(chunk).toString();
      const blocks = rest.split('\n\n');
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const [, name, json] = /^event: (.+)\ndata: (.+)$/.exec(block) ?? [];
        if (name === undefined || json === undefined) continue;
        events.push({ name, body: JSON.parse(json) });
        onEvent(name);
        if (name === wanted) return events;
      }
    }
    return events;
  }

  it('begins with a snapshot as described', async () => {
    const house = createHouse();
    house.transactions.add(fakeRecord());
    const answer = await house.ask('/admin/events');
    assert.match(answer.headers.get('content-type') ?? '', /^text\/event-stream/);
    const [first] = await readUntil(answer, 'snapshot');
    assert.deepEqual(
      schemaFaults(first?.body, { $ref: '#/components/schemas/Snapshot' }, described.components.schemas),
      [],
    );
  });

  it('tells transactions, changed and removed accounts, breakers and reloads', async () => {
    const house = createHouse();
    const answer = await house.ask('/admin/events');
    house.live.transaction(fakeRecord({ outcome: 'deferred' }));
    house.backend.set({ email: 'ann@example.com', status: 'needs_consent', reason: 'revoked' });
    house.backend.set({ email: 'new@example.com' });
    house.backend.breakerRows = [
      { name: 'x', kind: 'upstream', state: 'open', failures: 1, opened_at: null, retry_at: null },
    ];
    house.live.reloaded(house.backend.reloadResult);
    const events = await readUntil(answer, 'breakers');
    assert.deepEqual(
      events.map((e) => e.name),
      ['snapshot', 'transaction', 'reload', 'account', 'account', 'breakers'],
    );
    const next = await house.ask('/admin/events');
    const removed = await readUntil(next, 'account_removed', (name) => {
      if (name !== 'snapshot') return;
      house.backend.remove('new@example.com');
      house.live.lookSoon();
    });
    assert.deepEqual(removed.at(-1)?.body, { id: 'new@example.com' });
  });

  it('stops looking at the relay when the last listener has gone', async () => {
    let looks = 0;
    const backend = createFakeAdminBackend([{ email: 'ann@example.com' }]);
    const { rows } = backend;
    backend.rows = () => {
      looks++;
      return rows();
    };
    const house = createHouse(backend);
    const answer = await house.ask('/admin/events');
    await readUntil(answer, 'snapshot');
    const before = looks;
    house.live.lookSoon();
    house.live.transaction(fakeRecord());
    assert.equal(looks, before);
  });

  it('sends a snapshot of thousands of accounts as fast as it is read, events after it', async () => {
    const house = createHouse(
      createFakeAdminBackend(
        Array.from({ length: 12_000 }, (_, i) => ({ email: `user${i}@example.com`, tokenLifeS: 100 })),
      ),
    );
    const answer = await house.ask('/admin/events');
    house.live.reloaded(house.backend.reloadResult);
    let text = '';
    assert.ok(answer.body);
    for await (const chunk of answer.body) {
      text += Buffer.from(chunk).toString();
      if (text.includes('\n\nevent: reload\n', text.length - 1_000_000)) break;
    }
    const [, snapshot = ''] = /event: snapshot\n((?:data: .*\n)+)\n/.exec(text) ?? [];
    const lines = snapshot.split('\n').map((line) => line.slice('data: '.length));
    assert.ok(lines.length > 50, 'in pieces');
    assert.equal((JSON.parse(lines.join('\n')) as { accounts: object[] }).accounts.length, 12_000);
  });

  it('with all places taken the oldest makes room once it has had its time', async () => {
    const clock = createTestClock();
    const { ask, routes } = createHouse(undefined, { clock });
    const open: Response[] = [];
    while (open.length < 60) {
      const answer = await ask('/admin/events');
      if (answer.status !== 200) break;
      open.push(answer);
    }
    assert.ok(open.length > 1 && open.length < 60, `${open.length} at once`);
    assert.equal((await ask('/admin/events')).status, 503, 'nobody has had his time');
    clock.advance(10 * 60_000);
    const newest = await ask('/admin/events');
    assert.equal(newest.status, 200);
    const [oldest, second] = open as [Response, Response];
    assert.deepEqual(
      (await readUntil(oldest, 'never')).map((e) => e.name),
      ['snapshot'],
      'it was ended',
    );
    assert.equal((await readUntil(second, 'snapshot')).length, 1);
    assert.equal((await readUntil(newest, 'snapshot')).length, 1);
    routes.close();
  });

  it('a HEAD takes no place and ends nobody', async () => {
    const clock = createTestClock();
    const { ask, routes } = createHouse(undefined, { clock });
    const open: Response[] = [];
    for (let answer = await ask('/admin/events'); answer.status === 200; answer = await ask('/admin/events'))
      open.push(answer);
    clock.advance(10 * 60_000);
    for (let i = 0; i < 100; i++) {
      const answer = await ask('/admin/events', { method: 'HEAD' });
      assert.deepEqual([answer.status, answer.body], [200, null]);
      assert.match(answer.headers.get('content-type') ?? '', /^text\/event-stream/);
    }
    const [oldest] = open as [Response];
    assert.equal((await readUntil(oldest, 'snapshot')).length, 1, 'it is open');
    assert.equal((await ask('/admin/events')).status, 200, 'a place is free');
    routes.close();
    for (const path of ['/metrics', '/admin/accounts', '/']) {
      const answer = await ask(path, { method: 'HEAD' });
      assert.deepEqual([answer.status, answer.body], [200, null], path);
    }
  });

  it('ends streams on close', async () => {
    const house = createHouse();
    const answer = await house.ask('/admin/events');
    const events = await readUntil(answer, 'never', () => house.routes.close());
    assert.deepEqual(
      events.map((e) => e.name),
      ['snapshot'],
    );
  });

  it('ends a stream whose reader does not read', async () => {
    const house = createHouse();
    const answer = await house.ask('/admin/events');
    const untouched = ['x'.repeat(100_000)];
    for (let i = 0; i < 80; i++) house.live.reloaded({ ...house.backend.reloadResult, untouched });
    const events = await readUntil(answer, 'never');
    assert.ok(events.length < 80, `${events.length} events were kept`);
    assert.equal(house.cuts(), 1, 'what waits for the reader goes with its connection');
  });
});

describe('a long answer that fails', () => {
  /** Its rows end with a fault after `good` of them. */
  const faulty = (good: number) => {
    const emails = Array.from({ length: good + 1 }, (_, i) => ({ email: `user${i}@example.com` }));
    const backend = createFakeAdminBackend(emails);
    const { rows } = backend;
    backend.rows = function* () {
      let count = 0;
      for (const row of rows.call(backend)) {
        if (count++ === good) throw new Error('a fault with words of its own');
        yield row;
      }
    };
    return createHouse(backend);
  };
  const failures = ({ log }: ReturnType<typeof createHouse>) =>
    log.lines.map(({ fields }) => fields).filter(({ event }) => event === 'admin_failed');
  const failure = (path: string) => ({
    event: 'admin_failed',
    method: 'GET',
    path,
    error: 'a fault with words of its own',
  });

  it('at its beginning is 500, in our words, and logged', async () => {
    const house = faulty(0);
    const answer = await house.ask('/admin/accounts');
    assert.equal(answer.status, 500);
    assert.deepEqual(await answer.json(), { error: 'internal error' });
    assert.deepEqual(failures(house), [failure('/admin/accounts')]);
    assert.equal(house.cuts(), 0);
  });

  it('later on ends the connection, so that nobody takes it for whole, and is logged', async () => {
    for (const path of ['/admin/accounts', '/metrics']) {
      const house = faulty(3_000);
      const answer = await house.ask(path);
      assert.equal(answer.status, 200);
      assert.doesNotMatch(await answer.text(), /words of its own/);
      assert.equal(house.cuts(), 1);
      assert.deepEqual(failures(house), [failure(path)]);
    }
  });
});

describe('event hub', () => {
  it('says how many listen, and once per unsubscribe', () => {
    const counts: number[] = [];
    const hub = createEventHub((n) => counts.push(n));
    const listener = (): void => {};
    const one = hub.subscribe(listener);
    const two = hub.subscribe(listener);
    one();
    one();
    two();
    assert.deepEqual(counts, [1, 2, 1, 0]);
  });
});
