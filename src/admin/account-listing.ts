/**
 * `GET /admin/accounts` by pages. In: the backend and the query. Out: the rows asked for, and where the next
 * page begins. Without a query all rows.
 */
import { foldAscii } from '../protocol/text.ts';
import { STATUSES } from '../protocol/vocabulary.ts';
import type { AdminBackend } from './backend.ts';
import { type Parameter, query } from './operation.ts';
import type { AccountRow } from './shapes.ts';

export const LISTING: readonly Parameter[] = [
  query('limit', 'Most to answer; without it all', { type: 'integer', minimum: 1, maximum: 1000 }),
  query('cursor', '`next_cursor` of the page before'),
  query('status', 'Only with one of these, separated by commas; `drained` too'),
  query('search', 'Only where id, e-mail address or provider contains this'),
];

const WANTED: readonly string[] = [...STATUSES, 'drained'];

export interface Listed {
  /** Built as they are read; undefined is one that is not wanted. */
  readonly rows: Iterable<AccountRow | undefined>;
  /** Known when the rows have been read. */
  nextCursor(): string | null;
}

export function listAccounts(
  backend: Pick<AdminBackend, 'row' | 'search'>,
  asked: (name: string) => string | undefined,
): Listed | { readonly refusal: string } {
  const limit = Number(asked('limit') ?? Number.POSITIVE_INFINITY);
  const statuses = asked('status')?.split(',');
  const odd = statuses?.find((status) => !WANTED.includes(status));
  if (odd !== undefined) return { refusal: `status must be of ${WANTED.join(', ')}` };
  const from = asked('cursor');
  // The account it named may have been removed meanwhile: nobody can tell where it stood.
  if (from !== undefined && backend.row(from) === undefined)
    return { refusal: 'cursor names no account: begin again without it' };
  const search = asked('search');
  const needle = search === undefined ? undefined : foldAscii(search);
  const found = backend.search({
    from,
    fits: (names) => needle === undefined || isFound(names, needle),
  });
  let next: string | null = null;
  function* page(): Generator<AccountRow | undefined> {
    let count = 0;
    for (const row of found) {
      const isWanted = row !== undefined && (statuses === undefined || hasStatus(row, statuses));
      if (isWanted && count++ === limit) {
        next = row.id;
        return;
      }
      yield isWanted ? row : undefined;
    }
  }
  return { rows: page(), nextCursor: () => next };
}

const hasStatus = (row: AccountRow, statuses: readonly string[]): boolean =>
  statuses.includes(row.status) || (row.drained && statuses.includes('drained'));

const isFound = (
  { id, email, provider }: Pick<AccountRow, 'id' | 'email' | 'provider'>,
  needle: string,
): boolean => [id, email, provider].some((text) => foldAscii(text).includes(needle));
