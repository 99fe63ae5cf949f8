/** Logging: the one file that knows pino. JSON lines on stdout or in a file; rooms see only `Log`. */
import { type Logger, pino } from 'pino';
import type { LogLevel } from './log/levels.ts';
import type { LogSink } from './log/sink.ts';
import { isoTime } from './time-text.ts';

/** Structured log; `fields` never contain a secret (secrets are `Secret` or `AccessToken`, which print as such). */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** The process log as the composition root holds it. */
export interface ProcessLog extends Log {
  /** Can be changed while running. */
  level: string;
  isLevelEnabled(level: LogLevel): boolean;
  /** A line whose fields are JSON already: `"key":value,…`. The caller has asked `isLevelEnabled`. */
  line(level: 'info' | 'warn', fields: string, message: string): void;
  /** Lines thrown away because the destination took none. */
  readonly dropped: number;
  /** Lines the destination has not taken yet. */
  readonly waiting: number;
}

/** The process log. */
export function createLog(level: LogLevel, sink: LogSink): ProcessLog {
  const logger: Logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, sink);
  sink.onRecovered = (dropped) =>
    logger.warn(
      { event: 'log_dropped', dropped },
      'the log could not be written for a while; its oldest lines were thrown away',
    );
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    get level() {
      return logger.level;
    },
    set level(next) {
      logger.level = next;
    },
    isLevelEnabled: (asked) => logger.isLevelEnabled(asked),
    line: (at, fields, message) =>
      sink.write(
        `{"level":${logger.levels.values[at]},"time":"${isoTime(Date.now())}",${fields},"msg":${JSON.stringify(message)}}\n`,
      ),
    get dropped() {
      return sink.dropped;
    },
    get waiting() {
      return sink.waiting;
    },
  };
}

/** A log that goes nowhere, for parts used outside a running relay. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };
