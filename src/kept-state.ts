/**
 * What a relay must not forget over a restart and is no secret: counts of limits, pauses, what is drained, invitations,
 * what the fleet knows. In: parts that give and take a snapshot, a path. Out: the parts filled at the start, one file written
 * now and then and at the end. A file that cannot be read or written costs the state, never a message.
 */
import { open, readFile } from 'node:fs/promises';
import { type Clock, every, orAfter, systemClock } from './clock.ts';
import type { Log } from './log.ts';
import { writeFileAtomically } from './write-file.ts';

/** A crash forgets at most what happened since the last save, ms. */
const SAVE_EVERY_MS = 10_000;
/** Nobody waits longer for a disk, ms. */
const SAVE_WAIT_MS = 2_000;
const MAX_OCTETS = 64 * 1_048_576;

export interface KeptPart {
  /** JSON. */
  snapshot(): unknown;
  /** Throws where `kept` is nothing it gave. */
  restore(kept: unknown): void;
  /** Where nothing else has changed it need not be written. */
  readonly isMinor?: boolean;
}

export interface KeptState {
  /** Reads what an earlier process left; never rejects. */
  restore(): Promise<void>;
  /** What stands now outlives a crash once it resolves, or cannot be written, or the disk takes over 2 s. Never rejects. */
  save(): Promise<void>;
  /** Writes a last time. Never rejects. */
  close(): Promise<void>;
}

export function createKeptState(
  path: string,
  parts: Readonly<Record<string, KeptPart>>,
  deps: { readonly log: Log; readonly clock?: Clock },
): KeptState {
  const { log, clock = systemClock } = deps;
  let written: string | undefined;
  let saving: Promise<void> = Promise.resolve();
  let endSaving: (() => void) | undefined;
  let hasFailed = false;
  let isClosed = false;
  let isRestored = false;

  const snapshot = (isMinor: boolean): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(parts)
        .filter(([, part]) => (part.isMinor ?? false) === isMinor)
        .map(([name, part]) => [name, part.snapshot()]),
    );

  async function write(): Promise<void> {
    const major = snapshot(false);
    const text = JSON.stringify(major);
    if (text === written) return;
    try {
      await writeFileAtomically(path, JSON.stringify({ ...snapshot(true), ...major }));
      written = text;
      hasFailed = false;
    } catch (error) {
      if (!hasFailed)
        log.warn(
          { event: 'state_not_kept', file: path, reason: (error as Error).message },
          'counts, pauses and the other state of accounts cannot be kept: a restart would forget it',
        );
      hasFailed = true;
    }
  }

  function writeNext(): Promise<void> {
    saving = saving.then(write);
    return saving;
  }

  const tellUnreadable = (names: readonly string[]): void =>
    log.warn(
      { event: 'state_unreadable', file: path, parts: names },
      'counts, pauses or other state of an earlier run is unreadable',
    );

  /** False where it is unreadable: what is wrong with one part costs no other. */
  function takes(name: string, kept: Record<string, unknown>): boolean {
    try {
      parts[name]?.restore(kept[name]);
      return true;
    } catch {
      return false;
    }
  }

  return {
    async restore() {
      // An empty state needs no file.
      written = JSON.stringify(snapshot(false));
      try {
        const file = await open(path, 'r');
        const { size } = await file.stat().finally(() => file.close());
        if (size > MAX_OCTETS) throw new Error('too large');
        const kept = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
        const unreadable = Object.keys(parts).filter((name) => !takes(name, kept));
        if (unreadable.length > 0) tellUnreadable(unreadable);
        written = undefined;
      } catch (error) {
        if ((error as { code?: unknown }).code !== 'ENOENT') tellUnreadable(Object.keys(parts));
      }
      isRestored = true;
      if (!isClosed) endSaving = every(clock, SAVE_EVERY_MS, writeNext);
    },
    async save() {
      if (!isRestored || isClosed) return;
      await orAfter(clock, writeNext(), SAVE_WAIT_MS);
    },
    async close() {
      isClosed = true;
      endSaving?.();
      await saving;
      // What was not read must not be written over.
      if (isRestored) await write();
    },
  };
}
