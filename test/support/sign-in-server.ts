/**
 * The interactive side of a simulated provider: authorize, device code and their token requests, in front of
 * the token endpoint of a `Provider`. Checks what a real one checks: client, redirect, PKCE, single use.
 */
import { createHash, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Provider } from './provider.ts';

export interface SignInServer {
  readonly authorizeUrl: string;
  readonly deviceUrl: string;
  /** Code and device grants here; everything else goes on to the provider's own endpoint. */
  readonly tokenUrl: string;
  /** Who is sitting at the browser. */
  user: string;
  /** How often a device poll is told to wait; each is answered as given. */
  devicePolls: ('authorization_pending' | 'slow_down' | 'authorization_declined')[];
  /** Changes the ID token's claims. */
  claims: Record<string, unknown>;
  /** Of every token, seconds. */
  expiresIn: number;
  /** The redirect is spoilt. */
  spoilState: boolean;
  readonly tokenRequests: readonly URLSearchParams[];
  /** What was asked for at the device endpoint. */
  readonly deviceScopes: readonly string[];
  close(): Promise<void>;
}

export async function startSignInServer(provider: Provider, user: string): Promise<SignInServer> {
  const codes = new Map<
    string,
    { challenge: string; redirectUri: string; nonce: string | null; scope: string }
  >();
  const devices = new Map<string, string>();
  const deviceScopes: string[] = [];
  const tokenRequests: URLSearchParams[] = [];
  const json = (response: ServerResponse, status: number, body: object): void => {
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
    response.end(JSON.stringify(body));
  };
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const tokens = (clientId: string, scope: string, nonce: string | null): object => {
    const { accessToken } = provider.token.issue(server.user);
    const now = Math.floor(Date.now() / 1000);
    const asked = scope.split(' ');
    const claims = {
      // Microsoft's issuer is the tenant of whoever signed in.
      iss: provider.flavour === 'microsoft' ? `${origin}/${randomUUID()}/v2.0` : origin,
      aud: clientId,
      sub: 'subject-1',
      iat: now,
      exp: now + 300,
      ...(asked.includes('email') ? { email: server.user } : {}),
      ...(provider.flavour === 'microsoft' && asked.includes('profile')
        ? { preferred_username: server.user }
        : {}),
      ...(nonce === null ? {} : { nonce }),
      ...server.claims,
    };
    return {
      access_token: accessToken,
      token_type: 'Bearer',
      expires_in: server.expiresIn,
      refresh_token: provider.token.account(server.user)?.refreshToken,
      ...(asked.includes('openid') ? { id_token: `${part({ alg: 'RS256' })}.${part(claims)}.c2ln` } : {}),
    };
  };

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', origin);
    const account = provider.token.account(server.user);
    if (url.pathname === '/authorize') {
      const q = url.searchParams;
      const redirectUri = q.get('redirect_uri') ?? '';
      if (q.get('client_id') !== account?.clientId)
        return json(response, 400, { error: 'unauthorized_client' });
      if (q.get('code_challenge_method') !== 'S256') return json(response, 400, { error: 'invalid_request' });
      const code = randomUUID();
      codes.set(code, {
        challenge: q.get('code_challenge') ?? '',
        redirectUri,
        nonce: q.get('nonce'),
        scope: q.get('scope') ?? '',
      });
      const target = new URL(redirectUri);
      target.searchParams.set('code', code);
      target.searchParams.set('state', server.spoilState ? 'another' : (q.get('state') ?? ''));
      response.writeHead(302, { location: target.href, connection: 'close' });
      response.end();
      return;
    }
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const form = new URLSearchParams(body);
    if (url.pathname === '/device') {
      if (form.get('client_id') !== account?.clientId)
        return json(response, 400, { error: 'unauthorized_client' });
      const scope = form.get('scope') ?? '';
      deviceScopes.push(scope);
      const device = randomUUID();
      devices.set(device, scope);
      return json(response, 200, {
        device_code: device,
        user_code: 'ABCD-1234',
        verification_uri: 'https://login.example/device',
        expires_in: 900,
        interval: 1,
      });
    }
    tokenRequests.push(form);
    const clientId = form.get('client_id') ?? '';
    const secret = form.get('client_secret') ?? undefined;
    const isClient = clientId === account?.clientId && secret === account.clientSecret;
    switch (form.get('grant_type')) {
      case 'authorization_code': {
        if (!isClient) return json(response, 401, { error: 'invalid_client' });
        const code = form.get('code') ?? '';
        const kept = codes.get(code);
        codes.delete(code);
        const challenge = createHash('sha256')
          .update(form.get('code_verifier') ?? '')
          .digest('base64url');
        if (
          kept === undefined ||
          kept.challenge !== challenge ||
          kept.redirectUri !== form.get('redirect_uri')
        )
          return json(response, 400, { error: 'invalid_grant' });
        return json(response, 200, tokens(clientId, kept.scope, kept.nonce));
      }
      case 'urn:ietf:params:oauth:grant-type:device_code': {
        const scope = devices.get(form.get('device_code') ?? '');
        const error = scope === undefined ? 'bad_verification_code' : server.devicePolls.shift();
        return scope !== undefined && error === undefined
          ? json(response, 200, tokens(clientId, scope, null))
          : json(response, 400, { error, error_description: 'as told' });
      }
      default: {
        const answer = await fetch(provider.token.url, { method: 'POST', body: form });
        return json(response, answer.status, (await answer.json()) as object);
      }
    }
  }

  const http = createServer((request, response) => {
    handle(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const server: SignInServer = {
    authorizeUrl: `${origin}/authorize`,
    deviceUrl: `${origin}/device`,
    tokenUrl: `${origin}/token`,
    user,
    devicePolls: [],
    deviceScopes,
    claims: {},
    expiresIn: 3599,
    spoilState: false,
    tokenRequests,
    close: () =>
      new Promise((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      }),
  };
  return server;
}
