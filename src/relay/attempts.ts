/**
 * Talking to the upstream until a transaction is decided. In: what is to be said on a connection. Out:
 * what came of it, or the verdict. Owns the one replay of a stale connection, the waiting for a busy
 * provider, and the figures of it all.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Reply } from '../protocol/reply.ts';
import { judge, type Verdict } from '../protocol/verdict.ts';
import { asUpstreamError, UpstreamError } from '../upstream/failure.ts';
import type { Lease } from '../upstream/pool.ts';
import { type Decision, isHeaderMiscount, isUnknownCommand, Submission } from '../upstream/submission.ts';
import type { AccountUpstream } from '../upstream/upstream.ts';

/** Pause before a message is offered again to a provider that is busy with this account. */
const BUSY_PAUSE_MS = { least: 1_000, most: 5_000 };

/** A connection on lease, with the dialogue on it. */
export interface Open {
  readonly lease: Lease;
  readonly submission: Submission;
}

export type Attempt<T> = { readonly ok: T; readonly open: Open } | { readonly verdict: Verdict };

/** What was seen of the upstream so far; times in ms. */
export interface AttemptFigures {
  readonly flights: number;
  readonly reused: boolean;
  readonly replayed: boolean;
  readonly connection: string | undefined;
  /** The refusal or acceptance that decided; undefined while the upstream decided nothing. */
  readonly upstreamReply: Reply | undefined;
  readonly acquireMs: number;
  readonly upstreamMs: number;
}

export interface Attempts {
  /**
   * Runs `talk` on a connection (`begun`, else a fresh lease) until it is decided. `talk` answers what
   * refused it, if anything. A stale connection is replaced and `talk` replayed once; a provider busy
   * with this account is waited for. Never rejects.
   */
  run<T extends { readonly refusal: Decision | undefined }>(
    talk: (submission: Submission) => Promise<T>,
    begun?: Open,
  ): Promise<Attempt<T>>;
  /** The verdict on a decision of the upstream, which becomes the deciding reply. */
  judge(decision: Decision, submission: Submission): Verdict;
  /** The verdict on an error; errors of ours are reported. */
  verdictOf(error: unknown): Verdict;
  /** The upstream took the message with this reply. */
  taken(reply: Reply): void;
  figures(): AttemptFigures;
}

export interface AttemptsDeps {
  readonly upstream: AccountUpstream;
  readonly sender: string;
  /** The client left while its message waits to be sent: nobody would hear the 250, so it is not sent. */
  readonly isClientGone: () => boolean;
  /** An error of ours, not of the upstream. */
  readonly onInternalError: (error: unknown) => void;
}

/** `busyWaitMs`: how long a message waits in all for a provider that takes too many of this account at once. */
export function createAttempts(deps: AttemptsDeps, options: { readonly busyWaitMs: number }): Attempts {
  const { upstream } = deps;
  const { account } = upstream;
  const count = { flights: 0 };
  let reused = false;
  /** When it was replayed, monotonic; 0: not. */
  let replayedAt = 0;
  let connection: string | undefined;
  let upstreamReply: Reply | undefined;
  let acquireMs = 0;
  let upstreamStartedAt = 0;

  function verdictOf(error: unknown): Verdict {
    if (!(error instanceof UpstreamError)) deps.onInternalError(error);
    return asUpstreamError(error).verdict;
  }

  function judgeDecision({ stage, reply: r }: Decision, submission: Submission): Verdict {
    upstreamReply = r;
    return judge({
      kind: 'reply',
      stage,
      reply: r,
      reused: submission.reused,
      account: account.id,
      sender: deps.sender,
    });
  }

  /** A connection; with `openedAfter` one that is younger (monotonic). */
  async function acquire(openedAfter: number): Promise<Open> {
    const startedAt = performance.now();
    try {
      let lease = await upstream.acquire();
      // After a stale connection those opened before are as likely gone: take a new one.
      for (
        let i = account.limits.maxConnections;
        performance.now() - lease.connection.ageMs < openedAfter && i > 0;
        i--
      ) {
        lease.connection.destroy();
        lease.release();
        lease = await upstream.acquire();
      }
      connection = lease.connection.id;
      const submission = new Submission(lease.connection, upstream.mayUseBdat(lease.connection), count);
      reused = submission.reused;
      return { lease, submission };
    } finally {
      acquireMs += performance.now() - startedAt;
    }
  }

  async function run<T extends { readonly refusal: Decision | undefined }>(
    talk: (submission: Submission) => Promise<T>,
    begun?: Open,
  ): Promise<Attempt<T>> {
    const busyUntil = Date.now() + options.busyWaitMs;
    let next = begun;
    for (;;) {
      let current = next;
      next = undefined;
      let verdict: Verdict;
      try {
        current ??= await acquire(replayedAt);
        if (deps.isClientGone()) throw new UpstreamError({ kind: 'local', cause: 'client_gone' });
        if (upstreamStartedAt === 0) upstreamStartedAt = performance.now();
        const ok = await talk(current.submission);
        if (ok.refusal === undefined) return { ok, open: current };
        verdict = judgeDecision(ok.refusal, current.submission);
        if (
          current.submission.usesBdat &&
          ok.refusal.stage === 'end' &&
          (isUnknownCommand(ok.refusal.reply) || isHeaderMiscount(ok.refusal.reply))
        ) {
          // It offered CHUNKING and took the body for commands: never again, and not on this connection.
          upstream.refuseBdat(current.lease.connection);
          current.lease.connection.destroy();
          current.lease.release();
          if (replayedAt > 0) return { verdict };
          replayedAt = performance.now();
          continue;
        }
      } catch (error) {
        verdict = verdictOf(error);
      }
      // Stale or out of step: whatever it would say next is worth nothing.
      if (verdict.retry === 'fresh') current?.lease.connection.destroy();
      current?.lease.release();
      const again = verdict.retry === 'fresh' && replayedAt === 0 && current !== undefined;
      if (!again && current !== undefined) upstream.report(verdict);
      if (again) {
        replayedAt = performance.now();
        upstreamReply = undefined;
        continue;
      }
      if (verdict.retry !== 'wait' || Date.now() >= busyUntil) return { verdict };
      await delay(BUSY_PAUSE_MS.least + Math.random() * (BUSY_PAUSE_MS.most - BUSY_PAUSE_MS.least));
    }
  }

  return {
    run,
    judge: judgeDecision,
    verdictOf,
    taken: (r) => {
      upstreamReply = r;
    },
    figures: () => ({
      flights: count.flights,
      reused,
      replayed: replayedAt > 0,
      connection,
      upstreamReply,
      acquireMs,
      upstreamMs: upstreamStartedAt === 0 ? 0 : performance.now() - upstreamStartedAt,
    }),
  };
}
