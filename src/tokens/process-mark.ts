/**
 * Which process wrote something, so that another can tell whether it still lives. A process id alone is not
 * enough: ids come again, and containers count their own.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { parseJsonObject } from '../protocol/json-object.ts';

export interface ProcessMark {
  readonly pid: number;
  /** When the process began, by the kernel's count; '' where it does not tell. */
  readonly started: string;
  /** Host, boot and process namespace: only there does the id mean anything. */
  readonly place: string;
}

export interface Processes {
  readonly own: ProcessMark;
  /** Undefined: it runs elsewhere, and cannot be seen from here. */
  isAlive(mark: ProcessMark): boolean | undefined;
}

export function createProcesses(): Processes {
  const place = [
    hostname(),
    tryRead(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()),
    tryRead(() => readlinkSync('/proc/self/ns/pid')),
  ].join(' ');
  return {
    own: { pid: process.pid, started: startOf(process.pid), place },
    isAlive(mark) {
      if (mark.place !== place) return undefined;
      try {
        process.kill(mark.pid, 0);
      } catch (error) {
        if ((error as { code?: string }).code !== 'EPERM') return false;
        // Another user's, whose beginning may be hidden.
        return mark.started === '' || ['', mark.started].includes(startOf(mark.pid));
      }
      return mark.started === '' || startOf(mark.pid) === mark.started;
    },
  };
}

export const formatMark = (mark: ProcessMark, begunAt: number): string =>
  `${JSON.stringify({ ...mark, begunAt })}\n`;

/** Undefined for anything else. */
export function parseMark(text: string): (ProcessMark & { readonly begunAt: number }) | undefined {
  const { pid, started, place, begunAt } = parseJsonObject(text) ?? {};
  return typeof pid === 'number' &&
    Number.isSafeInteger(pid) &&
    pid > 0 &&
    typeof started === 'string' &&
    typeof place === 'string' &&
    typeof begunAt === 'number'
    ? { pid, started, place, begunAt }
    : undefined;
}

/** Field 22 of /proc/PID/stat, counted after the name in brackets, which may hold anything. */
function startOf(pid: number): string {
  const facts = tryRead(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  return facts.slice(facts.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

function tryRead(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}
