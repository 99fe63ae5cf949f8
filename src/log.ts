/** Logging: the one file that knows pino. JSON lines on stdout; rooms see only `Log`. */
import { type DestinationStream, type Logger, pino } from 'pino';

/** Structured log; `fields` never contain a secret (secrets are `Secret` or `AccessToken`, which print as such). */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** The process log as the composition root holds it. */
export type ProcessLog = Logger;

/** The process log. `level` can be changed while running. Standard output by default, written synchronously: a line before a crash is a line on disk. */
export function createLog(level: LogLevel, destination: DestinationStream = pino.destination(1)): ProcessLog {
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination);
}

/** A log that goes nowhere, for parts used outside a running relay. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };
