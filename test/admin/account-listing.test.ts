import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerAccounts } from '../../src/admin/account-listing.ts';
import { createFakeAdminBackend } from '../support/fake-admin-backend.ts';

const rows = createFakeAdminBackend([
  { email: 'ann@example.com' },
  { email: 'ben@example.com', status: 'throttled' },
  { email: 'cleo@Other.example', drained: true },
  { email: 'dora@example.com', status: 'throttled' },
]).accounts();

const ask = (query: Record<string, string> = {}) => answerAccounts(rows, (name) => query[name]);
const ids = (query?: Record<string, string>): unknown => {
  const answer = ask(query);
  return 'refusal' in answer
    ? answer.refusal
    : [answer.accounts.map((row) => row.id[0]).join(''), answer.next_cursor];
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
