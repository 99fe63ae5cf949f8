/**
 * How one token is obtained: look in the store, take the right to refresh where instances share it,
 * look again, ask the endpoint, keep what must not be lost, hand over. In: an entry. Out: a token or
 * a failure, never a rejection. Owns the counters of requests.
 */
import { Secret } from '../accounts/credential.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { type TokenFailure, unusableAnswer } from '../protocol/token-failure.ts';
import type { TokenGrant } from '../protocol/token-response.ts';
import { AccessToken } from './access-token.ts';
import { silenceAfter } from './failure-book.ts';
import { buildGrantForm, type GrantForm } from './grant-form.ts';
import type { Exchange, TokenEndpoints } from './token-endpoint.ts';
import { storedFrom, type TokenEntry, type TokenOrigin, takeStored, takeToken } from './token-entry.ts';
import type { Lease, TokenStore } from './token-store.ts';

export interface RefreshRequest {
  readonly origin: TokenOrigin;
  /** Number of the flight, `entry.flights` when it began. */
  readonly flight: number;
  /** Ask the endpoint whatever the store has. */
  readonly force: boolean;
}

export type RefreshResult =
  | { readonly ok: true; readonly token: AccessToken }
  | {
      readonly ok: false;
      readonly failure: TokenFailure;
      readonly sent: boolean;
      readonly probeAt: number | undefined;
    };

/** One request to a token endpoint, for metrics. */
export interface RefreshObservation {
  readonly accountId: string;
  readonly provider: string;
  readonly ok: boolean;
  readonly ms: number;
  readonly origin: TokenOrigin;
}

export interface RefreshCounts {
  attempts: number;
  success: number;
  failures: number;
}

export interface Refresher {
  readonly counts: RefreshCounts;
  obtain(entry: TokenEntry, request: RefreshRequest): Promise<RefreshResult>;
  /** Brings the entry's refresh token and `token` into the store; logs where that fails. */
  keep(entry: TokenEntry, token: AccessToken | undefined): Promise<void>;
  close(): void;
}

export interface RefresherDeps {
  readonly endpoints: TokenEndpoints;
  readonly store: TokenStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly onRefresh: (observation: RefreshObservation) => void;
}

/** How long a store that failed is left alone before what it missed is offered again. */
const STORE_RETRY_MS = 10_000;
/** A clock further off than this is worth a warning: assertions live for minutes. */
const CLOCK_WARNING_MS = 2 * 60_000;

/** For nobody: whoever waits asks the entry that took the place. */
const REPLACED: RefreshResult = {
  ok: false,
  failure: unusableAnswer('the account was changed or removed meanwhile'),
  sent: false,
  probeAt: undefined,
};
/** Takes newer refresh tokens from the store, and is not content with an access token. */
const LOOK_ONLY = { force: true } as const;

export function createRefresher(deps: RefresherDeps): Refresher {
  const { endpoints, store, clock, log } = deps;
  const counts: RefreshCounts = { attempts: 0, success: 0, failures: 0 };
  /** Ends of the requests under way, by account and consent. */
  const turns = new Map<string, Promise<RefreshResult>>();
  const unsaved = new Set<TokenEntry>();
  let storeFailing = false;
  let cancelRetry: (() => void) | undefined;
  let clockWarned = false;

  /** Looks into the store; true where a token fresh enough came out of it. */
  async function look(entry: TokenEntry, request: Pick<RefreshRequest, 'force'>): Promise<boolean> {
    try {
      const stored = await store.load(entry.account.id);
      const came = takeStored(entry, stored, clock.now());
      storeAnswered();
      return came && !request.force && entry.freshUntil > clock.now();
    } catch (error) {
      storeFailed(error, 'read');
      return false;
    } finally {
      entry.loaded = true;
    }
  }

  function storeFailed(error: unknown, what: 'read' | 'write' | 'lock'): void {
    const fields = { event: 'token_store_failed', store: store.kind, what, reason: reasonOf(error) };
    if (storeFailing) log.debug(fields, 'token store failed');
    else log.error(fields, 'token store failed: carrying on with what is in memory');
    storeFailing = true;
  }

  function storeAnswered(): void {
    if (storeFailing) log.info({ event: 'token_store_back', store: store.kind }, 'token store answers again');
    storeFailing = false;
  }

  async function keep(entry: TokenEntry, token: AccessToken | undefined): Promise<void> {
    try {
      await store.save(entry.account.id, storedFrom(entry, token));
      unsaved.delete(entry);
      storeAnswered();
    } catch (error) {
      unsaved.add(entry);
      storeFailed(error, 'write');
      cancelRetry ??= clock.after(STORE_RETRY_MS, () => void keepUnsaved());
    }
  }

  /** What the store could not take is brought there once it is back; what others wrote meanwhile counts. */
  async function keepUnsaved(): Promise<void> {
    cancelRetry = undefined;
    for (const entry of [...unsaved]) {
      unsaved.delete(entry);
      if (entry.retired) continue;
      await look(entry, LOOK_ONLY);
      await keep(entry, entry.token);
    }
  }

  async function takeLease(entry: TokenEntry): Promise<Lease | undefined> {
    try {
      return await store.lock?.(entry.account.id);
    } catch (error) {
      storeFailed(error, 'lock');
      return undefined;
    }
  }

  /** What another instance has heard about this credential, so that the provider is not asked twice. */
  async function blockedByOthers(entry: TokenEntry): Promise<TokenFailure | undefined> {
    const block = await store.blockOf?.(entry.account.id).catch(() => undefined);
    const silenceMs = (block?.until ?? 0) - clock.now();
    if (block === undefined || block.fingerprint !== entry.fingerprint || silenceMs <= 0) return undefined;
    const { kind, message, cure } = block;
    return { kind, message, cure, retryAfterMs: silenceMs, scope: 'account' };
  }

  async function tellOthers(entry: TokenEntry, failure: TokenFailure): Promise<void> {
    const { kind, message, cure } = failure;
    const until = clock.now() + silenceAfter(failure);
    if (store.block === undefined || until <= clock.now()) return;
    const { fingerprint } = entry;
    const block = { fingerprint, kind, message, until, ...(cure === undefined ? {} : { cure }) };
    await store.block(entry.account.id, block).catch((error: unknown) => storeFailed(error, 'write'));
  }

  async function ask(entry: TokenEntry, origin: TokenOrigin, offsetMs: number): Promise<Exchange> {
    const { credential, account } = entry;
    let built: GrantForm;
    try {
      built = await buildGrantForm(credential, entry.refreshToken, clock.now() + offsetMs);
    } catch (error) {
      return unsignable(error, clock.now());
    }
    counts.attempts += 1;
    const exchange = await endpoints.exchange(credential.tokenUrl, built.form, built.secrets);
    if (!exchange.sent) {
      counts.attempts -= 1;
      return exchange;
    }
    if (exchange.outcome.ok) counts.success += 1;
    else counts.failures += 1;
    deps.onRefresh({
      accountId: account.id,
      provider: account.provider,
      ok: exchange.outcome.ok,
      ms: exchange.ms,
      origin,
    });
    watchClock(exchange.clockOffsetMs);
    return exchange;
  }

  function watchClock(offsetMs: number | undefined): void {
    if (offsetMs === undefined || clockWarned || Math.abs(offsetMs) < CLOCK_WARNING_MS) return;
    clockWarned = true;
    log.warn(
      { event: 'clock_skew', offset_s: Math.round(offsetMs / 1000) },
      "clock of this host differs from the token endpoint's: set it (NTP)",
    );
  }

  async function accept(
    entry: TokenEntry,
    request: RefreshRequest,
    grant: TokenGrant,
    startedAt: number,
  ): Promise<AccessToken> {
    const token = new AccessToken(grant.accessToken, startedAt + grant.lifetimeMs, startedAt);
    if (grant.notes.length > 0) {
      const fields = { event: 'token_answer_odd', account: entry.account.id, notes: grant.notes };
      log.warn(fields, 'token endpoint sent an odd answer');
    }
    const owner = heirOf(entry);
    if (owner === undefined) return token;
    const held = owner.refreshToken ?? operatorsToken(owner);
    const rotated = grant.refreshToken !== undefined && grant.refreshToken !== held?.reveal();
    if (rotated) {
      owner.refreshToken = new Secret(grant.refreshToken);
      owner.refreshTokenObtainedAt = startedAt;
    }
    const current = (): boolean => !entry.retired && request.flight === entry.flights;
    if (!current()) {
      if (rotated) await keep(owner, owner.token);
      return token;
    }
    const kept = keep(entry, token);
    // A rotated refresh token is durable before its access token is used; other instances read the store.
    if (rotated || unsaved.has(entry) || store.lock !== undefined) await kept;
    if (current()) takeToken(entry, token, request.origin);
    return token;
  }

  /** After its turn: a refresh token is never used twice at once, or a provider that revokes the old one takes both. */
  function obtain(entry: TokenEntry, request: RefreshRequest): Promise<RefreshResult> {
    if (entry.credential.grant !== 'refresh_token') return obtainNow(entry, request);
    const grant = `${entry.account.id} ${entry.grantFingerprint}`;
    const mine = (turns.get(grant) ?? Promise.resolve()).then(() => obtainNow(entry, request));
    turns.set(grant, mine);
    const done = (): void => {
      if (turns.get(grant) === mine) turns.delete(grant);
    };
    mine.then(done, done);
    return mine;
  }

  /** Refused although, meanwhile, a newer refresh token has come from elsewhere. */
  async function hasNewerGrant(
    entry: TokenEntry,
    used: Secret | undefined,
    { outcome }: Exchange,
  ): Promise<boolean> {
    if (outcome.ok || outcome.failure.kind !== 'needs_consent') return false;
    if (store.lock !== undefined) await look(entry, LOOK_ONLY);
    return entry.refreshToken !== used;
  }

  async function obtainNow(entry: TokenEntry, request: RefreshRequest): Promise<RefreshResult> {
    if (entry.retired) return REPLACED;
    const took = (): RefreshResult | undefined =>
      entry.token === undefined ? undefined : { ok: true, token: entry.token };
    const shared = store.lock !== undefined;
    if ((!entry.loaded || shared) && (await look(entry, request))) {
      const result = took();
      if (result !== undefined) return result;
    }
    const lease = shared ? await takeLease(entry) : undefined;
    try {
      // Whoever held the lease before us may have brought the token.
      if (lease !== undefined && (await look(entry, request))) {
        const result = took();
        if (result !== undefined) return result;
      }
      const blocked = request.force ? undefined : await blockedByOthers(entry);
      if (blocked !== undefined) return { ok: false, failure: blocked, sent: false, probeAt: undefined };
      if (entry.retired) return REPLACED;
      const used = entry.refreshToken;
      let exchange = await ask(entry, request.origin, 0);
      const wrongClock = !exchange.outcome.ok && exchange.outcome.failure.kind === 'clock_skew';
      if (wrongClock && exchange.clockOffsetMs !== undefined) {
        exchange = await ask(entry, request.origin, exchange.clockOffsetMs);
      }
      if (await hasNewerGrant(entry, used, exchange)) exchange = await ask(entry, request.origin, 0);
      const { outcome, sent, probeAt, startedAt } = exchange;
      if (!outcome.ok) {
        if (sent) await tellOthers(entry, outcome.failure);
        return { ok: false, failure: outcome.failure, sent, probeAt };
      }
      return { ok: true, token: await accept(entry, request, outcome.grant, startedAt) };
    } finally {
      await lease?.release().catch((error: unknown) => storeFailed(error, 'lock'));
    }
  }

  return {
    counts,
    keep,
    close: () => cancelRetry?.(),
    obtain,
  };
}

/** Who a late answer belongs to: the entry itself, or the one that replaced it with the same consent. */
function heirOf(entry: TokenEntry): TokenEntry | undefined {
  let owner: TokenEntry | undefined = entry;
  while (owner?.retired) owner = owner.successor;
  return owner;
}

function operatorsToken(entry: TokenEntry): Secret | undefined {
  return entry.credential.grant === 'refresh_token' ? entry.credential.refreshToken : undefined;
}

/** A key or certificate that signs nothing: known without asking anybody. */
function unsignable(error: unknown, startedAt: number): Exchange {
  return {
    outcome: {
      ok: false,
      failure: {
        kind: 'app_misconfigured',
        message: `the private key or certificate cannot be used (${reasonOf(error)})`,
        cure: 'give an unencrypted PEM private key and the certificate registered with the app',
        retryAfterMs: undefined,
        scope: 'app',
      },
    },
    sent: false,
    clockOffsetMs: undefined,
    startedAt,
    ms: 0,
    probeAt: undefined,
  };
}

/** The system's or library's code, never its text: a text may quote what it failed on. */
function reasonOf(error: unknown): string {
  if (error instanceof Error) {
    const { code } = error as { code?: unknown };
    return typeof code === 'string' ? code : error.name;
  }
  return 'unknown';
}
