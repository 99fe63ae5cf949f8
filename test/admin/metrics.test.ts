import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createMetrics, type Metrics } from '../../src/admin/metrics.ts';
import { createFakeAdminBackend, fakeRecord } from '../support/fake-admin-backend.ts';

const BUILD = { version: '1' };

async function textOf(metrics: Metrics): Promise<string> {
  let text = '';
  for await (const chunk of metrics.render()) text += chunk;
  return text;
}

/** The value of one series of an exposition. */
function sampleOf(text: string, series: string): number | undefined {
  const line = text.split('\n').find((l) => l.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

describe('metrics', () => {
  it('counts transactions by account, outcome and reply class', async () => {
    const metrics = createMetrics(createFakeAdminBackend(), BUILD);
    metrics.recordTransaction(fakeRecord({ account: 'a' }));
    metrics.recordTransaction(fakeRecord({ account: 'a' }));
    metrics.recordTransaction(fakeRecord({ account: 'a', outcome: 'aborted' }));
    const text = await textOf(metrics);
    const series = (outcome: string, reply: string): string =>
      `xoauth2_relay_transactions_total{account="a",provider="gmail",outcome="${outcome}",reply_class="${reply}"}`;
    assert.equal(sampleOf(text, series('relayed', '2xx')), 2);
    assert.equal(sampleOf(text, series('aborted', 'none')), 1);
    assert.equal(sampleOf(text, 'xoauth2_relay_message_bytes_total{account="a",provider="gmail"}'), 8192);
  });

  it('observes times in seconds, and upstream only where something was sent', async () => {
    const metrics = createMetrics(createFakeAdminBackend(), BUILD);
    metrics.recordTransaction(fakeRecord({ totalMs: 1500, upstreamMs: 1200, flights: 2 }));
    metrics.recordTransaction(fakeRecord({ outcome: 'deferred', totalMs: 1, flights: 0 }));
    const text = await textOf(metrics);
    assert.equal(
      sampleOf(text, 'xoauth2_relay_transaction_duration_seconds_sum{provider="gmail",outcome="relayed"}'),
      1.5,
    );
    assert.equal(sampleOf(text, 'xoauth2_relay_upstream_duration_seconds_count{provider="gmail"}'), 1);
    assert.equal(sampleOf(text, 'xoauth2_relay_transaction_flights_sum{provider="gmail"}'), 2);
  });

  it('reads gauges afresh: a status that was left and an account that is gone do not linger', async () => {
    const backend = createFakeAdminBackend([
      { email: 'a@example.com', tokenLifeS: 100 },
      { email: 'b@example.com' },
    ]);
    const metrics = createMetrics(backend, BUILD);
    await textOf(metrics);
    backend.set({ email: 'a@example.com', status: 'needs_consent' });
    backend.remove('b@example.com');
    const statuses = (await textOf(metrics))
      .split('\n')
      .filter((l) => l.startsWith('xoauth2_relay_account_status{'));
    assert.deepEqual(statuses, [
      'xoauth2_relay_account_status{account="a@example.com",provider="gmail",status="needs_consent"} 1',
    ]);
  });

  it('shows counters kept elsewhere as they stand there, however often it is scraped', async () => {
    const metrics = createMetrics(createFakeAdminBackend(), BUILD);
    await textOf(metrics);
    assert.equal(sampleOf(await textOf(metrics), 'xoauth2_relay_token_cache_hits_total'), 90);
  });

  it('is ready as /readyz is', async () => {
    const backend = createFakeAdminBackend([{ email: 'a@example.com' }]);
    const metrics = createMetrics(backend, BUILD);
    assert.equal(sampleOf(await textOf(metrics), 'xoauth2_relay_ready'), 1);
    backend.warmedUp = false;
    assert.equal(sampleOf(await textOf(metrics), 'xoauth2_relay_ready'), 0);
  });

  it('escapes what an account is called', async () => {
    const metrics = createMetrics(createFakeAdminBackend(), BUILD);
    metrics.recordTransaction(fakeRecord({ account: 'a"\n} 1\nevil 1' }));
    assert.ok(!/^evil/m.test(await textOf(metrics)));
  });

  it('has totals whatever accounts have series of their own', async () => {
    const backend = createFakeAdminBackend([
      { email: 'quiet@example.com' },
      { email: 'ann@example.com' },
      { email: 'ill@example.com', status: 'needs_consent' },
    ]);
    const rows = backend.rows;
    // Nobody is connected.
    backend.rows = function* () {
      for (const row of rows()) yield { ...row, pool: { ...row.pool, size: 0, idle: 0 } };
    };
    const shown = async (accounts: 'all' | 'busy' | 'none'): Promise<string[]> => {
      const metrics = createMetrics(backend, { version: '1', accounts });
      metrics.recordTransaction(fakeRecord({ account: 'ann@example.com' }));
      const text = await textOf(metrics);
      const total = (labels: string): number | undefined =>
        sampleOf(text, `xoauth2_relay_provider_transactions_total{${labels}}`);
      assert.equal(total('provider="gmail",outcome="relayed",reply_class="2xx"'), 1);
      assert.equal(sampleOf(text, 'xoauth2_relay_accounts{provider="gmail",status="ready"}'), 2);
      return [...new Set([...text.matchAll(/account="([^@"]+)/g)].map((m) => m[1] ?? ''))].sort();
    };
    assert.deepEqual(await shown('all'), ['ann', 'ill', 'quiet']);
    assert.deepEqual(await shown('busy'), ['ann', 'ill']);
    assert.deepEqual(await shown('none'), []);
  });

  it('leaves the loop its turns, and drops the counters of an account that has left', async () => {
    const backend = createFakeAdminBackend(
      Array.from({ length: 3_000 }, (_, i) => ({ email: `user${i}@example.com`, tokenLifeS: 100 })),
    );
    const metrics = createMetrics(backend, BUILD);
    metrics.recordTransaction(fakeRecord({ account: 'gone@example.com' }));
    let turns = 0;
    let isOver = false;
    const turn = (): void => {
      turns++;
      if (!isOver) setImmediate(turn);
    };
    setImmediate(turn);
    assert.match(await textOf(metrics), /gone@example\.com/);
    isOver = true;
    assert.ok(turns > 5, `${turns} turns`);
    metrics.forget('gone@example.com');
    assert.doesNotMatch(await textOf(metrics), /gone@example\.com/);
  });
});
