import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { plant } from './plant.ts';
import { PLANTED } from './planted.ts';

const source = (file: string): string => readFileSync(new URL(`../../src/${file}`, import.meta.url), 'utf8');

test('each planted fault still applies to the compiled code', () => {
  for (const { name, edits } of PLANTED)
    for (const { file, find, put } of edits)
      assert.notEqual(plant(source(file), find, put), source(file), `${name}: ${file}`);
});

test('one that does not apply any more is told', () => {
  assert.throws(() => plant('const a = 1;', 'const b', ''), /is not in the code any more: const b/);
});
