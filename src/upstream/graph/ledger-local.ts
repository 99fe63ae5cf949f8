/**
 * The ledger of one process: in memory, and in a journal where there is a state directory. The journal
 * is appended to and synced before an entry counts as noted; entries of one moment share a sync. It is
 * written anew when most of it is out of date.
 */
import { type FileHandle, open, readFile, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Clock, systemClock } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { orMake } from '../../or-make.ts';
import {
  formatEntry,
  HEARD_MS,
  type Hearing,
  hashOf,
  heardOf,
  isListed,
  isOpen,
  KEEP_MS,
  keepMsOf,
  type Ledger,
  type LedgerEntry,
  OWNED_MS,
  parseEntry,
  withoutSteps,
} from './ledger.ts';

/** Entries of sent messages beyond these are forgotten, oldest first; what is unclear never is before its time. */
const MAX_SENT = 100_000;
/** Of more recipients it is not known which attempt was heard last. */
const MAX_HEARD = 100_000;
/** Lines out of date before the journal is written anew. */
const STALE_LINES = 20_000;
const FILE = 'graph-submissions.journal';

interface Journal {
  append(line: string, wait: 'synced' | 'written'): Promise<void>;
  rewrite(lines: Iterable<string>): Promise<void>;
  close(): Promise<void>;
}

export interface LocalLedgerDeps {
  readonly log: Log;
  readonly clock?: Clock;
  /** Without one nothing outlives the process. */
  readonly directory?: string | undefined;
}

export function createLocalLedger(deps: LocalLedgerDeps): Ledger {
  const { log, clock = systemClock, directory } = deps;
  const today = withoutSteps(clock);
  /** Oldest note first. */
  const entries = new Map<string, LedgerEntry>();
  const busy = new Set<string>();
  /** By draft, oldest note first. */
  const owners = new Map<string, { readonly key: string; readonly at: number }>();
  /** By hash of the draft: what was sent. */
  const copies = new Map<string, string>();
  /** Keys of what is noted with a subject. */
  const families = new Map<string, Set<string>>();
  /** How many messages are known by a name. */
  const names = new Map<string, number>();
  /** By `heardOf`, oldest first: whose attempt was heard last. */
  const heard = new Map<string, { readonly at: number; readonly owner: symbol }>();
  let sent = 0;
  /** How many are open, by mark of their sender; `''` where it was not noted. */
  const open = new Map<string, number>();
  let lines = 0;
  let journal: Journal | undefined;
  let rewriting: Promise<void> | undefined;

  function keep(key: string, entry: LedgerEntry | undefined): void {
    const before = entries.get(key);
    if (before !== undefined) reckon(key, before, -1);
    entries.delete(key);
    if (entry === undefined) return;
    entries.set(key, entry);
    reckon(key, entry, 1);
    if (entry.state === 'draft') own(entry.draft, key);
  }

  /** What is found by other things than its key. */
  function reckon(key: string, entry: LedgerEntry, by: 1 | -1): void {
    const { subject } = entry;
    if (entry.state === 'sent') sent += by;
    if (entry.state === 'sent' && entry.copy !== undefined) {
      if (by === 1) copies.set(entry.copy, key);
      else copies.delete(entry.copy);
    }
    if (isOpen(entry)) count(open, subject?.sender ?? '', by);
    count(names, subject?.name, by);
    if (subject?.family === undefined) return;
    const keys = orMake(families, subject.family, () => new Set());
    if (by === 1) keys.add(key);
    else keys.delete(key);
    if (keys.size === 0) families.delete(subject.family);
  }

  function count(counts: Map<string, number>, what: string | undefined, by: 1 | -1): void {
    if (what === undefined) return;
    const next = (counts.get(what) ?? 0) + by;
    if (next > 0) counts.set(what, next);
    else counts.delete(what);
  }

  function own(draft: string, key: string): void {
    owners.delete(draft);
    owners.set(draft, { key, at: clock.monotonic() });
    for (const [oldest, owner] of owners) {
      if (clock.monotonic() - owner.at < OWNED_MS) return;
      owners.delete(oldest);
      const entry = entries.get(owner.key);
      if (entry?.state === 'draft' && entry.draft === oldest)
        owners.set(oldest, { key: owner.key, at: clock.monotonic() });
    }
  }

  function heardBy(owner: symbol, hearing: Hearing): void {
    const at = clock.monotonic();
    for (const each of heardOf(hearing)) {
      heard.delete(each);
      heard.set(each, { at, owner });
    }
    for (const [oldest, old] of heard) {
      if (at - old.at < HEARD_MS && heard.size <= MAX_HEARD) return;
      heard.delete(oldest);
    }
  }

  function forgetOld(): void {
    const now = today();
    for (const [key, entry] of entries) {
      if (busy.has(key)) continue;
      const isSpare = sent > MAX_SENT && entry.state === 'sent';
      if (isSpare || entry.at < now - keepMsOf(entry)) keep(key, undefined);
      // In the order of notes: what follows is younger.
      else if (sent <= MAX_SENT && entry.at >= now - KEEP_MS) break;
    }
  }

  async function write(
    key: string,
    entry: LedgerEntry | undefined,
    wait: 'synced' | 'written',
  ): Promise<void> {
    const before = entries.get(key);
    keep(key, entry);
    forgetOld();
    if (journal === undefined) return;
    lines++;
    try {
      await journal.append(lineOf(key, entry), wait);
    } catch (error) {
      keep(key, before);
      log.error(
        { event: 'graph_ledger_failed', file: FILE, reason: (error as Error).message },
        'the journal of messages sent by Graph cannot be written: messages wait',
      );
      throw error;
    }
    if (lines > entries.size * 2 + STALE_LINES)
      rewriting ??= journal
        .rewrite(allLines())
        .then(
          () => {
            lines = entries.size;
          },
          (error: Error) =>
            log.warn(
              { event: 'graph_ledger_failed', reason: error.message },
              'the journal could not be shortened',
            ),
        )
        .finally(() => {
          rewriting = undefined;
        });
  }

  function* allLines(): Iterable<string> {
    for (const [key, entry] of entries) yield lineOf(key, entry);
  }

  let opening: Promise<void> | undefined;
  /** A failure is tried again with the next message. */
  function opened(): Promise<void> {
    opening ??= load().catch((error: unknown) => {
      opening = undefined;
      throw error;
    });
    return opening;
  }

  async function load(): Promise<void> {
    if (directory === undefined) return;
    const path = join(directory, FILE);
    for (const line of (await readOptional(path)).split('\n')) {
      const space = line.indexOf(' ');
      // The last line of a killed process may be half of one.
      if (space !== 32) continue;
      const text = line.slice(space + 1);
      const entry = text === '-' ? undefined : parseEntry(text);
      if (entry === undefined && text !== '-') continue;
      keep(line.slice(0, space), entry);
    }
    forgetOld();
    const made = createJournal(path);
    try {
      await made.rewrite(allLines());
    } catch (error) {
      await made.close();
      throw error;
    }
    journal = made;
    lines = entries.size;
  }

  return {
    isOfMany: false,
    open: opened,
    async claim(key) {
      await opened();
      if (busy.has(key)) return 'busy';
      busy.add(key);
      const known = entries.get(key);
      const isOld = known !== undefined && known.at < today() - keepMsOf(known);
      const owner = Symbol();
      const forget = (): Promise<boolean> =>
        write(key, undefined, 'written').then(
          () => true,
          () => !entries.has(key),
        );
      let isOver = false;
      return {
        known: isOld ? undefined : known,
        async note(entry, hearing) {
          await write(key, entry, needsSync(entry, entries.get(key)) ? 'synced' : 'written');
          if (hearing !== undefined) heardBy(owner, hearing);
        },
        forget,
        close(hearing) {
          heardBy(owner, hearing);
          return forget();
        },
        async notHeardSince(hearing) {
          const last = heardOf(hearing).map((each) => heard.get(each)?.owner ?? owner);
          return hearing.marks.filter((_, i) => last[i] === owner);
        },
        async release() {
          if (isOver) return;
          isOver = true;
          busy.delete(key);
        },
      };
    },
    async ownerOf(draft) {
      await opened();
      return owners.get(draft)?.key ?? copies.get(hashOf(draft));
    },
    async isShared(name, key) {
      await opened();
      return (names.get(name) ?? 0) > (entries.get(key)?.subject?.name === name ? 1 : 0);
    },
    async relatives(family) {
      await opened();
      forgetOld();
      return [...(families.get(family) ?? [])].flatMap((key) => {
        const entry = entries.get(key);
        return entry === undefined ? [] : [{ key, entry }];
      });
    },
    async hasAny() {
      await opened();
      return entries.size > 0;
    },
    async hasOpen(sender) {
      await opened();
      return sender === undefined ? open.size > 0 : open.has(sender) || open.has('');
    },
    async list() {
      await opened();
      forgetOld();
      return [...entries].flatMap(([key, entry]) => (isListed(entry) ? [{ key, entry }] : []));
    },
    async close() {
      await rewriting;
      await journal?.close();
    },
  };
}

/**
 * Whether anybody waits for the disk. That a message was sent is also to be seen at its draft. That a draft may be made
 * is only for tidying up; that one is about to be deleted keeps the retry from looking for it.
 */
const needsSync = ({ state }: LedgerEntry, before: LedgerEntry | undefined): boolean =>
  state === 'draft' || state === 'sending' || (state === 'creating' && before?.state === 'draft');

const lineOf = (key: string, entry: LedgerEntry | undefined): string =>
  `${key} ${entry === undefined ? '-' : formatEntry(entry)}\n`;

async function readOptional(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ENOENT') return '';
    throw error;
  }
}

/** A file that is appended to, by one writer at a time. */
function createJournal(path: string): Journal {
  let file: FileHandle | undefined;
  let pending: string[] = [];
  let turn: Promise<void> = Promise.resolve();
  let scheduled: Promise<void> | undefined;
  let wantsSync = false;
  let isTorn = false;

  function inTurn(task: () => Promise<void>): Promise<void> {
    const mine = turn.then(task);
    turn = mine.catch(() => undefined);
    return mine;
  }

  async function flush(): Promise<void> {
    scheduled = undefined;
    const text = pending.join('');
    pending = [];
    const isSynced = wantsSync;
    wantsSync = false;
    if (text === '') return;
    file ??= await open(path, 'a', 0o600);
    const start = isTorn ? '\n' : '';
    // Until it is known to be whole the last line may be half of one.
    isTorn = true;
    await file.appendFile(start + text);
    if (isSynced) await file.datasync();
    isTorn = false;
  }

  return {
    append(line, wait) {
      pending.push(line);
      if (wait === 'synced') wantsSync = true;
      // Whoever comes while a write is under way shares the next one.
      scheduled ??= inTurn(flush);
      if (wait === 'synced') return scheduled;
      scheduled.catch(() => undefined);
      return Promise.resolve();
    },
    rewrite: (lines) =>
      inTurn(async () => {
        const half = `${path}.tmp`;
        const fresh = await open(half, 'w', 0o600);
        try {
          await fresh.writeFile([...lines].join(''));
          await fresh.sync();
          await rename(half, path);
        } catch (error) {
          await fresh.close();
          await unlink(half).catch(() => undefined);
          throw error;
        }
        await file?.close();
        file = fresh;
        // Until then what is appended may belong to a file without a name, after a power cut.
        const directory = await open(dirname(path), 'r');
        await directory.sync().finally(() => directory.close());
      }),
    async close() {
      await scheduled?.catch(() => undefined);
      await turn;
      await file?.close();
      file = undefined;
    },
  };
}
