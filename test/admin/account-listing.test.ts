import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LISTING, listAccounts } from '../../src/admin/account-listing.ts';
import { oddQuery } from '../../src/admin/operation.ts';
import { createFakeAdminBackend } from '../support/fake-admin-backend.ts';

const backend = createFakeAdminBackend([
  { email: 'ann@example.com' },
  { email: 'ben@example.com', status: 'throttled' },
  { email: 'cleo@Other.example', drained: true },
  { email: 'dora@example.com', status: 'throttled' },
]);

const ids = (query: Record<string, string> = {}): unknown => {
  const asked = (name: string): string | undefined => query[name];
  const odd = oddQuery(LISTING, asked);
  if (odd !== undefined) return odd;
  const answer = listAccounts(backend, asked);
  if ('refusal' in answer) return answer.refusal;
  const rows = [...answer.rows].flatMap((row) => row ?? []);
  return [rows.map((row) => row.id[0]).join(''), answer.nextCursor()];
};

test('without a query all rows', () => assert.deepEqual(ids(), ['abcd', null]));

test('pages follow each other to the end, filters included', () => {
  assert.deepEqual(ids({ limit: '2' }), ['ab', 'cleo@other.example']);
  assert.deepEqual(ids({ limit: '2', cursor: 'cleo@other.example' }), ['cd', null]);
  assert.deepEqual(ids({ limit: '1', status: 'throttled' }), ['b', 'dora@example.com']);
  assert.deepEqual(ids({ limit: '1', status: 'throttled', cursor: 'dora@example.com' }), ['d', null]);
});

test('status and search', () => {
  assert.deepEqual(ids({ status: 'throttled,drained' }), ['bcd', null]);
  assert.deepEqual(ids({ search: 'OTHER' }), ['c', null]);
  assert.deepEqual(ids({ search: 'nobody' }), ['', null]);
});

test('what makes no sense is refused', () => {
  for (const query of [
    { limit: '0' },
    { limit: 'x' },
    { limit: '1001' },
    { status: 'loud' },
    { cursor: 'nobody' },
  ])
    assert.equal(typeof ids(query), 'string', JSON.stringify(query));
});

test('no row is built that a search or a page does not need', () => {
  const built: string[] = [];
  const counting = {
    ...backend,
    *search(asked: Parameters<typeof backend.search>[0]) {
      for (const row of backend.search(asked)) {
        if (row !== undefined) built.push(row.id);
        yield row;
      }
    },
  };
  const read = (query: Record<string, string>): void => {
    const answer = listAccounts(counting, (name) => query[name]);
    if (!('refusal' in answer)) [...answer.rows];
  };
  read({ search: 'other' });
  assert.deepEqual(built.splice(0), ['cleo@other.example']);
  read({ limit: '1' });
  assert.deepEqual(built, ['ann@example.com', 'ben@example.com'], 'one more, for the cursor');
});
