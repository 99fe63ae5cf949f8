/**
 * The token endpoint: grants, rotation with instant revocation, and the ways in which an answer can be
 * late, odd or lost. Stands in for the HTTP request of the product. Owns what is valid when.
 */
import { createRequire } from 'node:module';
import type { Actor, World } from './world.ts';

/** In every secret there is, so that a leak is found by looking for it. No id that is made of base32 has a 9. */
export const SECRET_MARK = 's3cr9t';

export interface HttpAnswer {
  readonly statusCode: number;
  readonly headers: Record<string, string>;
  readonly body: AsyncIterable<Buffer>;
}

export interface HttpRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
  readonly signal: AbortSignal;
  /** There is a connection: from now on it may have been sent. */
  begin(): void;
}

/** What the product hands over in undici's `request`. */
interface Requested extends Omit<HttpRequest, 'begin'> {
  readonly dispatcher: { dispatch(options: object, handler: { onRequestStart(): void }): boolean };
}

/** What happens to one request. */
export interface TokenMood {
  readonly delayMs: number;
  /** `refuse`: nobody listens. `lose`: granted, and the answer never arrives. `drip`: it arrives octet by octet. */
  readonly trouble?: 'refuse' | 'unavailable' | 'lose' | 'hang' | 'drip' | undefined;
}

export interface Overlap {
  readonly account: string;
  readonly requests: number;
  readonly relays: number;
}

export interface TokenEndpoint {
  request(url: string, request: HttpRequest): Promise<HttpAnswer>;
  /** A person signs in: the grant for the accounts file. */
  consent(account: string): string;
  accepts(account: string, accessToken: string): boolean;
  /** Ends the access tokens of an account, as a provider may at any time. */
  revokeAccess(account: string): void;
  mood: (account: string) => TokenMood;
  /** Relays that were killed: what is granted to one of them nobody hears. */
  readonly killed: Set<Actor>;
  /** Accounts whose newest refresh token was lost on the way: no relay can know it. */
  readonly lostGrants: Set<string>;
  /** When the newest refresh token of an account was given out, true time. */
  rotatedAt(account: string): number;
  /** Told each time more than one request for a grant is under way. */
  onOverlap: (overlap: Overlap) => void;
  readonly requests: number;
}

/** Takes requests to one host. */
interface WebServer {
  request(url: string, request: HttpRequest): Promise<HttpAnswer>;
}

let used: ((url: string) => WebServer) | undefined;

/** Where the product's requests go from now on. */
export function useWebServers(serverOf: (url: string) => WebServer): void {
  used = serverOf;
}

/** Puts our servers in the place of undici's `request`; before the product is imported. */
export function installTokenRequests(): void {
  const undici = createRequire(import.meta.url)('undici') as {
    request: unknown;
    Agent: { prototype: Requested['dispatcher'] };
  };
  undici.request = (url: string, request: Requested) => {
    if (used === undefined) throw new Error('no web servers');
    const begin = (): void => {
      request.dispatcher.dispatch({}, { onRequestStart: () => undefined });
    };
    return used(url).request(url, { ...request, begin });
  };
  // Reached through whatever the product has put in front of it.
  undici.Agent.prototype.dispatch = (_options, handler) => {
    handler.onRequestStart();
    return true;
  };
}

export function createTokenEndpoint(
  world: World,
  options: { readonly rotates: boolean; readonly lifeMs: number },
): TokenEndpoint {
  const actor = world.spawn('token');
  const grants = new Map<string, { readonly account: string; isValid: boolean }>();
  const access = new Map<string, { readonly account: string; until: number }>();
  const underWay = new Map<string, Set<{ readonly relay: Actor }>>();
  const rotated = new Map<string, number>();
  const lost = new Set<string>();
  const killed = new Set<Actor>();
  let serial = 0;
  let requests = 0;

  function newGrant(account: string): string {
    const token = `${SECRET_MARK}-refresh-${++serial}-${account}`;
    grants.set(token, { account, isValid: true });
    rotated.set(account, world.now);
    return token;
  }

  /** Counts a request in; the result counts it out. */
  function enter(account: string, relay: Actor): () => void {
    const ticket = { relay };
    const all = underWay.get(account) ?? new Set();
    underWay.set(account, all);
    for (const other of all) if (!other.relay.isAlive) all.delete(other);
    all.add(ticket);
    const relays = new Set([...all].map((t) => t.relay.name)).size;
    if (all.size > 1) endpoint.onOverlap({ account, requests: all.size, relays });
    return () => void all.delete(ticket);
  }

  function answer(form: URLSearchParams): { readonly statusCode: number; readonly text: string } {
    const grant = grants.get(form.get('refresh_token') ?? '');
    if (grant?.isValid !== true) {
      world.note(`invalid_grant for ${grant?.account ?? 'nobody'}`, actor);
      const text = JSON.stringify({ error: 'invalid_grant', error_description: 'the grant is revoked' });
      return { statusCode: 400, text };
    }
    const token = `${SECRET_MARK}-access-${++serial}`;
    access.set(token, { account: grant.account, until: world.now + options.lifeMs });
    if (options.rotates) grant.isValid = false;
    world.note(`grants a token to ${grant.account}`, actor);
    const text = JSON.stringify({
      access_token: token,
      token_type: 'Bearer',
      expires_in: Math.round(options.lifeMs / 1000),
      ...(options.rotates ? { refresh_token: newGrant(grant.account) } : {}),
    });
    return { statusCode: 200, text };
  }

  const endpoint: TokenEndpoint = {
    get requests() {
      return requests;
    },
    onOverlap: () => undefined,
    killed,
    lostGrants: lost,
    mood: () => ({ delayMs: 20 }),
    consent(account) {
      lost.delete(account);
      for (const grant of grants.values()) if (grant.account === account) grant.isValid = false;
      return newGrant(account);
    },
    rotatedAt: (account) => rotated.get(account) ?? 0,
    accepts(account, accessToken) {
      const token = access.get(accessToken);
      return token !== undefined && token.account === account && world.now < token.until;
    },
    revokeAccess(account) {
      for (const token of access.values()) if (token.account === account) token.until = 0;
    },
    async request(_url, { body, signal, begin }) {
      const relay = world.current;
      const form = new URLSearchParams(body);
      const account = grants.get(form.get('refresh_token') ?? '')?.account ?? 'nobody';
      requests += 1;
      const leave = enter(account, relay);
      const { delayMs, trouble } = endpoint.mood(account);
      const pause = (ms: number): Promise<void> => pauseUnless(world, relay, ms, signal);
      try {
        if (trouble === 'refuse') {
          await pause(1);
          throw failure('ECONNREFUSED');
        }
        begin();
        if (trouble === 'hang') await pause(Number.POSITIVE_INFINITY);
        // What the endpoint does it does whether or not the relay still waits.
        const judged = new Promise<ReturnType<typeof answer>>((resolve) => {
          world.after(actor, delayMs / 2, () => {
            const result = trouble === 'unavailable' ? { statusCode: 503, text: 'no' } : answer(form);
            const isUnheard = trouble === 'lose' || killed.has(relay);
            if (isUnheard && options.rotates && result.statusCode === 200) lost.add(account);
            world.after(relay, 0, () => resolve(result), 'token');
          });
        });
        await pause(delayMs);
        const { statusCode, text } = await judged;
        if (trouble === 'lose') throw failure('ECONNRESET');
        return {
          statusCode,
          headers: { 'content-type': statusCode === 503 ? 'text/plain' : 'application/json' },
          body: deliver(text, trouble === 'drip' ? 20 : 1, pause, leave),
        };
      } catch (error) {
        leave();
        throw error;
      }
    },
  };
  return endpoint;
}

async function* deliver(
  text: string,
  pieces: number,
  pause: (ms: number) => Promise<void>,
  done: () => void,
): AsyncGenerator<Buffer> {
  try {
    const octets = Math.ceil(text.length / pieces);
    for (let at = 0; at < text.length; at += octets) {
      await pause(pieces > 1 ? 1500 : 0);
      yield Buffer.from(text.slice(at, at + octets));
    }
  } finally {
    done();
  }
}

/** Rejects with the signal's reason; `ms` may be infinite. */
export function pauseUnless(world: World, actor: Actor, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const timer =
      ms === Number.POSITIVE_INFINITY
        ? undefined
        : world.after(
            actor,
            ms,
            () => {
              signal.removeEventListener('abort', abort);
              resolve();
            },
            'token',
          );
    const abort = (): void => {
      timer?.cancel();
      reject(signal.reason);
    };
    signal.addEventListener('abort', abort, { once: true });
  });
}

export function failure(code: string): Error {
  return Object.assign(new Error(code), { code });
}
