/**
 * Delivery by Graph against the simulated server, without listener and relay. In: a message and its
 * recipients. Out: the delivery, and what the server saw. `restart` is a new process with the same ledger.
 */
import type { Clock } from '../../src/clock.ts';
import { createHttp } from '../../src/http.ts';
import { silentLog } from '../../src/log.ts';
import type { Heard } from '../../src/protocol/esmtp.ts';
import { addressMessage } from '../../src/protocol/graph-addressing.ts';
import { createWatch } from '../../src/protocol/masking.ts';
import { AccessToken, TokenError, type TokenSource } from '../../src/tokens/access-token.ts';
import { createEndpoint, type UpstreamEndpoint } from '../../src/upstream/endpoint.ts';
import { createAttempts } from '../../src/upstream/graph/attempts.ts';
import {
  createGraphClient,
  type GraphCallObservation,
  type GraphClient,
  type GraphClientOptions,
} from '../../src/upstream/graph/client.ts';
import { createGraphDelivery } from '../../src/upstream/graph/delivery.ts';
import { createHandover } from '../../src/upstream/graph/handover.ts';
import { hashOf, type Ledger } from '../../src/upstream/graph/ledger.ts';
import { createLocalLedger } from '../../src/upstream/graph/ledger-local.ts';
import { type GraphEnding, setOf } from '../../src/upstream/graph/outcome.ts';
import { outgoingOf } from '../../src/upstream/graph/outgoing.ts';
import { createGraphPacing, type GraphPacing } from '../../src/upstream/graph/pacing.ts';
import { createTellUnclear } from '../../src/upstream/graph/tell-unclear.ts';
import { createFastClock } from './fast-clock.ts';
import { type GraphRules, type GraphServer, type GraphToken, startGraphServer } from './graph-server.ts';
import type { Defer } from './leak-check.ts';

export const ANN = 'ann@example.com';

export interface GraphRoomOptions {
  readonly permissions?: 'read_write' | 'send';
  /** Default `refuse`. */
  readonly recipients?: 'refuse' | 'rewrite';
  readonly rules?: Partial<GraphRules>;
  /** State directory of the ledger. */
  readonly directory?: string;
  readonly ledger?: () => Ledger;
  /** How much faster than real time; default 20: a busy machine takes its time. */
  readonly speed?: number;
  readonly client?: GraphClientOptions;
  readonly record?: boolean;
}

export interface GraphRoom {
  readonly server: GraphServer;
  readonly clock: Clock;
  readonly calls: readonly GraphCallObservation[];
  readonly pacing: GraphPacing;
  readonly endpoint: UpstreamEndpoint;
  clientOf(mailbox: string): GraphClient;
  /** As noted of a message's subject. */
  hashOfRecipients(addresses: readonly string[]): string;
  /** Of the process that runs now. */
  readonly ledger: Ledger;
  /** Tokens as issued; changing them changes what the next request carries. */
  readonly tokens: { current: string; renewed: number; broken: boolean };
  /** What a token text is good for. */
  readonly known: Map<string, GraphToken>;
  send(
    message: string,
    recipients: readonly string[],
    /** `saidAhead`: the client does not wait for the reply. `later`: whether it has heard tells the test. */
    more?: {
      mailbox?: string;
      sender?: string;
      gone?: () => boolean;
      saidAhead?: boolean;
      heard?: Heard | 'later';
    },
  ): Promise<GraphEnding>;
  /** The process ends and another takes its place. */
  restart(): Promise<void>;
}

export const GOOD: GraphToken = {
  audience: 'https://graph.microsoft.com',
  scopes: ['Mail.Send', 'Mail.ReadWrite'],
  app: 'app-1',
};

/** A small message from ann with this Message-ID. */
export const mailTo = (to: string, id: string, more = ''): string =>
  `Message-ID: <${id}@client.test>\r\nFrom: ${ANN}\r\nTo: ${to}\r\nSubject: ${id}\r\n${more}\r\nhello ${id}\r\n`;

export async function startGraphRoom(defer: Defer, options: GraphRoomOptions = {}): Promise<GraphRoom> {
  const known = new Map<string, GraphToken>([['good', GOOD]]);
  const clock = createFastClock(options.speed ?? 20);
  const server = await startGraphServer({
    now: () => clock.now(),
    verify: (bearer) => known.get(bearer),
    ...(options.rules === undefined ? {} : { rules: options.rules }),
    ...(options.record === undefined ? {} : { record: options.record }),
  });
  defer(() => server.close());
  const tokens = { current: 'good', renewed: 0, broken: false };
  const give = async (): Promise<AccessToken> => {
    if (tokens.broken) throw new TokenError('needs_consent', 'consent was withdrawn');
    return new AccessToken(tokens.current, clock.now() + 3_600_000, clock.now());
  };
  const source: TokenSource = {
    peek: () => undefined,
    get: give,
    renew: () => {
      tokens.renewed++;
      return give();
    },
    mask: (_account, used) => createWatch(used === undefined ? [] : [used.reveal()]),
  };
  const http = createHttp({ env: {} }, clock);
  defer(() => http.close());
  const endpoint = createEndpoint('graph', { maxOpening: 1_000, volume: 10, clock });
  const pacing = createGraphPacing(clock);
  const calls: GraphCallObservation[] = [];
  const makeLedger =
    options.ledger ?? (() => createLocalLedger({ log: silentLog, clock, directory: options.directory }));
  let ledger = makeLedger();
  await ledger.open();
  defer(() => ledger.close());

  const clientOf = (mailbox: string): GraphClient =>
    createGraphClient(
      {
        account: mailbox,
        url: `${server.url}/users/${encodeURIComponent(mailbox)}`,
        key: { app: 'app-1', mailbox },
      },
      { http, tokens: source, pacing, endpoint, log: silentLog, clock, onCall: (call) => calls.push(call) },
      options.client,
    );
  const attempts = createAttempts(clock);
  const tellUnclear = createTellUnclear({ log: silentLog, clock });
  const deliveryFor = (mailbox: string) =>
    createGraphDelivery({
      client: clientOf(mailbox),
      ledger,
      tellUnclear,
      account: mailbox,
      permissions: options.permissions ?? 'read_write',
      clock,
      tidyUp: (work) => void background.add(work),
    });
  const background = new Set<Promise<unknown>>();
  let deliveries = new Map<string, ReturnType<typeof deliveryFor>>();
  defer(async () => {
    await Promise.all(background);
  });

  return {
    server,
    clock,
    endpoint,
    clientOf,
    hashOfRecipients: (addresses) => hashOf(setOf(addresses)),
    get ledger() {
      return ledger;
    },
    calls,
    pacing,
    tokens,
    known,
    async send(text, recipients, more = {}) {
      const original = Buffer.from(text);
      const mailbox = more.mailbox ?? ANN;
      let delivery = deliveries.get(mailbox);
      if (delivery === undefined) {
        delivery = deliveryFor(mailbox);
        deliveries.set(mailbox, delivery);
      }
      const addressed = addressMessage(original, recipients, options.recipients ?? 'refuse');
      if (addressed.kind !== 'ready') throw new Error(addressed.kind);
      const handover = createHandover({
        ledger,
        attempts,
        log: silentLog,
        tellUnclear,
        clock,
        account: mailbox,
        deliveryOf: deliveryFor,
      });
      // A sender that all accounts share.
      const mail = {
        sender: more.sender ?? ANN,
        parameters: [],
        mayBeGone: () => more.saidAhead === true,
      };
      const promised = recipients.map((address) => ({ address, parameters: [] }));
      const outgoing = outgoingOf(mail, promised, original, more.gone ?? (() => false));
      const { ending } = await handover.deliver({ ...outgoing, message: addressed.message });
      if (more.heard !== 'later')
        await ending.whenHeard?.(ending.kind === 'taken' ? (more.heard ?? 'yes') : 'no');
      return ending;
    },
    async restart() {
      await Promise.all(background);
      deliveries = new Map();
      await ledger.close();
      ledger = makeLedger();
      await ledger.open();
    },
  };
}
