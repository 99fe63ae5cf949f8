/**
 * What the admin room needs from the running relay; the composition root implements it. Rows are those of
 * shapes.ts, so an answer is the row itself.
 */
import type {
  AccountDetail,
  AccountRow,
  BreakerRow,
  FleetView,
  ReloadResult,
  Shape,
  SignInRow,
  TokenDetail,
  TokenTotals,
  UnclearRow,
} from './shapes.ts';

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

export type Readiness = Omit<Shape<'Readiness'>, 'ready'>;

export type AdminLogLevel = Shape<'LogLevel'>['level'];

export type SignInWay = Shape<'SignInWay'>['way'];

/** What came of a wish: a row, or why not, in words. */
export type SignInAnswer =
  | { readonly ok: true; readonly row: SignInRow }
  | { readonly ok: false; readonly error: string };

/** Where people sign in to mailboxes. Never rejects for what an operator can cure. */
export interface SignInDesk {
  /** The row of `look` has neither address nor code. */
  look(id: string): Promise<SignInAnswer>;
  /** `origin`: scheme and host under which the page was opened. `isInvited`: the key with which it begins is good still. */
  begin(id: string, way: SignInWay, origin: string, isInvited?: () => boolean): Promise<SignInAnswer>;
  add(account: Omit<Shape<'NewAccount'>, 'way'>, way: SignInWay, origin: string): Promise<SignInAnswer>;
  paste(id: string, url: string): Promise<SignInAnswer>;
  /** The row as it is then: nothing is under way. */
  cancel(id: string): SignInRow;
  /** A browser came back from a sign-in page; false: from none of ours. */
  returned(query: URLSearchParams): boolean;
  /** A key for one sign-in within a day. */
  invite(id: string): Promise<{ readonly key: string; readonly until: string }>;
  /** Whom a key invites; undefined: nobody, or its day is over. */
  invited(key: string): { readonly account: string; readonly state: 'open' | 'used' } | undefined;
}

/** What metrics tell of an account, a part of its row. */
export interface AccountGauges extends Pick<AccountRow, 'id' | 'provider' | 'status' | 'drained' | 'pool'> {
  readonly token: Pick<AccountRow['token'], 'cached' | 'expires_in_s'>;
}

/** Which rows are wanted; none is built that is not. */
export interface RowsAsked {
  /** Id of the first account. */
  readonly from: string | undefined;
  readonly fits: (account: Pick<AccountRow, 'id' | 'email' | 'provider'>) => boolean;
}

/** The running relay. Queries are synchronous and cheap; actions never reject for an account's trouble. */
export interface AdminBackend {
  /** In the order of the accounts file, each built as it is come to: thousands are gone through in slices. */
  rows(): Iterable<AccountRow>;
  /** As `rows`, for less. */
  gauges(): Iterable<AccountGauges>;
  /** As `rows`, with undefined in place of what is not wanted: each is a moment to rest. */
  search(asked: RowsAsked): Iterable<AccountRow | undefined>;
  /** By id. */
  row(id: string): AccountRow | undefined;
  /** `row(id).status`, for less; `ready` where there is no such account. */
  status(id: string): AccountRow['status'];
  /** By id, else e-mail; case-insensitive. */
  account(idOrEmail: string): AccountDetail | undefined;
  tokenTotals(): TokenTotals;
  /** Undefined: no such account. */
  tokenDetail(id: string): TokenDetail | undefined;
  /** Accounts that left the accounts file and whose grants are kept for a while. */
  keptRemoved(): readonly { readonly account: string; readonly kept_until: string }[];
  breakers(): readonly BreakerRow[];
  /** The relays seen last, this one among them. */
  fleet(): FleetView;
  /** Warmed up, and an account is usable. */
  isReady(): boolean;
  readiness(): Promise<Readiness>;
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
  /** Messages of which nobody knows whether they were sent. Rejects where it cannot be known. */
  unclear(): Promise<readonly UnclearRow[]>;
  /** What a person says became of one of them. Rejects where it cannot be noted. */
  decide(key: string, decision: 'delivered' | 'again'): Promise<'done' | 'none' | 'busy'>;
  reload(): Promise<ReloadResult>;
  readonly signIns: SignInDesk;
  /** Uses an access token that somebody brought. `ok: false` with the error in words. */
  giveToken(
    id: string,
    token: { readonly accessToken: string; readonly expiresInS: number },
  ): Promise<{ readonly ok: boolean; readonly error?: string }>;
  /** Takes the account out of the accounts file. `ok: false` with the error in words. */
  removeAccount(id: string): Promise<{ readonly ok: boolean; readonly error?: string }>;
  setLogLevel(level: AdminLogLevel): void;
  /** Log lines thrown away since the start because the destination took none. */
  logDropped(): number;
  logWaiting(): number;
}

/** A finished token fetch, for metrics. */
export interface RefreshObservation {
  readonly account: string;
  readonly provider: string;
  /** `success`, else the error code (closed set of the token room). */
  readonly result: string;
  readonly durationMs: number;
}

/** A request to Microsoft Graph that ended. */
export interface GraphCallObservation {
  readonly call: string;
  /** Status, or why there was none. */
  readonly outcome: string;
  readonly ms: number;
}

/** A wait or refusal by one of our own limits, for metrics. */
export interface LimitObservation {
  readonly account: string;
  readonly limit: 'messages_per_minute' | 'messages_per_day' | 'messages_at_once';
  readonly waitedMs: number;
  readonly refused: boolean;
}
