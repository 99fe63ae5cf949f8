/**
 * The credential of one account. In: its checked entry, provider profile, where secrets stand. Out: the
 * credential, or complaints through `wrong`. Reads secret and key files; owns nothing.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { resolve } from 'node:path';
import { isLoopbackHost } from '../protocol/cidr.ts';
import type { GrantType } from './account.ts';
import type { ClientCertificate, Credential, Secret } from './credential.ts';
import { isSharedTenant, type ProviderProfile } from './providers.ts';
import { type AccountEntry, type Issue, NO_LOGIN, type SecretSource } from './schema.ts';
import {
  explainFileError,
  readSecret,
  readSecretText,
  readSmallFile,
  type SecretPlaces,
  SecretSourceError,
} from './secret-source.ts';

/** Notes what is wrong with a key; undefined so that it can be returned in place of a value. */
export type Wrong = (key: string, message: string) => undefined;

interface Notes {
  readonly wrong: Wrong;
  readonly warnings: Issue[];
}

/** Keys that only some grants read; elsewhere they are most likely a mistake. */
const KEYS_OF: Record<GrantType, readonly (keyof AccountEntry)[]> = {
  refresh_token: ['client_secret', 'refresh_token'],
  client_credentials: ['client_secret', 'certificate', 'private_key'],
  jwt_bearer: ['service_account_file', 'client_email', 'private_key', 'private_key_id', 'subject'],
};

/**
 * Keys of `entry` that go when it gets the keys `given` of a grant, so that nothing else is asked with: those of another
 * grant or another proof of the client, and the access token that came by them.
 */
export function supersededKeys(
  entry: Readonly<Record<string, unknown>>,
  given: Readonly<Record<string, unknown>>,
): readonly string[] {
  const grant = (given.grant ?? 'refresh_token') as GrantType;
  const otherProof: Record<GrantType, readonly string[]> = {
    refresh_token: [],
    client_credentials:
      entry.certificate === undefined || ![undefined, entry.client_secret].includes(given.client_secret)
        ? ['certificate', 'private_key']
        : [],
    jwt_bearer: ['client_email', 'private_key', 'private_key_id'],
  };
  // That of another client.
  const isOther = ![undefined, given.client_id].includes(entry.client_id) && given.client_id !== undefined;
  const ofClient = isOther ? ['client_secret'] : [];
  const read: readonly string[] = KEYS_OF[grant].filter(
    (key) => !otherProof[grant].includes(key) && !ofClient.includes(key),
  );
  const gone = ['grant', 'access_token', 'expires_at', ...Object.values(KEYS_OF).flat()];
  return gone.filter((key) => entry[key] !== undefined && given[key] === undefined && !read.includes(key));
}

/** Builds the credential, or says through `notes.wrong` why not. */
export function buildCredential(
  entry: AccountEntry,
  profile: ProviderProfile,
  places: SecretPlaces,
  { wrong, warnings }: Notes,
): Credential | undefined {
  const grant = entry.grant ?? 'refresh_token';
  const defaultScope = profile.scopes[grant];
  if (defaultScope === undefined)
    return wrong('grant', `${profile.name} has no ${grant}: use ${Object.keys(profile.scopes).join(' or ')}`);
  for (const key of Object.values(KEYS_OF).flat())
    if (entry[key] !== undefined && !KEYS_OF[grant].includes(key))
      warnings.push({ path: [key], message: `is not used with the grant ${grant}` });

  const secretOf = (key: 'client_secret' | 'refresh_token' | 'private_key' | 'access_token') => {
    const source = entry[key];
    if (source === undefined) return undefined;
    try {
      return readSecret(source, places);
    } catch (error) {
      return wrong(key, sourceMessage(error));
    }
  };
  const missing = (key: keyof AccountEntry): undefined =>
    entry[key] === undefined ? wrong(key, `is missing (the grant ${grant} needs it)`) : undefined;

  const key = grant === 'jwt_bearer' ? readServiceAccount(entry, places, wrong) : undefined;
  const tokenUrl = tokenUrlOf(entry, profile, key?.tokenUrl, wrong);
  const initial = initialToken(entry, secretOf('access_token'), places, wrong);
  const base = {
    tokenUrl: tokenUrl ?? '',
    scope: entry.scope ?? defaultScope,
    safetyBufferMs: entry.token_safety_buffer_ms ?? profile.safetyBufferMs,
    ...(initial === undefined ? {} : { initial }),
  };
  const clientId = entry.client_id;
  switch (grant) {
    case 'refresh_token': {
      const refreshToken = secretOf('refresh_token') ?? missing('refresh_token');
      const clientSecret = secretOf('client_secret');
      if (clientId === undefined) return missing('client_id');
      if (refreshToken === undefined) return undefined;
      return { grant, clientId, refreshToken, ...base, ...(clientSecret && { clientSecret }) };
    }
    case 'client_credentials': {
      const clientSecret = secretOf('client_secret');
      const clientCertificate = readCertificate(entry, places, { wrong, warnings });
      if (clientId === undefined) return missing('client_id');
      if (entry.client_secret === undefined && entry.certificate === undefined)
        return wrong('client_secret', 'is missing: give it, or certificate and private_key');
      return {
        ...base,
        grant,
        clientId,
        ...(clientSecret && { clientSecret }),
        ...(clientCertificate && { clientCertificate }),
      };
    }
    case 'jwt_bearer':
      if (key === undefined) return undefined;
      return {
        ...base,
        grant,
        clientId: key.clientEmail,
        privateKeyPem: key.privateKeyPem,
        subject: entry.subject ?? entry.user ?? entry.email,
        ...(key.privateKeyId === undefined ? {} : { privateKeyId: key.privateKeyId }),
      };
    default:
      return grant satisfies never;
  }
}

const sourceMessage = (error: unknown): string =>
  error instanceof SecretSourceError ? error.message : explainFileError(error);

function tokenUrlOf(
  entry: AccountEntry,
  profile: ProviderProfile,
  ofKeyFile: string | undefined,
  wrong: Wrong,
): string | undefined {
  if (entry.token_url !== undefined && entry.oauth_token_url !== undefined)
    return wrong('oauth_token_url', 'token_url says the same thing: keep one of the two');
  const key = entry.oauth_token_url === undefined ? 'token_url' : 'oauth_token_url';
  const template = entry.token_url ?? entry.oauth_token_url ?? ofKeyFile ?? profile.tokenUrl;
  const tenant = entry.tenant ?? profile.tenant;
  if (template.includes('{tenant}')) {
    if (tenant === undefined) return wrong('tenant', 'is missing: the token endpoint has one in its address');
    if (entry.grant === 'client_credentials' && isSharedTenant(tenant))
      return wrong('tenant', "client_credentials needs your own tenant's id or domain (AADSTS9001023)");
  }
  try {
    const url = new URL(template.replaceAll('{tenant}', encodeURIComponent(tenant ?? '')));
    if (url.username !== '' || url.password !== '') return wrong(key, NO_LOGIN);
    if (url.protocol === 'https:' || isLoopbackHost(url.hostname)) return url.href;
  } catch {
    return wrong(key, 'expected an absolute https:// address');
  }
  return wrong(key, 'must be https: it receives secrets (http is allowed on loopback only)');
}

/** Numbers below this are seconds: in milliseconds it would be 1973. */
const FIRST_MILLISECONDS = 100_000_000_000;

function initialToken(
  entry: AccountEntry,
  accessToken: Secret | undefined,
  places: SecretPlaces,
  wrong: Wrong,
) {
  if (entry.access_token === undefined && entry.expires_at !== undefined)
    return wrong('expires_at', 'stands without access_token: remove it');
  if (accessToken === undefined) return undefined;
  if (entry.expires_at === undefined) return wrong('expires_at', 'is missing: access_token needs it');
  try {
    const at =
      typeof entry.expires_at === 'object' ? readSecretText(entry.expires_at, places) : entry.expires_at;
    const seconds = typeof at === 'number' || /^\d{1,15}(?:\.\d{1,9})?$/.test(at) ? Number(at) : undefined;
    const expiresAt =
      seconds === undefined
        ? Date.parse(String(at))
        : Math.round(seconds < FIRST_MILLISECONDS ? seconds * 1000 : seconds);
    if (Number.isNaN(expiresAt))
      return wrong('expires_at', 'expected a time such as 2030-01-31T12:00:00Z, or seconds since 1970');
    return { accessToken, expiresAt };
  } catch (error) {
    return wrong('expires_at', sourceMessage(error));
  }
}

interface ServiceAccount {
  readonly clientEmail: string;
  readonly privateKeyPem: Secret;
  readonly privateKeyId: string | undefined;
  readonly tokenUrl: string | undefined;
}

function readServiceAccount(
  entry: AccountEntry,
  places: SecretPlaces,
  wrong: Wrong,
): ServiceAccount | undefined {
  const file = entry.service_account_file;
  const { client_email: clientEmail, private_key: privateKey } = entry;
  if (file === undefined) {
    if (clientEmail === undefined || privateKey === undefined)
      return wrong(
        'service_account_file',
        'is missing: name the key file from Google, or give client_email and private_key',
      );
    const pem = readPrivateKey(privateKey, places, wrong);
    const privateKeyId = entry.private_key_id;
    return pem && { clientEmail, privateKeyPem: pem.secret, privateKeyId, tokenUrl: undefined };
  }
  const refuse = (message: string): undefined => wrong('service_account_file', message);
  let content: unknown;
  try {
    content = JSON.parse(readSmallFile(resolve(places.directory, file)));
  } catch (error) {
    // Never the parser's own words: they quote the file.
    return refuse(error instanceof SecretSourceError ? error.message : `${file} is not JSON`);
  }
  const field = (name: string): string | undefined => {
    const value = (content as Record<string, unknown> | null)?.[name];
    return typeof value === 'string' && value !== '' ? value : undefined;
  };
  const [email, key] = [field('client_email'), field('private_key')];
  if (email === undefined || key === undefined)
    return refuse(`${file} holds no client_email and private_key: it is not a service account key`);
  const pem = readPrivateKey(key, places, wrong, 'service_account_file');
  const [privateKeyId, tokenUrl] = [field('private_key_id'), field('token_uri')];
  return pem && { clientEmail: email, privateKeyPem: pem.secret, privateKeyId, tokenUrl };
}

function readPrivateKey(
  source: SecretSource,
  places: SecretPlaces,
  wrong: Wrong,
  key = 'private_key',
): { secret: Secret; object: KeyObject } | undefined {
  try {
    const secret = readSecret(source, places);
    return { secret, object: createPrivateKey(secret.reveal()) };
  } catch (error) {
    return wrong(
      key,
      error instanceof SecretSourceError ? error.message : 'expected a PEM private key without passphrase',
    );
  }
}

const DAY = 86_400_000;
/** A certificate that ends sooner is worth a warning; registering a new one takes an administrator. */
const CERTIFICATE_WARNING_DAYS = 30;

function readCertificate(
  entry: AccountEntry,
  places: SecretPlaces,
  { wrong, warnings }: Notes,
): ClientCertificate | undefined {
  const { certificate: source, private_key: keySource } = entry;
  if (source === undefined && keySource === undefined) return undefined;
  if (source === undefined) return wrong('certificate', 'is missing: private_key needs it');
  if (keySource === undefined) return wrong('private_key', 'is missing: certificate needs it');
  const privateKey = readPrivateKey(keySource, places, wrong);
  try {
    const certificatePem = readSecretText(source, places);
    const certificate = new X509Certificate(certificatePem);
    if (privateKey === undefined) return undefined;
    if (!certificate.checkPrivateKey(privateKey.object))
      return wrong('private_key', 'does not belong to the certificate');
    const daysLeft = Math.floor((Date.parse(certificate.validTo) - Date.now()) / DAY);
    if (daysLeft < CERTIFICATE_WARNING_DAYS)
      warnings.push({
        path: ['certificate'],
        message:
          daysLeft < 0 ? 'has expired: register a new one' : `ends in ${daysLeft} days: register a new one`,
      });
    return { privateKeyPem: privateKey.secret, certificatePem };
  } catch (error) {
    return wrong(
      'certificate',
      error instanceof SecretSourceError ? error.message : 'expected a PEM certificate',
    );
  }
}
