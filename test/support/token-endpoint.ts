/**
 * The simulated token endpoint: HTTP on loopback. Issues access tokens for the grants an account has,
 * remembers them for the submission server, rotates refresh tokens, and misbehaves on request.
 */
import {
  constants,
  createPublicKey,
  type KeyObject,
  randomBytes,
  verify as verifySignature,
} from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { FlavourName } from './flavour.ts';
import { type TokenAnswer, tokenAnswers } from './token-answers.ts';

export interface SimulatedAccount {
  /** XOAUTH2 user. */
  readonly user: string;
  readonly clientId: string;
  /** Undefined for a public client: presenting one is refused. */
  readonly clientSecret: string | undefined;
  /** The refresh token handed out last. */
  refreshToken: string;
  /** Further XOAUTH2 users its access tokens are good for (shared mailboxes). */
  readonly alsoFor: readonly string[];
  /** Public key or certificate (PEM) that signs assertions; without one signatures are not checked. */
  readonly publicKeyPem: string | undefined;
  revoked: boolean;
}

export interface NewAccount {
  readonly clientId?: string;
  readonly clientSecret?: string;
  readonly publicClient?: boolean;
  readonly refreshToken?: string;
  readonly alsoFor?: readonly string[];
  readonly publicKeyPem?: string;
}

/** A request the endpoint saw. */
export interface TokenRequest {
  readonly at: number;
  readonly grant: string;
  /** The user it was for, where the endpoint could tell. */
  readonly user: string | undefined;
  readonly form: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly path: string;
  /** Status answered; undefined while it waits or when there was no answer. */
  status: number | undefined;
}

export interface TokenEndpoint {
  readonly url: string;
  readonly requests: readonly TokenRequest[];
  /** Requests so far, of one user or in all. */
  count(user?: string): number;
  /** Most requests that were in work at the same time. */
  readonly maxConcurrent: number;
  /** Called with each request once its answer is decided. */
  observe: ((request: TokenRequest) => void) | undefined;
  /** Lifetime of new tokens in seconds; default what the flavour does. */
  expiresInS: number | undefined;
  /** Every answer takes at least this long, ms. */
  delayMs: number;
  /** The answer is decided, and a refresh token revoked, when the request comes, not when the answer goes out. */
  decidesAtOnce: boolean;
  /** Length of new access tokens in octets; default the flavour's. */
  tokenOctets: number | undefined;
  /** `keep-old`: a refresh brings a new refresh token and the old one stays good; `revoke-old`: it dies. */
  rotation: 'off' | 'keep-old' | 'revoke-old';
  /** The endpoint's clock against ours, ms: Date header and judgement of assertions. */
  clockOffsetMs: number;
  /** The next answer to a request of `user` (or of anybody); several wait in line. */
  queue(answer: TokenAnswer, options?: { user?: string; times?: number }): void;
  /** Every answer until called with undefined. */
  always(answer: TokenAnswer | undefined, user?: string): void;
  add(user: string, account?: NewAccount): SimulatedAccount;
  account(user: string): SimulatedAccount | undefined;
  /** The grant dies and its access tokens with it. */
  revoke(user: string): void;
  restore(user: string): void;
  /** When a refresh token of `user` was last rotated, ms since the epoch, and whether that answer left whole. */
  lastRotation(user: string): { readonly at: number; readonly isWhole: boolean } | undefined;
  /** Every refresh token it ever gave for `user` is good again. */
  acceptAgain(user: string): void;
  /** Issued access tokens of `user` stop being accepted; the grant stays. */
  forgetAccessTokens(user: string): void;
  /** A token as the endpoint would issue it, for tests without HTTP. */
  issue(user: string): { accessToken: string; expiresAt: number };
  /** Every access token ever issued, accepted still or not. */
  issuedTokens(): readonly string[];
  /** Whose a living token is and what for; undefined for any other. */
  read(token: string): { readonly users: ReadonlySet<string>; readonly scope: string } | undefined;
  /** Whether `token` was issued for `user` and SMTP, and lives. */
  verify(user: string, token: string): boolean;
  /** Connections refused until `up`. */
  down(): Promise<void>;
  up(): Promise<void>;
  /** Open client connections. */
  readonly openConnections: number;
  close(): Promise<void>;
}

interface Issued {
  readonly users: ReadonlySet<string>;
  /** As asked for; one token is good for one resource. */
  readonly scope: string;
  readonly expiresAt: number;
}

const base64url = (text: string | Buffer): string => Buffer.from(text).toString('base64url');
const randomText = (octets: number): string => base64url(randomBytes(octets)).slice(0, octets);
/** `https://outlook.office.com/SMTP.Send offline_access` → `SMTP.Send`, which is also what a consent without a word brings. */
const permissionsIn = (scope: string): string =>
  scope
    .split(' ')
    .filter((word) => word.includes('/') && !word.endsWith('/.default'))
    .map((word) => word.slice(word.lastIndexOf('/') + 1))
    .join(' ') || 'SMTP.Send';
const MAX_FORM_OCTETS = 64 * 1024;

export async function startTokenEndpoint(flavour: FlavourName): Promise<TokenEndpoint> {
  const accounts = new Map<string, SimulatedAccount>();
  const refreshTokens = new Map<string, SimulatedAccount>();
  const everRefresh = new Map<string, SimulatedAccount>();
  const rotations = new Map<string, { readonly at: number; readonly isWhole: boolean }>();
  /** Whose refresh token the answer just made has rotated. */
  let rotated: string | undefined;
  const issued = new Map<string, Issued>();
  const everIssued: string[] = [];
  const requests: TokenRequest[] = [];
  const queued: { answer: TokenAnswer; user: string | undefined; left: number }[] = [];
  const standing = new Map<string | undefined, TokenAnswer>();
  const perUser = new Map<string, number>();
  /** Scope of the request being answered. */
  let asked = '';
  let inWork = 0;
  let maxConcurrent = 0;
  let openConnections = 0;

  const server: Server = createServer((request, response) => void handle(request, response));
  server.on('connection', (socket) => {
    openConnections += 1;
    socket.once('close', () => {
      openConnections -= 1;
    });
  });
  server.keepAliveTimeout = 60_000;
  const listen = (port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => {
        server.off('error', reject);
        resolve((server.address() as AddressInfo).port);
      });
    });
  const port = await listen(0);
  const url = `http://127.0.0.1:${port}/token`;

  const freshToken = (): string => {
    const length = endpoint.tokenOctets;
    if (flavour === 'gmail') return `ya29.${randomText((length ?? 220) - 5)}`;
    const asJwt = JSON.stringify({ aud: 'https://outlook.office.com', scp: permissionsIn(asked) });
    const head = `${base64url('{"typ":"JWT","alg":"RS256"}')}.${base64url(asJwt)}.`;
    return head + randomText((length ?? 1600) - head.length);
  };
  const issue = (
    users: readonly string[],
  ): { accessToken: string; expiresInS: number; expiresAt: number } => {
    const expiresInS =
      endpoint.expiresInS ?? (flavour === 'gmail' ? 3599 : 3600 + Math.floor(Math.random() * 1800));
    const accessToken = freshToken();
    const expiresAt = Date.now() + expiresInS * 1000;
    everIssued.push(accessToken);
    issued.set(accessToken, {
      users: new Set(users.map((u) => u.toLowerCase())),
      scope: asked,
      expiresAt,
    });
    return { accessToken, expiresInS, expiresAt };
  };
  const success = (users: readonly string[], refreshToken?: string): TokenAnswer => {
    const { accessToken, expiresInS } = issue(users);
    const body = {
      access_token: accessToken,
      expires_in: expiresInS,
      token_type: 'Bearer',
      scope: flavour === 'gmail' ? 'https://mail.google.com/' : 'https://outlook.office.com/SMTP.Send',
      ...(flavour === 'microsoft' ? { ext_expires_in: expiresInS } : {}),
      ...(refreshToken === undefined ? {} : { refresh_token: refreshToken }),
    };
    return {
      status: 200,
      headers: { 'content-type': 'application/json; charset=utf-8' },
      body: JSON.stringify(body),
    };
  };
  const google = flavour === 'gmail';

  /** What is wrong with the client's own authentication, if anything. */
  const judgeClient = (account: SimulatedAccount, form: URLSearchParams): TokenAnswer | undefined => {
    const secret = form.get('client_secret');
    if (form.get('client_id') !== account.clientId) {
      return google ? tokenAnswers.googleClientNotFound : tokenAnswers.microsoftUnknownApp;
    }
    const assertion = form.get('client_assertion');
    if (assertion !== null && account.publicKeyPem !== undefined) {
      const claims = readJwt(assertion, account.publicKeyPem);
      const good = claims?.iss === account.clientId && claims.sub === account.clientId;
      return good ? undefined : tokenAnswers.microsoftBadAssertion;
    }
    if (account.clientSecret === undefined) {
      return secret === null || google ? undefined : tokenAnswers.microsoftPublicSecret;
    }
    if (secret === null && !google) return tokenAnswers.microsoftSecretMissing;
    if (secret === account.clientSecret) return undefined;
    return google ? tokenAnswers.googleClientUnauthorized : tokenAnswers.microsoftBadSecret;
  };

  const refresh = (account: SimulatedAccount, presented: string): TokenAnswer => {
    if (endpoint.rotation === 'off') return success([account.user, ...account.alsoFor]);
    const next = `${google ? '1//0' : '0.AX'}${randomText(60)}`;
    refreshTokens.set(next, account);
    everRefresh.set(next, account);
    if (endpoint.rotation === 'revoke-old') refreshTokens.delete(presented);
    account.refreshToken = next;
    rotated = account.user;
    return success([account.user, ...account.alsoFor], next);
  };

  /** Who a request is for, and the honest answer to it. */
  const judge = (form: URLSearchParams): { user: string | undefined; answer: () => TokenAnswer } => {
    const grant = form.get('grant_type');
    if (grant === 'refresh_token') {
      const presented = form.get('refresh_token') ?? '';
      const account = refreshTokens.get(presented);
      if (account === undefined) {
        const unknown = google ? tokenAnswers.googleBadRequest : tokenAnswers.microsoftInactive;
        return { user: undefined, answer: () => unknown };
      }
      return {
        user: account.user,
        answer: () => {
          const problem = judgeClient(account, form);
          if (problem !== undefined) return problem;
          if (account.revoked) return google ? tokenAnswers.googleRevoked : tokenAnswers.microsoftRevoked;
          return refresh(account, presented);
        },
      };
    }
    if (grant === 'client_credentials') {
      const app = [...accounts.values()].filter((a) => a.clientId === form.get('client_id') && !a.revoked);
      const first = app[0];
      if (first === undefined) return { user: undefined, answer: () => tokenAnswers.microsoftUnknownApp };
      return {
        user: first.user,
        answer: () => judgeClient(first, form) ?? success(app.map((a) => a.user)),
      };
    }
    if (grant === 'urn:ietf:params:oauth:grant-type:jwt-bearer') {
      const assertion = form.get('assertion') ?? '';
      const claims = readJwt(assertion, undefined);
      const account = accounts.get(String(claims?.sub).toLowerCase());
      return { user: account?.user, answer: () => judgeAssertion(assertion, account) };
    }
    return { user: undefined, answer: () => tokenAnswers.unsupportedGrant };
  };

  const judgeAssertion = (assertion: string, account: SimulatedAccount | undefined): TokenAnswer => {
    if (account === undefined || account.revoked) return tokenAnswers.googleUnknownUser;
    const claims = readJwt(assertion, account.publicKeyPem);
    if (claims === undefined || claims.iss !== account.clientId || claims.aud !== url) {
      return tokenAnswers.googleJwtSignature;
    }
    const now = (Date.now() + endpoint.clockOffsetMs) / 1000;
    const { iat, exp } = claims;
    const plausible =
      typeof iat === 'number' && typeof exp === 'number' && iat < now + 300 && exp > now && exp - iat <= 3900;
    return plausible ? success([account.user, ...account.alsoFor]) : tokenAnswers.googleJwtTimeframe;
  };

  const scripted = (user: string | undefined): TokenAnswer | undefined => {
    const index = queued.findIndex((q) => q.user === undefined || q.user === user);
    const entry = queued[index];
    if (entry === undefined) return standing.get(user) ?? standing.get(undefined);
    entry.left -= 1;
    if (entry.left <= 0) queued.splice(index, 1);
    return entry.answer;
  };

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    inWork += 1;
    maxConcurrent = Math.max(maxConcurrent, inWork);
    try {
      const form = new URLSearchParams(await readBody(request));
      const { user, answer } = judge(form);
      const honest = (): TokenAnswer => {
        asked = form.get('scope') ?? '';
        rotated = undefined;
        const honestly = answer();
        if (rotated !== undefined) watchRotation(rotated, response);
        return honestly;
      };
      const seen: TokenRequest = {
        at: Date.now(),
        grant: form.get('grant_type') ?? '',
        user,
        form,
        headers: request.headers,
        path: request.url ?? '',
        status: undefined,
      };
      requests.push(seen);
      if (user !== undefined) perUser.set(user, (perUser.get(user) ?? 0) + 1);
      const script = scripted(user);
      const decided = endpoint.decidesAtOnce && !isOwn(script) ? honest() : undefined;
      const wait = (script?.delayMs ?? 0) + endpoint.delayMs;
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      if (script?.until !== undefined) await script.until;
      seen.status = send(response, script, decided === undefined ? honest : () => decided);
      endpoint.observe?.(seen);
    } catch {
      response.destroy();
    } finally {
      inWork -= 1;
    }
  }

  /** Nothing of what the endpoint would say itself: it grants nothing. */
  const isOwn = (script: TokenAnswer | undefined): boolean =>
    script !== undefined &&
    script.normal !== true &&
    script.patch === undefined &&
    (script.body !== undefined || script.status !== undefined);

  function watchRotation(user: string, response: ServerResponse): void {
    const at = Date.now();
    rotations.set(user.toLowerCase(), { at, isWhole: false });
    response.once('finish', () => rotations.set(user.toLowerCase(), { at: Date.now(), isWhole: true }));
  }

  function send(
    response: ServerResponse,
    script: TokenAnswer | undefined,
    honest: () => TokenAnswer,
  ): number | undefined {
    if (script?.after === 'silence') return undefined;
    if (script?.after === 'reset') {
      response.socket?.resetAndDestroy();
      return undefined;
    }
    if (script?.after === 'drip') {
      response.writeHead(200, { 'content-type': 'application/json' });
      const drops = setInterval(() => response.write(' '), 20);
      response.once('close', () => clearInterval(drops));
      return 200;
    }
    let answer = script ?? honest();
    if (script !== undefined && !isOwn(script)) answer = honest();
    let body = Buffer.from(answer.body ?? '');
    if (script?.patch !== undefined) {
      body = Buffer.from(JSON.stringify({ ...JSON.parse(body.toString()), ...script.patch }));
    }
    response.sendDate = false;
    response.setHeader('date', new Date(Date.now() + endpoint.clockOffsetMs).toUTCString());
    response.writeHead(answer.status ?? 200, { ...answer.headers, 'content-length': body.length });
    if (script?.after === 'truncate') {
      response.write(body.subarray(0, body.length >> 1), () => response.socket?.end());
    } else response.end(body);
    return answer.status ?? 200;
  }

  const endpoint: TokenEndpoint = {
    url,
    requests,
    count: (user) => (user === undefined ? requests.length : (perUser.get(user) ?? 0)),
    get maxConcurrent() {
      return maxConcurrent;
    },
    observe: undefined,
    expiresInS: undefined,
    delayMs: 0,
    decidesAtOnce: false,
    tokenOctets: undefined,
    rotation: google ? 'off' : 'keep-old',
    clockOffsetMs: 0,
    queue: (answer, options = {}) =>
      void queued.push({ answer, user: options.user, left: options.times ?? 1 }),
    always: (answer, user) =>
      void (answer === undefined ? standing.delete(user) : standing.set(user, answer)),
    add(user, options = {}) {
      const account: SimulatedAccount = {
        user,
        clientId: options.clientId ?? (google ? '4711-desk.apps.googleusercontent.com' : 'f0e1d2c3-app'),
        clientSecret:
          options.publicClient === true ? undefined : (options.clientSecret ?? 'GOCSPX-client-secret'),
        refreshToken: options.refreshToken ?? `${google ? '1//0' : '0.AX'}${randomText(60)}`,
        alsoFor: options.alsoFor ?? [],
        publicKeyPem: options.publicKeyPem,
        revoked: false,
      };
      accounts.set(user.toLowerCase(), account);
      refreshTokens.set(account.refreshToken, account);
      everRefresh.set(account.refreshToken, account);
      return account;
    },
    account: (user) => accounts.get(user.toLowerCase()),
    revoke(user) {
      const account = accounts.get(user.toLowerCase());
      if (account !== undefined) account.revoked = true;
      this.forgetAccessTokens(user);
    },
    restore(user) {
      const account = accounts.get(user.toLowerCase());
      if (account !== undefined) account.revoked = false;
    },
    lastRotation: (user) => rotations.get(user.toLowerCase()),
    acceptAgain(user) {
      for (const [token, account] of everRefresh)
        if (account.user.toLowerCase() === user.toLowerCase()) refreshTokens.set(token, account);
    },
    forgetAccessTokens(user) {
      for (const [token, entry] of issued) if (entry.users.has(user.toLowerCase())) issued.delete(token);
    },
    issue(user) {
      const account = accounts.get(user.toLowerCase());
      asked = '';
      return issue([user, ...(account?.alsoFor ?? [])]);
    },
    issuedTokens: () => everIssued,
    verify(user, token) {
      const entry = issued.get(token);
      const isForSmtp =
        entry !== undefined && !/graph\.microsoft\.com|^(?!.*SMTP\.Send).*\/IMAP\./.test(entry.scope);
      return isForSmtp && entry.users.has(user.toLowerCase()) && entry.expiresAt > Date.now();
    },
    read(token) {
      const entry = issued.get(token);
      return entry !== undefined && entry.expiresAt > Date.now() ? entry : undefined;
    },
    async down() {
      if (!server.listening) return;
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
    async up() {
      if (!server.listening) await listen(port);
    },
    get openConnections() {
      return openConnections;
    },
    close: () => endpoint.down(),
  };
  return endpoint;
}

async function readBody(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request) {
    body += String(chunk);
    if (body.length > MAX_FORM_OCTETS) throw new Error('form too long');
  }
  return body;
}

/** The claims of a JWT whose signature holds under `pem` (RS256 or PS256); unchecked without one. */
function readJwt(jwt: string, pem: string | undefined): Record<string, unknown> | undefined {
  const [head = '', payload = '', signature = ''] = jwt.split('.');
  try {
    const { alg } = JSON.parse(Buffer.from(head, 'base64url').toString()) as { alg?: string };
    if (pem !== undefined) {
      const key: KeyObject = createPublicKey(pem);
      const padding = alg === 'PS256' ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING;
      const signed = Buffer.from(`${head}.${payload}`);
      if (!verifySignature('sha256', signed, { key, padding }, Buffer.from(signature, 'base64url')))
        return undefined;
    }
    return JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}
