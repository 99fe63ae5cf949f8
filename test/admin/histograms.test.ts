import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Histogram, Registry } from 'prom-client';
import { createHistogram } from '../../src/admin/histograms.ts';

test('a histogram reads as one of prom-client does', async () => {
  const bounds = [0.005, 0.25, 1, 30];
  const registry = new Registry();
  const theirs = new Histogram({
    name: 'seconds',
    help: 'Time',
    labelNames: ['provider', 'outcome'],
    buckets: [...bounds],
    registers: [registry],
  });
  const ours = createHistogram('seconds', 'Time', bounds);
  const relayed = ours.of('provider="gmail",outcome="relayed"');
  for (const value of [0, 0.005, 0.0051, 0.25, 0.9, 29.5, 30, 31, 1e6]) {
    relayed(value);
    theirs.observe({ provider: 'gmail', outcome: 'relayed' }, value);
  }
  ours.of('provider="outlook",outcome="deferred"')(2);
  theirs.observe({ provider: 'outlook', outcome: 'deferred' }, 2);
  assert.equal([...ours.parts()].join('').trimEnd(), (await registry.metrics()).trimEnd());
});
