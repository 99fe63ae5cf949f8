/**
 * What accounts have used of their limits, kept in a file over a restart. In: a limiter and a path. Out: the
 * limiter filled at the start, the file written now and then and at the end. A file that cannot be read or
 * written costs the counts, never a message.
 */
import { open, readFile, rename, unlink } from 'node:fs/promises';
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { LedgerSnapshot } from './ledger.ts';
import type { LimitsSnapshot, LocalLimiter } from './limits.ts';

/** A crash forgets at most this much of what was sent, ms. */
const SAVE_EVERY_MS = 10_000;
const MAX_OCTETS = 64 * 1_048_576;

const isCount = (value: unknown): value is number => typeof value === 'number' && value >= 0;

function isLedger(value: unknown): value is LedgerSnapshot {
  if (typeof value !== 'object' || value === null) return false;
  const { at, sent, day } = value as Partial<Record<keyof LedgerSnapshot, unknown>>;
  return (
    isCount(at) &&
    Array.isArray(sent) &&
    sent.every(isCount) &&
    typeof day === 'object' &&
    day !== null &&
    Object.entries(day).every(([field, count]) => /^[mr]\d+$/.test(field) && isCount(count))
  );
}

/** Throws where it is no snapshot. */
function parseSnapshot(text: string): LimitsSnapshot {
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'object' || value === null || !Object.values(value).every(isLedger))
    throw new Error('no counts');
  return value as LimitsSnapshot;
}

export interface KeptLimits {
  /** Reads what an earlier process left; never rejects. */
  restore(): Promise<void>;
  /** Writes a last time. */
  close(): Promise<void>;
}

export function createKeptLimits(
  limiter: LocalLimiter,
  path: string,
  deps: { readonly log: Log; readonly clock?: Clock },
): KeptLimits {
  const { log, clock = systemClock } = deps;
  let written = '';
  let saving: Promise<void> = Promise.resolve();
  let cancel: (() => void) | undefined;
  let hasFailed = false;

  async function save(): Promise<void> {
    const text = JSON.stringify(limiter.snapshot());
    if (text === written || (text === '{}' && written === '')) return;
    const half = `${path}.${process.pid}.tmp`;
    try {
      await unlink(half).catch(() => undefined);
      const file = await open(half, 'wx', 0o600);
      try {
        await file.writeFile(text);
      } finally {
        await file.close();
      }
      await rename(half, path);
      written = text;
      hasFailed = false;
    } catch (error) {
      if (!hasFailed)
        log.warn(
          { event: 'limits_not_kept', file: path, reason: (error as Error).message },
          'what accounts have sent cannot be kept: a restart would forget it',
        );
      hasFailed = true;
    }
  }

  function later(): void {
    cancel = clock.after(SAVE_EVERY_MS, () => {
      saving = save().then(later);
    });
  }

  return {
    async restore() {
      try {
        const file = await open(path, 'r');
        const { size } = await file.stat().finally(() => file.close());
        if (size > MAX_OCTETS) throw new Error('too large');
        limiter.restore(parseSnapshot(await readFile(path, 'utf8')));
      } catch (error) {
        if ((error as { code?: unknown }).code !== 'ENOENT')
          log.warn({ event: 'limits_unreadable', file: path }, 'counts of an earlier run cannot be read');
      }
      later();
    },
    async close() {
      cancel?.();
      await saving;
      cancel?.();
      await save();
    },
  };
}
