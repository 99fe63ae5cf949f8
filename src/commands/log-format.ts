/**
 * The log for people. In: JSON lines as the relay writes them, or anything else. Out: the same in words and colours,
 * with nothing in it that steers a terminal. Pure.
 */

import { isRecord } from '../protocol/json-object.ts';
import { cleanText } from '../protocol/text.ts';
import type { Outcome } from '../protocol/vocabulary.ts';
import type { Paint } from './terminal.ts';

/** Longer than any line of ours. */
const MAX_LINE = 64 * 1024;

const LEVELS: Readonly<Record<number, readonly [name: string, colour: keyof Paint]>> = {
  20: ['DEBUG', 'dim'],
  30: ['INFO', 'green'],
  40: ['WARN', 'yellow'],
  50: ['ERROR', 'red'],
};

export interface LogFormat {
  readonly paint: Paint;
  /** The date, too: for a log that is read later. */
  readonly withDate: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** One line in, one or more out, each with its line end. Never throws. */
export function createLogFormat({ paint, withDate }: LogFormat): (line: string) => string {
  return (line) => {
    const fields = parseLine(line);
    if (fields === undefined) return `${cleanText(line.trimEnd(), MAX_LINE)}\n`;
    const { level, time, msg, event, ...rest } = fields;
    const [name, colour] = LEVELS[Number(level)] ?? ['', 'dim'];
    const when = formatTime(String(time ?? ''), withDate);
    const start = `${paint.dim(withDate ? `[${when}]` : when)} ${paint[colour](name.padEnd(5))}`;
    if (!withDate && (event === 'listening' || event === 'ready'))
      return `${[start, describeStart(paint, fields)].join(' ')}\n`;
    if (event === 'transaction') return `${start} ${describeTransaction(paint, fields)}\n`;
    // Its sentence has everything that its fields have.
    if (event === 'attention') return `${start} ${msg}\n`;
    const { cure, ...others } = rest;
    const lines = [`${start} ${msg ?? ''}${formatFields(paint, others)}`];
    if (typeof cure === 'string')
      lines.push(`${' '.repeat(when.length + (withDate ? 2 : 0))} ${'cure'.padStart(5)} ${cure}`);
    return `${lines.join('\n')}\n`;
  };
}

function parseLine(line: string): Fields | undefined {
  try {
    // Escaped in the JSON it is harmless, shown it would not be.
    const value: unknown = JSON.parse(line, (_key, part: unknown) =>
      typeof part === 'string' ? cleanText(part, MAX_LINE) : part,
    );
    return isRecord(value) && 'level' in value ? value : undefined;
  } catch {
    return undefined;
  }
}

/** In local time, as a person has it on the wall. */
function formatTime(iso: string, withDate: boolean): string {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return iso;
  const two = (n: number): string => String(n).padStart(2, '0');
  const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(':');
  return withDate ? `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}` : clock;
}

function formatFields(paint: Paint, fields: Fields): string {
  const parts = Object.entries(fields).map(([key, value]) => {
    const text = typeof value === 'string' ? value : cleanText(JSON.stringify(value), MAX_LINE);
    return `${paint.dim(`${cleanText(key)}=`)}${/\s/.test(text) ? JSON.stringify(text) : text}`;
  });
  return parts.length === 0 ? '' : ` ${parts.join(' ')}`;
}

/** Addresses, dashboard, how many can send. */
export function describeStart(paint: Paint, fields: Fields): string {
  if (fields.event === 'ready') {
    const { accounts, usable, ms } = fields;
    const isAll = usable === accounts;
    const words = `${usable} of ${accounts} ${accounts === 1 ? 'account' : 'accounts'} can send`;
    return `${paint.bold('ready')}: ${(isAll ? paint.green : paint.yellow)(words)} after ${Number(ms) / 1000} s${isAll ? '' : ' (xoauth2-relay status names the others)'}`;
  }
  const listeners = Array.isArray(fields.listeners) ? (fields.listeners as readonly unknown[]) : [];
  return [
    `${paint.bold('listening')}: xoauth2-relay ${fields.version}, process ${fields.pid}`,
    ...listeners.map((address) => `           SMTP       ${paint.bold(formatAddress(address))}`),
    `           dashboard  ${paint.bold(`http://${formatAddress(fields.admin)}/`)}`,
  ].join('\n');
}

/** `127.0.0.1:2525`, `[::1]:2525` or the path of a socket. */
function formatAddress(address: unknown): string {
  const { host, port, path } = (address ?? {}) as { host?: string; port?: number; path?: string };
  if (path !== undefined) return path;
  return `${host?.includes(':') ? `[${host}]` : host}:${port}`;
}

const OUTCOME_COLOURS: Readonly<Record<string, keyof Paint>> = {
  relayed: 'green',
  deferred: 'yellow',
  rejected: 'red',
  unknown: 'red',
} satisfies Partial<Record<Outcome, keyof Paint>>;

function describeTransaction(paint: Paint, fields: Fields): string {
  const { account, sender, recipients, recipient_count: count, bytes, outcome, reply, timings } = fields;
  const first = Array.isArray(recipients) ? String(recipients[0] ?? '') : '';
  const more = Number(count) > 1 ? ` and ${Number(count) - 1} more` : '';
  const { code, enhanced, text } = (reply ?? {}) as Fields;
  const { total_ms: ms } = (timings ?? {}) as Fields;
  const said = [code, enhanced, text].filter((part) => part !== undefined && part !== null).join(' ');
  return [
    paint[OUTCOME_COLOURS[String(outcome)] ?? 'dim'](String(outcome)),
    `${sender === '' ? '<>' : sender}${first === '' ? '' : ` → ${first}${more}`}`,
    paint.dim(`by ${account}, ${formatSize(Number(bytes))}, ${Math.round(Number(ms))} ms:`),
    said,
  ].join(' ');
}

const formatSize = (bytes: number): string =>
  bytes < 1000
    ? `${bytes} B`
    : bytes < 1_000_000
      ? `${(bytes / 1000).toFixed(1)} kB`
      : `${(bytes / 1_000_000).toFixed(1)} MB`;
