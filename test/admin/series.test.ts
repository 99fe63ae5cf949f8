import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createSample } from '../../src/admin/sample.ts';
import { createSeries } from '../../src/admin/series.ts';

describe('sample', () => {
  it('answers nearest-rank quantiles', () => {
    const sample = createSample(1000);
    for (let i = 100; i >= 1; i--) sample.add(i);
    assert.deepEqual(sample.quantiles([0, 0.5, 0.95, 0.99, 1]), [1, 50, 95, 99, 100]);
  });

  it('answers null of nothing, and after clear', () => {
    const sample = createSample(10);
    assert.deepEqual(sample.quantiles([0.5]), [null]);
    sample.add(1);
    sample.clear();
    assert.deepEqual(sample.quantiles([0.5]), [null]);
    assert.equal(sample.count, 0);
  });

  it('keeps a fair share of more than it can hold', () => {
    const sample = createSample(500);
    for (let i = 0; i < 50_000; i++) sample.add(i);
    const [median = null] = sample.quantiles([0.5]);
    assert.equal(sample.count, 50_000);
    assert.ok(median !== null && median > 15_000 && median < 35_000, String(median));
  });
});

describe('series', () => {
  it('counts by second and outcome and fills the gaps', () => {
    let now = 10_000;
    const series = createSeries(60, () => now);
    series.add('relayed', 10);
    series.add('relayed', 30);
    series.add('rejected', 20);
    now = 12_500;
    series.add('deferred', 5);
    assert.deepEqual(
      series.points().map((p) => [p.at_s, p.relayed, p.rejected, p.deferred, p.p50_ms, p.p99_ms]),
      [
        [10, 2, 1, 0, 20, 30],
        [11, 0, 0, 0, null, null],
      ],
    );
    now = 13_000;
    assert.equal(series.lastSecond().deferred, 1);
  });

  it('forgets what is older than it keeps', () => {
    let now = 0;
    const series = createSeries(5, () => now);
    for (now = 0; now < 20_000; now += 1000) series.add('relayed', 1);
    const points = series.points();
    assert.deepEqual(
      points.map((p) => p.at_s),
      [15, 16, 17, 18, 19],
    );
    assert.ok(points.every((p) => p.relayed === 1));
  });
});
