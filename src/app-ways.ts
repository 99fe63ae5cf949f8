/**
 * The ways mail leaves by, with what they need: connections to Graph, the ledger of what was sent by it,
 * SMTP and Graph behind one seam. In: tokens, upstreams. Out: the ways, and what is to be closed.
 */
import type { GraphCallObservation } from './admin/backend.ts';
import { type Clock, systemClock } from './clock.ts';
import type { Settings } from './config.ts';
import { createHttp } from './http.ts';
import type { Log } from './log.ts';
import type { UnclearNews } from './protocol/unclear-news.ts';
import { KEY_PREFIX, type RedisConnection } from './redis.ts';
import type { TokenSource } from './tokens/access-token.ts';
import { createGraphWays } from './upstream/graph/graph-way.ts';
import { createLocalLedger } from './upstream/graph/ledger-local.ts';
import { createRedisLedger } from './upstream/graph/ledger-redis.ts';
import { createUnclearMessages, type UnclearMessages } from './upstream/graph/unclear-messages.ts';
import { createPauses, type Pauses } from './upstream/pauses.ts';
import { createSmtpWays } from './upstream/smtp-way.ts';
import type { Upstreams } from './upstream/upstream.ts';
import { type AccountWays, createAccountWays } from './upstream/ways.ts';

export interface AppWaysDeps {
  readonly settings: Settings;
  readonly log: Log;
  readonly clock?: Clock;
  readonly redis: RedisConnection | undefined;
  readonly tokens: TokenSource;
  readonly upstreams: Upstreams;
  readonly onCall: (call: GraphCallObservation) => void;
  readonly onStateChange: (accountId: string) => void;
  /** A message waits for a person. */
  readonly onPerson: (news: UnclearNews) => void;
  /** Graph asked to leave the account's mailbox alone for so long. */
  readonly onGraphRest: (accountId: string, ms: number) => void;
  /** Mail of the account is on its way. */
  readonly onAsked: (accountId: string) => void;
}

export interface AppWays {
  readonly ways: AccountWays;
  readonly pauses: Pauses;
  readonly unclear: UnclearMessages;
  /** The last first. */
  readonly closers: readonly { close(): Promise<void> }[];
}

export function createAppWays(deps: AppWaysDeps): AppWays {
  const { settings, upstreams, redis, log, clock = systemClock } = deps;
  const http = createHttp({ connectTimeoutMs: settings.connectTimeoutMs }, clock);
  const keepsFiles = settings.store === undefined || settings.store.reveal() === 'file';
  const directory = keepsFiles ? settings.stateDir : undefined;
  // The connection to Redis is the token store's, which closes it.
  const ledger =
    redis === undefined
      ? createLocalLedger({ log, clock, directory })
      : { ...createRedisLedger(redis, KEY_PREFIX, clock), close: async () => {} };
  const graph = createGraphWays({ ...deps, http, ledger, clock, onRest: deps.onGraphRest });
  const smtp = createSmtpWays({ ...deps, clock }, { busyWaitMs: settings.submissionRetryMs });
  const ways = createAccountWays({ ...deps, smtp, graph });
  return {
    ways,
    pauses: createPauses(upstreams, graph.pauses),
    unclear: createUnclearMessages(ledger, clock, graph.canLook),
    closers: [http, ledger, ways],
  };
}
