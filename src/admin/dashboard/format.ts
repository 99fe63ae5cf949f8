/** Values → the words and numbers the page shows. Pure. */
import type { AccountStatus, Outcome, ShownStatus } from '../../protocol/vocabulary.ts';

export const STATUS_WORDS: Readonly<Record<AccountStatus, string>> = {
  ready: 'Ready',
  refreshing: 'Refreshing',
  throttled: 'Throttled',
  needs_consent: 'Needs sign-in',
  misconfigured: 'Misconfigured',
  unreachable: 'Unreachable',
};

export const SHOWN_WORDS: Readonly<Record<ShownStatus, string>> = { ...STATUS_WORDS, drained: 'Drained' };

export const OUTCOME_WORDS: Readonly<Record<Outcome, string>> = {
  relayed: 'Relayed',
  deferred: 'Deferred',
  rejected: 'Rejected',
  aborted: 'Aborted',
  unknown: 'Unknown',
};

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

export const formatCount = (n: number): string => grouped.format(n);

/** Two significant digits below ten: `0.4`, `7.5`, `128`. */
export const formatRate = (n: number): string => (n === 0 ? '0' : n < 10 ? n.toFixed(1) : grouped.format(n));

export const formatShare = (part: number, whole: number): string =>
  whole === 0 ? '–' : `${(Math.floor((part / whole) * 1000) / 10).toFixed(part === whole ? 0 : 1)} %`;

export const formatClock = (iso: string): string => clock.format(new Date(iso));

/** `850 µs`, `42 ms`, `1.3 s`, `2 min`. */
export function formatMs(ms: number): string {
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** A remaining life: `58 min`, `4 min 10 s`, `12 s`. */
export function formatLife(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, '0')} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} days`;
}

/** `just now`, `3 min ago`. */
export function formatAgo(seconds: number): string {
  return seconds < 5
    ? 'just now'
    : `${formatLife(seconds >= 60 && seconds < 600 ? Math.floor(seconds / 60) * 60 : seconds).replace(/ 00 s$/, '')} ago`;
}

export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(bytes < 10_000 ? 1 : 0)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}
