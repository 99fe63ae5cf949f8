/**
 * The way by SMTP: warm authenticated connections, live verdicts on recipients, bodies of any size. In:
 * accounts' pools and tokens. Out: ways. A cached token or a live connection makes it ready at once.
 */
import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Reply } from '../protocol/reply.ts';
import { judge } from '../protocol/verdict.ts';
import { TokenError, type TokenSource } from '../tokens/access-token.ts';
import { asUpstreamError } from './failure.ts';
import { createSmtpDelivery } from './smtp-delivery.ts';
import type { AccountUpstream, Upstreams } from './upstream.ts';
import type { Way, Ways } from './way.ts';

export interface SmtpWaysDeps {
  readonly upstreams: Upstreams;
  readonly tokens: TokenSource;
  readonly log: Log;
  readonly clock?: Clock;
  /** 0 to 1; default Math.random. */
  readonly random?: () => number;
}

export interface SmtpWaysOptions {
  /** How long a message waits in all for a provider that takes too many of this account at once, ms. */
  readonly busyWaitMs: number;
}

export function createSmtpWays(deps: SmtpWaysDeps, options: SmtpWaysOptions): Ways {
  const { tokens, log, clock = systemClock, random = Math.random } = deps;
  const ways = new WeakMap<AccountUpstream, Way>();

  function tokenRefusal(error: unknown, account: string): Reply {
    if (error instanceof TokenError)
      return judge({
        kind: 'token',
        code: error.code,
        account,
        detail: error.message,
        retryAt: error.retryAt,
      }).answer;
    log.error({ err: error, account }, 'fetching a token failed unexpectedly');
    return judge({ kind: 'local', cause: 'internal' }).answer;
  }

  function createWay(upstream: AccountUpstream): Way {
    const { account } = upstream;
    return {
      account,
      facts: {
        recipients: 'live',
        body: 'streams',
        nullSender: 'passes',
        get maxBytes() {
          return upstream.capabilities?.size || account.limits.maxBytes;
        },
        get capabilities() {
          return upstream.capabilities;
        },
      },
      async ready() {
        const paused = upstream.health.gate('sending', clock.now());
        if (paused !== undefined) return paused.answer;
        if (tokens.peek(account.id) === undefined) {
          try {
            await tokens.get(account.id);
          } catch (error) {
            // A connection that is authenticated already needs no token.
            if (upstream.live === 0) return tokenRefusal(error, account.id);
          }
        }
        if (upstream.live === 0) {
          try {
            await upstream.ensureConnected();
          } catch (error) {
            return asUpstreamError(error).verdict.answer;
          }
        }
        return undefined;
      },
      begin: (trace) => createSmtpDelivery({ upstream, trace, log, clock, random }, options),
    };
  }

  return {
    of(accountId) {
      const upstream = deps.upstreams.of(accountId);
      if (upstream === undefined) return undefined;
      let way = ways.get(upstream);
      if (way === undefined) {
        way = createWay(upstream);
        ways.set(upstream, way);
      }
      return way;
    },
  };
}
