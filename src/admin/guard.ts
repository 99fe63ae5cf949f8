/**
 * Who may ask what. In: method and headers of a request. Out: undefined (go on) or a refusal.
 * On loopback the browser is the danger, so Host and Origin are checked: another name in Host is DNS
 * rebinding, another Origin a foreign page. Elsewhere, and wherever one is set, a token is asked for.
 * Pure but for the digests of the tokens.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isLoopbackHost } from '../protocol/cidr.ts';

/** A secret that leaves only through `reveal()`. */
export interface Revealable {
  reveal(): string;
}

export interface GuardOptions {
  /** Address the server is bound to. */
  readonly host: string;
  /** May read: GET and HEAD. */
  readonly tokenRead?: Revealable | undefined;
  /** May read and act. */
  readonly tokenWrite?: Revealable | undefined;
  /** Further names accepted in Host on loopback, without port. */
  readonly allowedHosts?: readonly string[] | undefined;
}

export interface RequestFacts {
  readonly method: string;
  readonly header: (name: string) => string | undefined;
}

export interface Refusal {
  readonly status: 400 | 401 | 403;
  readonly error: string;
}

/** Name or address in a Host header, lower-cased, brackets kept off; undefined where it is none. */
function hostName(value: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]/@\s]+))(?::\d{1,5})?$/i.exec(value);
  return (match?.[1] ?? match?.[2])?.toLowerCase();
}

const isReading = (method: string): boolean => method === 'GET' || method === 'HEAD';

/** `open`: for whoever reaches the relay, such as a page without facts, or what has a key of its own. */
export type Access = 'token' | 'open';

export type Guard = (request: RequestFacts, access?: Access) => Refusal | undefined;

/** Throws where the address needs a token and none is set. */
export function createGuard(options: GuardOptions): Guard {
  const { tokenRead, tokenWrite } = options;
  const open = isLoopbackHost(options.host);
  const named = new Set((options.allowedHosts ?? []).map((name) => name.toLowerCase()));
  if (!open && tokenRead === undefined && tokenWrite === undefined) {
    throw new Error(
      `the admin address ${options.host} is not loopback: set an admin token (admin_token or admin_read_token), or bind 127.0.0.1`,
    );
  }
  // Digests have one length, so the comparison tells nothing about the token's.
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  const mayRead = tokenRead === undefined ? undefined : digest(tokenRead.reveal());
  const mayWrite = tokenWrite === undefined ? undefined : digest(tokenWrite.reveal());
  const matches = (presented: Buffer, wanted: Buffer | undefined): boolean =>
    wanted !== undefined && timingSafeEqual(presented, wanted);

  const checkOrigin = (request: RequestFacts): Refusal | undefined => {
    const host = request.header('host');
    const name = host === undefined ? undefined : hostName(host);
    if (host === undefined || name === undefined)
      return { status: 400, error: 'Host header missing or malformed' };
    // Browsers never ask DNS for a name below `localhost`.
    const isHere = isLoopbackHost(name) || name.endsWith('.localhost');
    if (open && !isHere && !named.has(name)) {
      return { status: 403, error: 'this Host is not served here; allow it with admin_allowed_hosts' };
    }
    const origin = request.header('origin');
    if (origin !== undefined && originHost(origin) !== host.toLowerCase()) {
      return { status: 403, error: 'requests from another origin are refused' };
    }
    const site = request.header('sec-fetch-site');
    const isForeign = site !== undefined && site !== 'same-origin' && site !== 'none';
    if (isForeign && !(isReading(request.method) && isNavigation(request))) {
      return { status: 403, error: 'requests from another site are refused' };
    }
    return undefined;
  };

  const checkToken = (request: RequestFacts): Refusal | undefined => {
    if (mayRead === undefined && mayWrite === undefined) return undefined;
    const presented = presentedToken(request.header('authorization'));
    if (presented === undefined) return { status: 401, error: 'a bearer token is needed' };
    const given = digest(presented);
    const write = matches(given, mayWrite);
    const read = matches(given, mayRead);
    if (!write && !read) return { status: 401, error: 'this token is not accepted' };
    if (!write && !isReading(request.method)) return { status: 403, error: 'this token may only read' };
    return undefined;
  };

  return (request, access = 'token') =>
    checkOrigin(request) ?? (access === 'open' ? undefined : checkToken(request));
}

/** A link that a person follows, or the way back from a sign-in: not what a foreign page loads unseen (Fetch Metadata §2). */
const isNavigation = ({ header }: RequestFacts): boolean =>
  header('sec-fetch-mode') === 'navigate' && (header('sec-fetch-dest') ?? 'document') === 'document';

function originHost(origin: string): string | undefined {
  try {
    const { host, protocol } = new URL(origin);
    return /^https?:$/.test(protocol) ? host : undefined;
  } catch {
    return undefined;
  }
}

/** The token of `Bearer …` (RFC 6750 §2.1), or the password of `Basic …`, which is what a browser can send. */
function presentedToken(authorization: string | undefined): string | undefined {
  const match = /^(bearer|basic) +([^\s]+)$/i.exec(authorization ?? '');
  const [, scheme, value] = match ?? [];
  if (scheme === undefined || value === undefined) return undefined;
  if (scheme.toLowerCase() === 'bearer') return value;
  const pair = Buffer.from(value, 'base64').toString();
  const colon = pair.indexOf(':');
  return colon < 0 ? undefined : pair.slice(colon + 1);
}
