/**
 * The way by SMTP: warm authenticated connections, live verdicts on recipients, bodies of any size. In:
 * accounts' pools. Out: ways. A live connection makes it ready at once.
 */

import { type Clock, systemClock } from '../clock.ts';
import type { Log } from '../log.ts';
import { orMake } from '../or-make.ts';
import type { AccountUpstream } from './account-upstream.ts';
import { asUpstreamError } from './failure.ts';
import { SmtpDelivery } from './smtp-delivery.ts';
import type { Upstreams } from './upstream.ts';
import type { Way } from './way.ts';

export interface SmtpWaysDeps {
  readonly upstreams: Upstreams;
  readonly log: Log;
  readonly clock?: Clock;
  /** 0 to 1; default Math.random. */
  readonly random?: () => number;
}

export interface SmtpWaysOptions {
  /** How long a message waits in all for a provider that takes too many of this account at once, ms. */
  readonly busyWaitMs: number;
}

export interface SmtpWays {
  /** The way of an account that is served; undefined for any other. */
  of(accountId: string): Way | undefined;
}

export function createSmtpWays(deps: SmtpWaysDeps, options: SmtpWaysOptions): SmtpWays {
  const { log, clock = systemClock, random = Math.random } = deps;
  const ways = new WeakMap<AccountUpstream, Way>();

  function createWay(upstream: AccountUpstream): Way {
    return {
      get account() {
        return upstream.account;
      },
      facts: {
        recipients: 'live',
        body: 'streams',
        withoutDomain: 'passes',
        get maxBytes() {
          return upstream.capabilities?.size || upstream.account.limits.maxBytes;
        },
        get capabilities() {
          return upstream.capabilities;
        },
      },
      ready() {
        const paused = upstream.health.gate('sending');
        if (paused !== undefined) return paused.answer;
        // What is authenticated already needs no token; opening a connection asks for one.
        if (upstream.live > 0) return undefined;
        return upstream.ensureConnected().then(
          () => undefined,
          (error: unknown) => asUpstreamError(error).verdict.answer,
        );
      },
      begin: (trace, mayBegin) =>
        new SmtpDelivery({ upstream, trace, mayBegin, log, clock, random }, options),
    };
  }

  return {
    of(accountId) {
      const upstream = deps.upstreams.of(accountId);
      return upstream && orMake(ways, upstream, () => createWay(upstream));
    },
  };
}
