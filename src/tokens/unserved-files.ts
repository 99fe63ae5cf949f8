/**
 * Refresh tokens in the state directory whose accounts are not served: of accounts that were renamed, perhaps. In: the
 * directory, who is served. Out: the files with a consent. Owns what it has read, until others are served.
 */
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { createSlices } from '../slices.ts';
import { fileNameOf, type GrantFiles, OURS } from './grant-files.ts';
import type { StateFiles } from './state-files.ts';
import type { ServedIds } from './token-store.ts';

export interface UnservedFiles {
  serves(accounts: ServedIds): void;
  /** Paths of files with a refresh token of this consent. `isFresh`: as they are now, or were moments ago. */
  with(fingerprint: string, isFresh: boolean): Promise<readonly string[]>;
  /** A refresh token has been written for this account. */
  written(accountId: string, fingerprint: string): void;
}

/** The directory is read again for a consent that was refused at most this often, ms. */
const FRESH_MS = 10_000;
/** Files read at once. */
const AT_ONCE = 16;

export function createUnservedFiles(
  directory: string,
  deps: { readonly files: StateFiles; readonly grantFiles: GrantFiles; readonly clock: Clock },
): UnservedFiles {
  const { files, grantFiles, clock } = deps;
  let served: ServedIds = new Map();
  let reading: Promise<Map<string, Set<string>>> | undefined;
  let readAt = Number.NEGATIVE_INFINITY;

  const note = (places: Map<string, Set<string>>, fingerprint: string, path: string): void =>
    void places.set(fingerprint, (places.get(fingerprint) ?? new Set()).add(path));

  async function readAll(): Promise<Map<string, Set<string>>> {
    const slices = createSlices(clock);
    const names = new Set((await files.list(directory)).filter((name) => OURS.test(name)));
    for (const id of served.keys()) {
      names.delete(fileNameOf(id));
      if (slices.isOver) await slices.rest();
    }
    const places = new Map<string, Set<string>>();
    const paths = [...names].map((name) => join(directory, name));
    for (let at = 0; at < paths.length; at += AT_ONCE)
      await Promise.all(
        paths.slice(at, at + AT_ONCE).map(async (path) => {
          for (const { grantFingerprint, refreshToken } of (await grantFiles.readQuietly(path)) ?? [])
            if (refreshToken !== undefined) note(places, grantFingerprint, path);
        }),
      );
    return places;
  }

  function read(): Promise<Map<string, Set<string>>> {
    readAt = clock.monotonic();
    const mine = readAll();
    mine.catch(() => {
      if (reading === mine) reading = undefined;
    });
    return mine;
  }

  return {
    serves(accounts) {
      served = accounts;
      reading = undefined;
    },
    async with(fingerprint, isFresh) {
      if (isFresh && clock.monotonic() - readAt > FRESH_MS) reading = undefined;
      reading ??= read();
      return [...((await reading).get(fingerprint) ?? [])];
    },
    written(accountId, fingerprint) {
      if (served.has(accountId)) return;
      reading?.then(
        (places) => note(places, fingerprint, grantFiles.pathOf(accountId)),
        () => undefined,
      );
    },
  };
}
