import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { createSummary } from '../../src/admin/summary.ts';
import { silentLog } from '../../src/log.ts';
import { createFakeAdminBackend, fakeRecord } from '../support/fake-admin-backend.ts';
import { waitFor } from '../support/wait-for.ts';

describe('summary', () => {
  beforeEach(() => mock.timers.enable({ apis: ['setInterval'] }));
  afterEach(() => mock.timers.reset());

  function createHouse(everyMs: number) {
    const backend = createFakeAdminBackend([
      { email: 'ann@example.com' },
      { email: 'bob@example.com', status: 'needs_consent' },
    ]);
    const lines: Record<string, unknown>[] = [];
    const log = { ...silentLog, info: (fields: object) => void lines.push({ ...fields }) };
    return { backend, lines, summary: createSummary({ backend, log }, { everyMs }) };
  }

  it('tells the figures of the time since the last line', async () => {
    const { backend, lines, summary } = createHouse(60_000);
    summary.record(fakeRecord({ totalMs: 10, bytes: 100 }));
    summary.record(fakeRecord({ totalMs: 30, bytes: 100, outcome: 'deferred' }));
    backend.totals = {
      ...backend.totals,
      cache_hits: 93,
      cache_misses: 11,
      refresh_attempts: 12,
      refresh_success: 10,
    };
    mock.timers.tick(60_000);
    const first = await waitFor(() => lines[0]);
    assert.deepEqual(
      [
        first?.event,
        first?.relayed,
        first?.deferred,
        first?.p50_ms,
        first?.p99_ms,
        first?.bytes,
        first?.period_s,
      ],
      ['summary', 1, 1, 10, 30, 200, 60],
    );
    assert.deepEqual([first?.cache_hit_rate, first?.refresh_success_rate], [0.75, 0.5]);
    assert.deepEqual([first?.accounts, first?.attention], [2, ['bob@example.com']]);
    mock.timers.tick(60_000);
    const second = await waitFor(() => lines[1]);
    assert.deepEqual([second?.relayed, second?.p50_ms, second?.cache_hit_rate], [0, null, null]);
    summary.close();
  });

  it('is silent when it is off or closed', () => {
    const off = createHouse(0);
    const closed = createHouse(1000);
    closed.summary.close();
    mock.timers.tick(10_000_000);
    assert.deepEqual([off.lines, closed.lines], [[], []]);
  });
});
