/**
 * What the admin room needs from the running relay, and the shapes it answers with. The composition
 * root implements `AdminBackend`; every row is plain JSON with the keys of the published API, so an
 * answer is the row itself. No type here can carry a secret: there is no field for one.
 * Instants are ISO 8601 text in UTC; durations end in `_s` or `_ms`.
 */
import type { AccountStatus } from '../accounts/account.ts';

/** One account as an operator sees it. */
export interface AccountRow {
  readonly id: string;
  readonly email: string;
  readonly provider: string;
  /** By which way mail is to leave. */
  readonly transport: 'smtp' | 'graph' | 'smtp_then_graph';
  /** By which way it leaves now. */
  readonly way: 'smtp' | 'graph';
  readonly status: AccountStatus;
  /** What led to the status, in words; null for `ready`, unless mail leaves by another way than wished. */
  readonly reason: string | null;
  /** Row of docs/troubleshooting.md; null where the reason says it all. */
  readonly cause: string | null;
  /** What the operator should do; null where nobody can do anything. */
  readonly cure: string | null;
  /** When it is tried again. */
  readonly until: string | null;
  /** An operator has drained it: no new transaction until `resume`. */
  readonly drained: boolean;
  /** Of the resource mail leaves by first. */
  readonly token: TokenLife;
  /** One for each resource asked for so far. */
  readonly tokens: readonly ResourceTokenRow[];
  readonly pool: {
    /** Connecting, busy and idle together. */
    readonly size: number;
    readonly idle: number;
    readonly busy: number;
    readonly max: number;
  };
  /** Transactions since start (or since the account was added). */
  readonly messages: { readonly relayed: number; readonly deferred: number; readonly rejected: number };
  /** The last thing that went wrong, in words, also when all is well again. */
  readonly last_error: string | null;
  readonly last_error_at: string | null;
}

export interface TokenLife {
  readonly cached: boolean;
  readonly expires_at: string | null;
  /** May be negative for a token that has run out. */
  readonly expires_in_s: number | null;
  readonly age_s: number | null;
}

export interface ResourceTokenRow extends TokenLife {
  readonly resource: 'smtp' | 'graph' | 'imap';
  readonly status: AccountStatus;
}

/** `GET /admin/accounts/{id}`: the row and its settings. */
export interface AccountDetail extends AccountRow {
  /** XOAUTH2 user. */
  readonly user: string;
  readonly senders: readonly string[];
  /** `starttls://host:587` or `smtps://host:465`. */
  readonly smtp: string;
  /** Microsoft Graph; null where it is not used. By it recipients are not checked and refusals arrive as mail. */
  readonly graph: { readonly url: string; readonly permissions: string; readonly recipients: string } | null;
  readonly max_connections: number;
  readonly messages_per_minute: number | null;
  readonly messages_per_day: number | null;
  readonly max_recipients: number;
}

/** Counts since start. */
export interface TokenTotals {
  readonly cache_hits: number;
  readonly cache_misses: number;
  readonly refresh_attempts: number;
  readonly refresh_success: number;
  readonly refresh_failures: number;
}

/** How one account's token came and is used: beside the row, in `GET /admin/tokens`. */
export interface TokenDetail {
  /** `pre-cache`, `refresh-ahead`, `on-demand`, `renewal`, `operator`, `store` or `accounts-file`; null without one. */
  readonly source: string | null;
  readonly refreshing: boolean;
  readonly next_refresh_at: string | null;
  readonly uses: number;
  readonly last_used_at: string | null;
  /** Since the last success; in words, with the provider's trace id. */
  readonly last_error: string | null;
  readonly last_error_at: string | null;
  /** When the provider gave the refresh token in use; null: it is the operator's own. */
  readonly refresh_token_obtained_at: string | null;
}

/** A circuit breaker: one per token endpoint, one per upstream. */
export interface BreakerRow {
  /** What it guards: a host or URL without query. */
  readonly name: string;
  readonly kind: 'token_endpoint' | 'upstream';
  readonly state: 'closed' | 'open' | 'half_open';
  /** Failures counted in the current window. */
  readonly failures: number;
  /** When it opened last. */
  readonly opened_at: string | null;
  /** When it lets the next attempt through. */
  readonly retry_at: string | null;
}

/** What a reload did. With `ok: false` nothing changed and `errors` say why. */
export interface ReloadResult {
  readonly ok: boolean;
  readonly added: readonly string[];
  readonly changed: readonly string[];
  readonly removed: readonly string[];
  readonly untouched: readonly string[];
  /** Path in the file (`accounts[3].client_id`) and what was expected; single bad accounts do not make `ok` false. */
  readonly errors: readonly { readonly path: string; readonly message: string }[];
}

export interface ListenerFigures {
  /** Client sessions open now. */
  readonly sessions: number;
  /** Client sessions since start. */
  readonly sessions_total: number;
  /** Sessions refused at the door (limits, drain) since start. */
  readonly refused_total: number;
  /** AUTH answered 535 since start. */
  readonly auth_failures_total: number;
  /** Body octets reserved in memory now. */
  readonly held_bytes: number;
  /** Times each limit of the listener was hit since start, by its name. */
  readonly limit_hits: Readonly<Record<string, number>>;
}

export interface Readiness {
  /** The first pre-cache and warm-up round has ended. */
  readonly warmed_up: boolean;
  /** Accounts that could relay a message now. */
  readonly usable: number;
  readonly total: number;
}

export type AdminLogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** The running relay. Queries are synchronous and cheap; actions never reject for an account's trouble. */
export interface AdminBackend {
  /** In the order of the accounts file. */
  accounts(): readonly AccountRow[];
  /** By id, else e-mail; case-insensitive. */
  account(idOrEmail: string): AccountDetail | undefined;
  tokenTotals(): TokenTotals;
  /** Undefined: no such account. */
  tokenDetail(id: string): TokenDetail | undefined;
  /** Accounts that left the accounts file and whose grants are kept for a while. */
  keptRemoved(): readonly { readonly account: string; readonly kept_until: string }[];
  breakers(): readonly BreakerRow[];
  readiness(): Readiness;
  listener(): ListenerFigures;

  /** Fetches a new token now. `ok: false` with the error in words. `id` is an existing account's. */
  refreshToken(
    id: string,
  ): Promise<{ readonly ok: boolean; readonly error?: string; readonly cure?: string }>;
  /** The operator cured something: token and login are tried again now, whatever pause stands. Resolves when that succeeded or failed; `ready` accounts are left alone. */
  retry(id: string): Promise<void>;
  /** Drops the cached token; true if there was one. The next message fetches another. */
  forgetToken(id: string): boolean | Promise<boolean>;
  /** No new transaction for this account (451), connections are closed as they fall idle. Idempotent. */
  drain(id: string): void | Promise<void>;
  resume(id: string): void | Promise<void>;
  reload(): Promise<ReloadResult>;
  setLogLevel(level: AdminLogLevel): void;
  /** Log lines thrown away since the start because the destination took none. */
  logDropped(): number;
}

/** A finished token fetch, for metrics. */
export interface RefreshObservation {
  readonly account: string;
  readonly provider: string;
  /** `success`, else the error code (closed set of the token room). */
  readonly result: string;
  readonly durationMs: number;
}

/** A wait or refusal by one of our own limits, for metrics. */
/** A request to Microsoft Graph that ended. */
export interface GraphCallObservation {
  readonly call: string;
  /** Status, or why there was none. */
  readonly outcome: string;
  readonly ms: number;
}

export interface LimitObservation {
  readonly account: string;
  readonly limit: 'messages_per_minute' | 'messages_per_day' | 'messages_at_once';
  readonly waitedMs: number;
  readonly refused: boolean;
}
