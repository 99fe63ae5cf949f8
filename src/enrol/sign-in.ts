/**
 * A person signs in: device code (RFC 8628), or authorization code with PKCE and a loopback redirect
 * (RFC 8252, RFC 7636). In: provider profile and OAuth client. Out: a refresh token. State, nonce and PKCE
 * are checked by openid-client, which only this file knows. Owns the loopback server while it waits.
 */
import * as oauth from 'openid-client';
import { Secret } from '../accounts/credential.ts';
import type { ProviderProfile } from '../accounts/providers.ts';
import { createHttp } from '../http.ts';
import { ANY_ACCOUNT, findSignInCause, findTokenNetworkCause } from '../protocol/causes/book.ts';
import { explainCause } from '../protocol/causes/cause.ts';
import { isLoopbackHost } from '../protocol/cidr.ts';
import { parseJsonObject } from '../protocol/json-object.ts';
import { claimsOf } from '../protocol/jwt-claims.ts';
import { cleanText, foldAddress } from '../protocol/text.ts';
import { quoteCleaned } from '../protocol/token-failure.ts';
import { MAX_LIFETIME_MS } from '../protocol/token-response.ts';
import { listenForRedirect } from './loopback.ts';
import { OperatorError } from './operator-error.ts';

export interface SignInTarget {
  readonly profile: ProviderProfile;
  readonly tenant: string | undefined;
  readonly clientId: string;
  /** Absent for a public client. */
  readonly clientSecret: Secret | undefined;
  /** The mailbox, as a hint for the sign-in page and to be compared with who signed in. */
  readonly email: string;
  /** Overrides, for a provider elsewhere. */
  readonly tokenUrl?: string | undefined;
  /** What the person consents to; default the provider’s. */
  readonly scope?: string | undefined;
  /** What the first token is for, where the consent covers more than one resource: a token serves one. */
  readonly tokenScope?: string | undefined;
}

export interface SignedIn {
  readonly refreshToken: Secret;
  readonly accessToken: Secret;
  /** ms since the epoch. */
  readonly expiresAt: number;
  /** Of who signed in, where an ID token told it. */
  readonly name: string | undefined;
}

export interface DevicePrompt {
  readonly url: string;
  readonly code: string;
  readonly minutes: number;
}

/** Sign-in on any other device. `show` is called once with what the person needs. */
export async function signInWithDevice(
  target: SignInTarget,
  show: (prompt: DevicePrompt) => void,
  signal?: AbortSignal,
): Promise<SignedIn> {
  const { config, sent } = configure(target);
  try {
    const device = await oauth.initiateDeviceAuthorization(config, { scope: scopeOf(target) });
    show({
      url: cleanText(device.verification_uri),
      code: cleanText(device.user_code),
      minutes: Math.round(device.expires_in / 60),
    });
    return takeTokens(
      target,
      await oauth.pollDeviceAuthorizationGrant(
        config,
        device,
        tokenParameters(target),
        signal === undefined ? {} : { signal },
      ),
    );
  } catch (error) {
    throw explainSignIn(error, target.email, sent);
  }
}

const scopeOf = (target: SignInTarget): string => target.scope ?? target.profile.signInScope;
const tokenParameters = ({ tokenScope }: SignInTarget): Record<string, string> =>
  tokenScope === undefined ? {} : { scope: tokenScope };

export interface BrowserPrompt {
  /** Called once with the address to open and the loopback port its end comes back to. */
  show(url: string, port: number): void;
  /** The address of the page a browser elsewhere ended on; rejects where nobody can answer. */
  askRedirect(signal: AbortSignal): Promise<string>;
  /** 0 picks a free one. */
  readonly port: number;
  /** How long the person may take, ms. */
  readonly timeoutMs: number;
}

/** A sign-in page that was prepared, and what makes a grant of the address it ends on. */
export interface BrowserSignIn {
  /** The page to open. */
  readonly url: string;
  /** Comes back in the redirect; known to nobody else. */
  readonly state: string;
  /** Rejects with `OperatorError` where the redirect is no consent for this mailbox. */
  finish(redirect: URL): Promise<SignedIn>;
}

/** Prepares a sign-in whose redirect comes to `redirectUri`. */
export async function beginBrowserSignIn(target: SignInTarget, redirectUri: string): Promise<BrowserSignIn> {
  const { config, sent } = configure(target);
  const state = oauth.randomState();
  const verifier = oauth.randomPKCECodeVerifier();
  // Only an ID token carries a nonce back.
  const nonce = asksWho(target.profile) ? oauth.randomNonce() : undefined;
  const url = oauth.buildAuthorizationUrl(config, {
    ...target.profile.authorizeParameters,
    redirect_uri: redirectUri,
    scope: scopeOf(target),
    state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    login_hint: target.email,
    ...(nonce === undefined ? {} : { nonce }),
  });
  return {
    url: url.href,
    state,
    async finish(redirect) {
      try {
        const current = new URL(redirect);
        // Some providers name themselves there without announcing it (RFC 9207); the nonce already binds it.
        if (target.profile.issuer === undefined) current.searchParams.delete('iss');
        const checks = {
          pkceCodeVerifier: verifier,
          expectedState: state,
          ...(nonce === undefined ? {} : { expectedNonce: nonce, idTokenExpected: true }),
        };
        const tokens = await oauth.authorizationCodeGrant(config, current, checks, tokenParameters(target));
        const signedInAs = tokens.claims()?.email;
        if (typeof signedInAs === 'string' && foldAddress(signedInAs) !== foldAddress(target.email))
          throw new OperatorError(
            `signed in as ${cleanText(signedInAs)}, not as ${target.email}: choose the right account on the sign-in page`,
          );
        return takeTokens(target, tokens);
      } catch (error) {
        throw explainSignIn(error, target.email, [...sent, verifier, state]);
      }
    },
  };
}

/** Host that a loopback redirect is registered with. */
export const loopbackHost = (profile: ProviderProfile): string => profile.redirectHost ?? '127.0.0.1';

/** Sign-in in a browser, here or elsewhere. */
export async function signInWithBrowser(target: SignInTarget, prompt: BrowserPrompt): Promise<SignedIn> {
  const redirect = await listenForRedirect(loopbackHost(target.profile), prompt.port, prompt.timeoutMs);
  const typing = new AbortController();
  try {
    const begun = await beginBrowserSignIn(target, redirect.uri);
    prompt.show(begun.url, redirect.port);
    const pasted = prompt.askRedirect(typing.signal).then(
      (text) => parseRedirect(text, redirect.uri),
      // Nobody to paste: the loopback redirect has to do.
      () => new Promise<never>(() => {}),
    );
    return await begun.finish(await Promise.race([redirect.arrived, pasted]));
  } catch (error) {
    throw explainSignIn(error, target.email, []);
  } finally {
    typing.abort();
    redirect.close();
  }
}

/** The redirect as pasted: the whole address, or what stands behind its question mark. */
export function parseRedirect(text: string, redirectUri: string): URL {
  const trimmed = text.trim();
  const query = trimmed.includes('?') ? trimmed.slice(trimmed.indexOf('?')) : `?${trimmed}`;
  const url = new URL(redirectUri);
  url.search = query.replace(/#.*$/, '');
  if (!url.searchParams.has('code') && !url.searchParams.has('error'))
    throw new OperatorError('that address holds no code: copy the whole address of the page you ended on');
  return url;
}

/** `sent`: the secrets in what was sent so far, which no message may repeat. */
function configure({ profile, tenant, clientId, clientSecret, tokenUrl }: SignInTarget): {
  readonly config: oauth.Configuration;
  readonly sent: ReadonlySet<string>;
} {
  const atTenant = (url: string | undefined): string | undefined =>
    url?.replaceAll('{tenant}', encodeURIComponent(tenant ?? profile.tenant ?? ''));
  const urls = {
    token_endpoint: atTenant(tokenUrl ?? profile.tokenUrl),
    authorization_endpoint: atTenant(profile.authorizeUrl),
    device_authorization_endpoint: atTenant(profile.deviceUrl),
  };
  const given = Object.entries(urls).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const clear = given.filter(([, url]) => new URL(url).protocol !== 'https:');
  for (const [name, url] of clear)
    if (!isLoopbackHost(new URL(url).hostname)) throw new OperatorError(`${name} must be https: ${url}`, 2);
  const issuer = profile.issuer ?? new URL(urls.token_endpoint ?? '').origin;
  const config = new oauth.Configuration(
    { issuer, ...Object.fromEntries(given) },
    clientId,
    {},
    clientSecret === undefined ? oauth.None() : oauth.ClientSecretPost(clientSecret.reveal()),
  );
  if (clear.length > 0) oauth.allowInsecureRequests(config);
  const sent = new Set<string>();
  const send = asksWho(profile) ? ask : askUnchecked;
  config[oauth.customFetch] = (url, options) => {
    for (const [name, value] of new URLSearchParams(String(options.body ?? '')))
      if (!PUBLIC.has(name)) sent.add(value);
    return send(url, options);
  };
  return { config, sent };
}

/** In a form, what anybody may know; all else is the client's secret, a code or its verifier. */
const PUBLIC: ReadonlySet<string> = new Set(['client_id', 'grant_type', 'redirect_uri', 'scope']);

/** Its ID tokens are checked by openid-client. */
const asksWho = ({ signInScope }: ProviderProfile): boolean => signInScope.split(' ').includes('openid');

/** A member of an answer, with the ID token of a provider whose issuer openid-client cannot know: Microsoft's is the tenant. */
const TOLD = 'unchecked_id_token';

async function askUnchecked(...asked: Parameters<oauth.CustomFetch>): Promise<Response> {
  const answer = await ask(...asked);
  const { id_token, ...others } = parseJsonObject(await answer.clone().text()) ?? {};
  const { status } = answer;
  return id_token === undefined ? answer : Response.json({ ...others, [TOLD]: id_token }, { status });
}

/** A person waits for the answer. */
const ANSWER_TIMEOUT_MS = 30_000;

/** By the proxy that the relay's own requests take. Rejects with an `OperatorError` that names the host. */
async function ask(
  url: string,
  { method, headers, body, signal }: oauth.CustomFetchOptions,
): Promise<Response> {
  const http = createHttp();
  const stop = (): void => void http.close();
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const answer = await http.request({
      method: method === 'POST' ? 'POST' : 'GET',
      url,
      headers,
      ...(body === undefined || body === null ? {} : { body: String(body) }),
      timeoutMs: ANSWER_TIMEOUT_MS,
    });
    signal?.throwIfAborted();
    if (answer.kind === 'lost') {
      const { what, cure } = explainCause(findTokenNetworkCause(answer.code), ANY_ACCOUNT);
      throw new OperatorError(
        `${new URL(url).host}: ${what} (${answer.detail ?? answer.code})\n  cure: ${cure}`,
      );
    }
    const { status } = answer;
    return new Response(BODILESS.has(status) ? null : answer.body, { status, headers: answer.headers });
  } finally {
    signal?.removeEventListener('abort', stop);
    await http.close();
  }
}

/** Fetch: null body status. */
const BODILESS: ReadonlySet<number> = new Set([101, 103, 204, 205, 304]);

/** Without expires_in the token is used once, for the check that follows. */
const UNSTATED_LIFETIME_S = 300;

function takeTokens({ profile, clientId }: SignInTarget, tokens: oauth.TokenEndpointResponse): SignedIn {
  if (tokens.refresh_token === undefined)
    throw new OperatorError(
      `${profile.title} gave no refresh token: the scope has to ask for offline access (offline_access, or access_type=offline at Google)`,
    );
  return {
    refreshToken: new Secret(tokens.refresh_token),
    accessToken: new Secret(tokens.access_token),
    expiresAt: Date.now() + Math.min((tokens.expires_in ?? UNSTATED_LIFETIME_S) * 1000, MAX_LIFETIME_MS),
    name: nameIn(tokens[TOLD], clientId),
  };
}

/**
 * The login name. The ID token came straight from the token endpoint, so its signature says nothing more (OpenID
 * Connect Core 1.0 §3.1.3.7). Its `email` is whatever the administrator of some tenant wrote there.
 */
function nameIn(idToken: unknown, clientId: string): string | undefined {
  const { aud, preferred_username: name } =
    (typeof idToken === 'string' ? claimsOf(idToken) : undefined) ?? {};
  return aud === clientId && typeof name === 'string' ? cleanText(name) : undefined;
}

/** openid-client's errors in our words; the provider's description is kept, without what was sent to it. */
function explainSignIn(error: unknown, email: string, sent: Iterable<string>): unknown {
  if (error instanceof OperatorError) return error;
  if (!(error instanceof Error)) return error;
  if (error.cause instanceof OperatorError) return error.cause;
  const secrets = [...sent];
  const {
    error: code,
    error_description: description,
    cause,
  } = error as Error & {
    error?: unknown;
    error_description?: unknown;
  };
  if (typeof code === 'string') {
    const sentence = typeof description === 'string' ? description : '';
    const found = findSignInCause(code, cleanText(sentence));
    const { what, cure } = explainCause(found, { ...ANY_ACCOUNT, user: email });
    const quoted = quoteCleaned(code, secrets);
    const said = sentence === '' ? quoted : `${quoted} (${quoteCleaned(sentence, secrets)})`;
    return new OperatorError(`${what}: ${said}\n  cure: ${cure}`, 1, { cause: error });
  }
  return new OperatorError(quoteCleaned(`sign-in failed: ${error.message}${reasonOf(cause)}`, secrets), 1, {
    cause: error,
  });
}

/** A parser's words quote the answer, in pieces too short to be masked. */
function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return '';
  const { code } = cause as NodeJS.ErrnoException;
  return `: ${code ?? (cause instanceof SyntaxError ? 'it is no JSON' : cause.message)}`;
}
