/**
 * What a test can make a submission server do: single answers by command (`Script`) and the limits
 * a provider keeps (`SmtpRules`). Pure state; the session asks.
 */
import type { Extension } from './flavour.ts';

/**
 * The moment an action replaces the normal answer. `AUTH` is the verdict on the credentials,
 * `AUTH-command` the answer to the command itself; `BDAT` is each chunk, `end-of-data` the verdict on
 * a whole message, however it came.
 */
export type Stage =
  | 'greeting'
  | 'EHLO'
  | 'STARTTLS'
  | 'AUTH-command'
  | 'AUTH'
  | 'MAIL'
  | 'RCPT'
  | 'DATA'
  | 'BDAT'
  | 'end-of-data'
  | 'RSET'
  | 'NOOP'
  | 'QUIT';

export interface Action {
  /** Waits this long first, ms. */
  readonly delayMs?: number;
  /** Waits for this first; for tests that need to hold an answer without sleeping. */
  readonly until?: Promise<unknown>;
  /** Octets written as they are ahead of the reply. */
  readonly ahead?: string;
  /** Lines of the reply, code included, without CRLF. */
  readonly reply?: string | readonly string[];
  /** Octets written as they are. */
  readonly raw?: string | Buffer;
  /** Then one octet after the other, this far apart, ms, without end: a reply that never is one. */
  readonly dripMs?: number;
  /** Says what would have been said anyway (with `delayMs`, `until` or `after`). */
  readonly normal?: boolean;
  /** The message counts as accepted although nobody is told (`end-of-data`). */
  readonly accept?: boolean;
  /** What happens afterwards; default `continue`. `hang`: never another reply. */
  readonly after?: 'continue' | 'close' | 'reset' | 'hang';
}

export interface Occasion {
  readonly stage: Stage;
  readonly line: string;
  /** Authenticated XOAUTH2 user, or the one that tries. */
  readonly user: string | undefined;
  readonly sender: string | undefined;
  readonly connectionId: number;
}

export interface Matcher {
  readonly user?: string;
  /** Tested against the command line. */
  readonly line?: RegExp;
  readonly sender?: string;
  readonly connectionId?: number;
  /** Any further condition. */
  readonly when?: (occasion: Occasion) => boolean;
  /** Lets this many matching occasions pass first, default 0. */
  readonly skip?: number;
  /** Applies this often, default 1; `Infinity` until removed. */
  readonly times?: number;
}

export interface ScriptEntry {
  /** How often it was applied so far. */
  readonly hits: number;
  remove(): void;
}

export interface Script {
  add(stage: Stage, matcher: Matcher, action: Action): ScriptEntry;
  take(occasion: Occasion): Action | undefined;
  clear(): void;
}

export function createScript(): Script {
  const entries = new Set<{ stage: Stage; matcher: Matcher; action: Action; seen: number; hits: number }>();
  return {
    add(stage, matcher, action) {
      const entry = { stage, matcher, action, seen: 0, hits: 0 };
      entries.add(entry);
      return {
        get hits() {
          return entry.hits;
        },
        remove: () => void entries.delete(entry),
      };
    },
    take(occasion) {
      for (const entry of entries) {
        const { matcher } = entry;
        if (entry.stage !== occasion.stage) continue;
        if (matcher.user !== undefined && matcher.user !== occasion.user) continue;
        if (matcher.sender !== undefined && matcher.sender !== occasion.sender) continue;
        if (matcher.connectionId !== undefined && matcher.connectionId !== occasion.connectionId) continue;
        if (matcher.line !== undefined && !matcher.line.test(occasion.line)) continue;
        if (matcher.when !== undefined && !matcher.when(occasion)) continue;
        entry.seen += 1;
        if (entry.seen <= (matcher.skip ?? 0)) continue;
        entry.hits += 1;
        if (entry.hits >= (matcher.times ?? 1)) entries.delete(entry);
        return entry.action;
      }
      return undefined;
    },
    clear: () => entries.clear(),
  };
}

/** Limits and habits, read at every command: a test may change them while running. All off by default. */
export interface SmtpRules {
  /** Submissions of one mailbox at once; above it the message is refused at the end of DATA. */
  maxConcurrentSubmissions?: number | undefined;
  /** Connections of one mailbox at once, counted at AUTH; above it 421. */
  maxConnectionsPerUser?: number | undefined;
  /** Logins of one user in a minute; above it 454. */
  loginsPerMinute?: number | undefined;
  /** Messages of one user in a minute; above it 421 at MAIL and the connection is dropped. */
  messagesPerMinute?: number | undefined;
  /** Messages of one user in all; then the daily limit's 5xx. */
  messagesPerDay?: number | undefined;
  /** Recipients of one message; above it 452 4.5.3. */
  maxRecipients?: number | undefined;
  /** SIZE advertised and kept, octets; default the flavour's. */
  maxBytes?: number | undefined;
  /** A handshake that resumes a session is cut, as a balancer does whose servers share no keys. */
  cutsResumed?: boolean | undefined;
  /** A connection without a command for this long is closed, ms. */
  idleMs?: number | undefined;
  /** How an idle close is told: a line nobody asked for, the answer to the next command, or a bare FIN. */
  idleStyle?: IdleStyle | undefined;
  /** Older connections get 421 at the next command, ms. */
  maxAgeMs?: number | undefined;
  /** Extensions not offered and not understood. */
  withhold?: readonly Extension[] | undefined;
  /**
   * What becomes of the octets of a BDAT that is refused: thrown away (RFC 3030 §2), run as commands, or
   * run with replies that come late.
   */
  refusedChunk?: 'discarded' | 'run' | 'run_late' | undefined;
  /** A first chunk that declares more is refused as a header too large, as Exchange does, octets. */
  maxHeaderOctets?: number | undefined;
  /** Time between the end of the body and the verdict, ms. */
  deliveryMs?: number | undefined;
}

export type IdleStyle = 'unsolicited' | 'next-command' | 'eof' | 'reset';
