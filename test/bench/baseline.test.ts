import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { compare, readBaseline, saveBaseline } from './baseline.ts';

const measured = (ratio: number, noise = 0.02) => ({ relay: 100 * ratio, splice: 100, ratio, noise });

test('a change that costs 10 % is seen; one within the noise of either run is called so', () => {
  assert.equal(compare(measured(1.21), measured(1.1)), '+10 % SLOWER');
  assert.equal(compare(measured(0.99), measured(1.1)), '-10 % faster');
  assert.equal(compare(measured(1.21, 0.12), measured(1.1)), '+10 %, within noise');
  assert.equal(compare(measured(1.21), measured(1.1, 0.12)), '+10 %, within noise');
  assert.equal(compare(measured(1.14), measured(1.1)), '+4 %, within noise');
  assert.equal(compare(measured(1.1), undefined), 'not in it');
});

test('a file keeps what other benches have saved in it', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'baseline-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'run.json');
  const table = (title: string, cell: string) => ({ title, rows: [[cell]] });
  saveBaseline(file, { rows: { a: measured(1) }, tables: [table('one', 'old')], absent: ['x'] });
  saveBaseline(file, { tables: [table('two', '2')] });
  saveBaseline(file, { rows: { a: measured(2) }, tables: [table('one', 'new')], absent: [] });
  const { rows, tables, absent } = readBaseline(file);
  assert.equal(rows.a?.ratio, 2);
  assert.deepEqual([tables, absent], [[table('two', '2'), table('one', 'new')], []]);
});
