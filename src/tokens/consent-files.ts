/**
 * Where in the state directory there are refresh tokens beside those that accounts go on with: in the files of accounts
 * that are not served (renamed, perhaps), and of those that have another consent now. In: the directory, who is served.
 * Out: the files with a consent, and one that may have any, as it cannot be read. Owns what it knows of them, until others
 * are served.
 */
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { eachAtOnce } from '../semaphore.ts';
import { createSlices } from '../slices.ts';
import { fileNameOf, type GrantFiles, OURS, READS_AT_ONCE } from './grant-files.ts';
import type { StateFiles } from './state-files.ts';
import { ownGrant } from './stored-grants.ts';
import type { GrantId, ServedIds, StoredGrant } from './token-store.ts';
import type { UnreadFile } from './unreadable.ts';

export interface ConsentFiles {
  serves(accounts: ServedIds): void;
  /**
   * Paths of files with a refresh token of this consent that is not the one their account goes on with. `isFresh`: as
   * they are now, or were moments ago. `unread`: why one of them, of an account that is not served, cannot be read now.
   */
  with(
    fingerprint: string,
    isFresh: boolean,
  ): Promise<{ readonly paths: readonly string[]; readonly unread: UnreadFile | undefined }>;
  /** Whose consent the account of this file has, where it is served. Rejects where the directory cannot be listed. */
  of(path: string): Promise<string | undefined>;
  /** The file of the account has been read or written here, and has these grants. */
  seen(id: GrantId, grants: readonly StoredGrant[]): void;
}

/** The directory is read again for a consent that was refused at most this often, ms. */
const FRESH_MS = 10_000;

type Places = Map<string, Set<string>>;

/** What the directory had at one time; what could not be read is tried again. */
interface Reading {
  /** Paths of served accounts, with the consent they go on with. */
  readonly ofServed: ReadonlyMap<string, string>;
  readonly places: Places;
  readonly unread: Set<string>;
}

export function createConsentFiles(
  directory: string,
  deps: { readonly files: StateFiles; readonly grantFiles: GrantFiles; readonly clock: Clock },
): ConsentFiles {
  const { files, grantFiles, clock } = deps;
  let served: ServedIds = new Map();
  let reading: Promise<Reading> | undefined;
  let readAt = Number.NEGATIVE_INFINITY;
  /**
   * Paths of served accounts whose files this process has read, with the consent they had then; what it writes there it
   * knows.
   */
  const known = new Map<string, string>();
  /** What was seen there beside the grant that the account goes on with. */
  const beside: Places = new Map();

  const add = (places: Places, fingerprint: string, path: string): void =>
    void places.set(fingerprint, (places.get(fingerprint) ?? new Set()).add(path));
  const note = (places: Places, path: string, grants: readonly StoredGrant[]): void => {
    for (const { grantFingerprint, refreshToken } of grants)
      if (refreshToken !== undefined) add(places, grantFingerprint, path);
  };

  async function readAll(): Promise<Reading> {
    const slices = createSlices(clock);
    const paths = new Set<string>();
    for (const name of await files.list(directory)) if (OURS.test(name)) paths.add(join(directory, name));
    const ofServed = new Map<string, string>();
    for (const [id, { grant }] of served) {
      const path = join(directory, fileNameOf(id));
      ofServed.set(path, grant.fingerprint);
      const before = known.get(path);
      if (before !== undefined && before !== grant.fingerprint) add(beside, before, path);
      if (slices.isOver) await slices.rest();
    }
    const toRead = [...paths].filter((path) => !(ofServed.has(path) && known.has(path)));
    const places: Places = new Map();
    const unread = new Set<string>();
    await eachAtOnce(READS_AT_ONCE, toRead, async (path) => {
      const grants = await grantFiles.readOrReject(path).catch(() => 'unread' as const);
      const own = ofServed.get(path);
      if (grants === 'unread') {
        // That of a served account is asked for by its name.
        if (own === undefined) unread.add(path);
      } else if (own === undefined) note(places, path, grants ?? []);
      // Meanwhile its account may have read it, which knows better what is its own.
      else if (!known.has(path)) {
        note(beside, path, grants ?? []);
        known.set(path, own);
      }
    });
    return { ofServed, places, unread };
  }

  /** Why the first one cannot be read still; one that has gone or can be is left out from now on. */
  async function firstUnread({ places, unread }: Reading): Promise<UnreadFile | undefined> {
    for (const path of unread)
      try {
        note(places, path, (await grantFiles.readOrReject(path)) ?? []);
        unread.delete(path);
      } catch (error) {
        return error as UnreadFile;
      }
    return undefined;
  }

  function read(): Promise<Reading> {
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
      const mine = await reading;
      const unread = await firstUnread(mine);
      const found = [mine.places, beside].flatMap((places) => [...(places.get(fingerprint) ?? [])]);
      return { paths: [...new Set(found)], unread };
    },
    async of(path) {
      reading ??= read();
      return known.get(path) ?? (await reading).ofServed.get(path);
    },
    seen(id, grants) {
      const path = grantFiles.pathOf(id.accountId);
      if (!served.has(id.accountId)) {
        reading?.then(
          ({ places }) => note(places, path, grants),
          () => undefined,
        );
        return;
      }
      known.set(path, id.fingerprint);
      const own = ownGrant(grants, id);
      if (grants.length > 1 || own === undefined)
        note(
          beside,
          path,
          grants.filter((grant) => grant !== own),
        );
    },
  };
}
