/** What the manual says of replies is what the relay gives: read from its sources. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { REPLY_CODES } from '../../src/commands/reply-codes.ts';
import { repositoryRoot } from '../support/relay-process.ts';

/** Where replies are made. */
const ROOMS = /^(?:listener|relay|upstream|protocol)\/(?!causes\/)/;
/** `reply(451, '4.3.0', …)`, `{ code: 451, enhanced: '4.5.0' }`, `later('4.3.0', …)`, `row('local', '451 4.3.0 …')`. */
const FORMS = [
  /\(\s*([45]\d\d),\s*'([45]\.\d+\.\d+)'/g,
  /code: ([45]\d\d), enhanced: '([45]\.\d+\.\d+)'/g,
  /\blater\(()'(4\.\d+\.\d+)'/g,
  /\s'([45]\d\d) ([45]\.\d+\.\d+) /g,
];

const source = join(repositoryRoot, 'src');
const given = new Set(
  readdirSync(source, { recursive: true })
    .map(String)
    .filter((path) => ROOMS.test(path) && path.endsWith('.ts'))
    .flatMap((path) => {
      const text = readFileSync(join(source, path), 'utf8');
      return FORMS.flatMap((form) =>
        [...text.matchAll(form)].map(([, code, enhanced]) => `${code || '451'} ${enhanced}`),
      );
    }),
);
const told = new Set(
  REPLY_CODES.flatMap(([, reply]) =>
    [...reply.matchAll(/`([45]\d\d \d\.\d+\.\d+)/g)].map(([, code = '']) => code),
  ),
);

test('each reply of the manual is one that the relay gives', () => {
  assert.ok(told.size > 20 && given.has('452 4.5.3'));
  assert.deepEqual([...told].filter((reply) => !given.has(reply)).sort(), []);
});

test('each reply that the relay gives stands in the manual', () => {
  // `500` to `504`: they tell whoever writes a client.
  const isOfSyntax = (reply: string): boolean => /^50[0-4] /.test(reply);
  assert.deepEqual([...given].filter((reply) => !told.has(reply) && !isOfSyntax(reply)).sort(), []);
});
