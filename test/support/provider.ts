/**
 * A mail provider on loopback: token endpoint and submission server (STARTTLS and implicit TLS) that
 * check XOAUTH2 against each other. In: accounts, rules, scripts. Out: what was submitted, and counts.
 * The submission server answers under the name `localhost` with a certificate of the test CA.
 */
import { type AddressInfo, createServer, type Server } from 'node:net';
import { createSecureContext } from 'node:tls';
import { type Certificate, issueCertificate, testAuthority } from './certificate.ts';
import { type Flavour, type FlavourName, gmail, microsoft } from './flavour.ts';
import { type GraphRules, type GraphServer, type GraphToken, startGraphServer } from './graph-server.ts';
import {
  type Action,
  createScript,
  type IdleStyle,
  type Matcher,
  type ScriptEntry,
  type SmtpRules,
  type Stage,
} from './smtp-script.ts';
import { Session, type SessionHost } from './smtp-session.ts';
import type { Submission } from './submission.ts';
import {
  type NewAccount,
  type SimulatedAccount,
  startTokenEndpoint,
  type TokenEndpoint,
} from './token-endpoint.ts';
import { PATIENCE_MS } from './wait-for.ts';
import type { WireTiming } from './wire.ts';

export interface ProviderOptions {
  /** Default `gmail`. */
  readonly flavour?: FlavourName;
  /** What EHLO offers after AUTH, default the flavour's. */
  readonly mechanisms?: string;
  /** Users with an account from the start. */
  readonly users?: readonly string[];
  readonly rules?: SmtpRules;
  /** Bodies, command lists and transcripts are kept; default true. Off for load. */
  readonly record?: boolean;
  /** Replies are held this long, ms; default 0. Makes round trips visible to a clock. */
  readonly latencyMs?: number;
  /** Sees each SMTP line as it happens: `C` from the client, `S` from the server. */
  readonly observe?: (connectionId: number, who: 'C' | 'S', line: string) => void;
  /** Rules of the Graph server; without them there is none. */
  readonly graph?: Partial<GraphRules>;
  /** Server certificate; default a good one for `localhost`. */
  readonly certificate?: Certificate;
}

/** An entry of the accounts file that reaches the simulator. */
export type AccountEntry = Record<string, unknown> & { readonly email: string };

export interface SubmissionServer {
  readonly host: 'localhost';
  /** STARTTLS port. */
  readonly port: number;
  /** Implicit TLS port. */
  readonly tlsPort: number;
  /** Read at every command; a test may change it. */
  readonly rules: SmtpRules;
  readonly timing: WireTiming;
  /** Replaces the normal answer at `stage` where `matcher` holds. */
  script(stage: Stage, matcher: Matcher, action: Action): ScriptEntry;
  clearScripts(): void;
  /** Ends idle connections as a timeout would; how many. */
  disturb(style: IdleStyle, filter?: (session: Session) => boolean): number;
  /** All connections so far, in order. */
  readonly sessions: readonly Session[];
  readonly open: number;
  readonly maxOpen: number;
  readonly connections: number;
  /** Successful logins, of one user or in all. */
  logins(user?: string): number;
  /** Most connections logged in as `user` at the same time. */
  maxOpenOf(user: string): number;
  /** Stops listening (connections refused) and, if wanted, cuts what is open. */
  down(cut?: boolean): Promise<void>;
  up(): Promise<void>;
}

export interface Provider {
  readonly flavour: FlavourName;
  readonly token: TokenEndpoint;
  readonly smtp: SubmissionServer;
  /** Present where it was asked for. */
  readonly graph: GraphServer;
  /** PEM of the CA that signed the server certificate. */
  readonly caPem: string;
  /** The same as a file, for NODE_EXTRA_CA_CERTS. */
  readonly caFile: string;
  /** Messages answered 250, in order. */
  readonly messages: readonly Submission[];
  /** Everything whose body began, whatever became of it. */
  readonly submissions: readonly Submission[];
  /** Bodies that were complete and never answered. */
  readonly unanswered: readonly Submission[];
  add(user: string, account?: NewAccount): SimulatedAccount;
  /** Accounts-file entry of `user`, added if it is new. `more` is merged in. */
  entry(user: string, more?: Record<string, unknown>): AccountEntry;
  /** Resolves when `count` messages have been accepted; rejects after `timeoutMs` (default `PATIENCE_MS`). */
  received(count: number, timeoutMs?: number): Promise<readonly Submission[]>;
  /** Throws when a client connection is still open after `withinMs` (default 2 s). */
  assertDisconnected(withinMs?: number): Promise<void>;
  /** Bounded: cuts what is open. */
  close(): Promise<void>;
}

const MINUTE_MS = 60_000;

export async function startProvider(options: ProviderOptions = {}): Promise<Provider> {
  const flavourName = options.flavour ?? 'gmail';
  const { mechanisms } = options;
  const newFlavour = (): Flavour => ({
    ...(flavourName === 'gmail' ? gmail() : microsoft()),
    ...(mechanisms === undefined ? {} : { mechanisms }),
  });
  const authority = testAuthority();
  const certificate = options.certificate ?? issueCertificate();
  const rules: SmtpRules = { ...options.rules };
  const timing: WireTiming = { latencyMs: options.latencyMs ?? 0, splitReplies: false };
  const script = createScript();
  const sessions: Session[] = [];
  const submissions: Submission[] = [];
  const messages: Submission[] = [];
  const waiters = new Set<() => void>();
  const loginTimes = new Map<string, number[]>();
  const messageTimes = new Map<string, number[]>();
  const loginCount = new Map<string, number>();
  const maxPerUser = new Map<string, number>();
  const active = new Map<string, number>();
  let open = 0;
  let maxOpen = 0;
  let logins = 0;

  const token = await startTokenEndpoint(flavourName);
  for (const user of options.users ?? []) token.add(user);

  const recent = (times: Map<string, number[]>, user: string): number[] => {
    const since = Date.now() - MINUTE_MS;
    const kept = (times.get(user) ?? []).filter((at) => at > since);
    times.set(user, kept);
    return kept;
  };
  const openOf = (user: string): number => sessions.filter((s) => !s.closed && s.user === user).length;

  const host: SessionHost = {
    rules,
    script,
    timing,
    record: options.record ?? true,
    secureContext: createSecureContext({
      cert: certificate.certPem,
      key: certificate.keyPem,
      minVersion: 'TLSv1.2',
    }),
    flavour: newFlavour,
    observe: options.observe ?? (() => {}),
    verify: (user, value) => token.verify(user, value),
    mayLogIn(user) {
      const { loginsPerMinute, maxConnectionsPerUser } = rules;
      if (maxConnectionsPerUser !== undefined && openOf(user) >= maxConnectionsPerUser) return false;
      if (loginsPerMinute === undefined) return true;
      const times = recent(loginTimes, user);
      times.push(Date.now());
      return times.length <= loginsPerMinute;
    },
    loggedIn(user) {
      logins += 1;
      loginCount.set(user, (loginCount.get(user) ?? 0) + 1);
      if (host.record) maxPerUser.set(user, Math.max(maxPerUser.get(user) ?? 0, openOf(user)));
    },
    mailLimit(user) {
      const { messagesPerMinute, messagesPerDay } = rules;
      if (messagesPerDay !== undefined && messages.filter((m) => m.user === user).length >= messagesPerDay) {
        return 'daily';
      }
      if (messagesPerMinute === undefined) return undefined;
      return recent(messageTimes, user).length >= messagesPerMinute ? 'rate' : undefined;
    },
    beginSubmission(user) {
      const now = (active.get(user) ?? 0) + 1;
      active.set(user, now);
      return rules.maxConcurrentSubmissions !== undefined && now > rules.maxConcurrentSubmissions;
    },
    endSubmission: (user) => void active.set(user, (active.get(user) ?? 1) - 1),
    submitted(submission) {
      submissions.push(submission);
      if (submission.outcome === 'accepted') {
        messages.push(submission);
        if (rules.messagesPerMinute !== undefined) recent(messageTimes, submission.user).push(submission.at);
      }
      for (const wake of waiters) wake();
    },
  };

  const makeServer = (implicitTls: boolean): Server =>
    createServer({ noDelay: true }, (socket) => {
      const session = new Session(sessions.length + 1, socket, host);
      sessions.push(session);
      open += 1;
      maxOpen = Math.max(maxOpen, open);
      socket.on('error', () => {});
      socket.once('close', () => {
        open -= 1;
        session.closed = true;
        for (const wake of waiters) wake();
      });
      void session.serve(implicitTls);
    });
  const graph =
    options.graph === undefined
      ? undefined
      : await startGraphServer({
          verify: (bearer) => graphToken(token.read(bearer)),
          rules: options.graph,
          record: options.record ?? true,
        });
  const servers = [makeServer(false), makeServer(true)] as const;
  const listen = (server: Server, port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => {
        server.off('error', reject);
        resolve((server.address() as AddressInfo).port);
      });
    });
  const port = await listen(servers[0], 0);
  const tlsPort = await listen(servers[1], 0);

  /** Resolves when `done` holds, checked at every event of the provider. */
  const until = (done: () => boolean, timeoutMs: number, failure: () => string): Promise<void> =>
    new Promise((resolve, reject) => {
      const finish = (error?: Error): void => {
        clearTimeout(timer);
        waiters.delete(check);
        if (error === undefined) resolve();
        else reject(error);
      };
      const check = (): void => {
        if (done()) finish();
      };
      const timer = setTimeout(() => finish(new Error(failure())), timeoutMs);
      waiters.add(check);
      check();
    });

  const smtp: SubmissionServer = {
    host: 'localhost',
    port,
    tlsPort,
    rules,
    timing,
    script: (stage, matcher, action) => script.add(stage, matcher, action),
    clearScripts: () => script.clear(),
    disturb(style, filter = () => true) {
      const idle = sessions.filter((s) => s.idle && filter(s));
      for (const session of idle) session.disturb(style);
      return idle.length;
    },
    sessions,
    get open() {
      return open;
    },
    get maxOpen() {
      return maxOpen;
    },
    get connections() {
      return sessions.length;
    },
    logins: (user) => (user === undefined ? logins : (loginCount.get(user) ?? 0)),
    maxOpenOf: (user) => maxPerUser.get(user) ?? 0,
    async down(cut = true) {
      const closed = servers.filter((s) => s.listening).map((s) => new Promise((r) => s.close(r)));
      if (!cut) return;
      for (const session of sessions) session.destroy();
      await Promise.all(closed);
    },
    async up() {
      if (!servers[0].listening) await listen(servers[0], port);
      if (!servers[1].listening) await listen(servers[1], tlsPort);
    },
  };

  return {
    flavour: flavourName,
    token,
    smtp,
    get graph() {
      if (graph === undefined) throw new Error('this provider was started without Graph');
      return graph;
    },
    caPem: authority.certPem,
    caFile: authority.file,
    messages,
    submissions,
    get unanswered() {
      return submissions.filter((s) => s.outcome === 'unanswered');
    },
    add: (user, account) => token.add(user, account),
    entry(user, more = {}) {
      const account = token.account(user) ?? token.add(user);
      return {
        email: user,
        provider: flavourName === 'gmail' ? 'gmail' : 'outlook',
        client_id: account.clientId,
        ...(account.clientSecret === undefined ? {} : { client_secret: account.clientSecret }),
        refresh_token: account.refreshToken,
        token_url: token.url,
        smtp: `starttls://localhost:${port}`,
        ...(graph === undefined || (more.transport ?? 'smtp') === 'smtp' ? {} : { graph_url: graph.url }),
        ...more,
      };
    },
    async received(count, timeoutMs = PATIENCE_MS) {
      await until(
        () => messages.length >= count,
        timeoutMs,
        () => `${messages.length} of ${count} messages arrived within ${timeoutMs} ms`,
      );
      return messages;
    },
    assertDisconnected: (withinMs = 2000) =>
      until(
        () => open === 0,
        withinMs,
        () => `${open} connection(s) still open after ${withinMs} ms`,
      ),
    async close() {
      await Promise.all([token.close(), smtp.down(true), graph?.close()]);
    },
  };
}

/** What Graph reads in a token: whom it is for, and what it permits. An application has what its consent says. */
function graphToken(
  token: { readonly users: ReadonlySet<string>; readonly scope: string } | undefined,
): GraphToken | undefined {
  if (token === undefined) return undefined;
  const isApp = token.scope.endsWith('/.default');
  return {
    audience: token.scope.includes('https://graph.microsoft.com/')
      ? 'https://graph.microsoft.com'
      : 'https://outlook.office.com',
    scopes: isApp
      ? ['Mail.Send', 'Mail.ReadWrite']
      : [...token.scope.matchAll(/graph\.microsoft\.com\/(Mail\.\w+)/g)].map(([, name = '']) => name),
    mailboxes: [...token.users],
    app: 'app',
  };
}
