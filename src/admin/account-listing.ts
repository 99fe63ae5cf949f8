/**
 * `GET /admin/accounts` by pages. In: all rows and the query. Out: those asked for, and where the next page
 * begins. Without a query all rows. Pure.
 */
import { foldAscii } from '../protocol/text.ts';
import { STATUSES } from '../protocol/vocabulary.ts';
import type { Parameter } from './operation.ts';
import type { AccountRow, Shape } from './shapes.ts';

const MAX_LIMIT = 1000;

const parameter = (name: string, description: string, schema: object): Parameter => ({
  name,
  in: 'query',
  description,
  schema,
});

export const LISTING: readonly Parameter[] = [
  parameter('limit', 'Most to answer; without it all', { type: 'integer', minimum: 1, maximum: MAX_LIMIT }),
  parameter('cursor', '`next_cursor` of the page before', { type: 'string' }),
  parameter('status', 'Only with one of these, separated by commas; `drained` too', {
    type: 'string',
  }),
  parameter('search', 'Only where id, e-mail address or provider contains this', { type: 'string' }),
];

const WANTED: readonly string[] = [...STATUSES, 'drained'];

export function answerAccounts(
  rows: readonly AccountRow[],
  query: (name: string) => string | undefined,
): Shape<'Accounts'> | { readonly refusal: string } {
  const limitText = query('limit');
  const limit = limitText === undefined ? Number.POSITIVE_INFINITY : Number(limitText);
  if (limitText !== undefined && !(Number.isInteger(limit) && limit >= 1 && limit <= MAX_LIMIT))
    return { refusal: `limit must be a whole number from 1 to ${MAX_LIMIT}` };
  const statuses = query('status')?.split(',');
  const odd = statuses?.find((status) => !WANTED.includes(status));
  if (odd !== undefined) return { refusal: `status must be of ${WANTED.join(', ')}` };
  const cursor = query('cursor');
  const from = cursor === undefined ? 0 : rows.findIndex(({ id }) => id === cursor);
  // The account it named may have been removed meanwhile: nobody can tell where it stood.
  if (from < 0) return { refusal: 'cursor names no account: begin again without it' };
  const search = query('search');
  const needle = search === undefined ? undefined : foldAscii(search);
  const page: AccountRow[] = [];
  for (let i = from; i < rows.length; i++) {
    const row = rows[i];
    if (row === undefined || !fits(row, statuses, needle)) continue;
    if (page.length === limit) return { accounts: page, next_cursor: row.id };
    page.push(row);
  }
  return { accounts: page, next_cursor: null };
}

const fits = (
  row: AccountRow,
  statuses: readonly string[] | undefined,
  needle: string | undefined,
): boolean =>
  (statuses === undefined ||
    statuses.includes(row.status) ||
    (row.drained && statuses.includes('drained'))) &&
  (needle === undefined ||
    foldAscii(row.id).includes(needle) ||
    foldAscii(row.email).includes(needle) ||
    foldAscii(row.provider).includes(needle));
