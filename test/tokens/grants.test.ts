/** The grants against the simulator, which checks every signature, secret and clock itself. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type ClientCredentialsCredential,
  type JwtBearerCredential,
  Secret,
} from '../../src/accounts/credential.ts';
import { TokenError } from '../../src/tokens/access-token.ts';
import { createTokenService, type TokenService } from '../../src/tokens/token-service.ts';
import { startTokenEndpoint, type TokenEndpoint } from '../support/token-endpoint.ts';
import { account, createTestLog, refreshCredential } from './support.ts';

interface KeyPair {
  readonly key: string;
  readonly certificate: string;
}

function makeKeyPair(): KeyPair {
  const directory = mkdtempSync(join(tmpdir(), 'tokens-test-'));
  const [key, certificate] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
  const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=relay', '-days', '2'];
  execFileSync('openssl', [...request, '-keyout', key, '-out', certificate], { stdio: 'ignore' });
  const pair = { key: readFileSync(key, 'utf8'), certificate: readFileSync(certificate, 'utf8') };
  rmSync(directory, { recursive: true });
  return pair;
}

const pair = makeKeyPair();
const foreign = makeKeyPair();
const BUFFER = { safetyBufferMs: 300_000 };

async function provider(t: TestContext, flavour: 'gmail' | 'microsoft'): Promise<TokenEndpoint> {
  const endpoint = await startTokenEndpoint(flavour);
  t.after(() => endpoint.close());
  return endpoint;
}

function service(t: TestContext, log = createTestLog()): TokenService {
  const tokens = createTokenService({ log });
  t.after(() => tokens.close());
  return tokens;
}

const failsWith = (code: string) => (error: unknown) => error instanceof TokenError && error.code === code;
const claimsOf = (jwt: string | null | undefined, part: 0 | 1): Record<string, unknown> =>
  JSON.parse(Buffer.from((jwt ?? '').split('.')[part] ?? '', 'base64url').toString());

const serviceAccount = (
  endpoint: TokenEndpoint,
  more: Partial<JwtBearerCredential> = {},
): JwtBearerCredential => ({
  ...BUFFER,
  grant: 'jwt_bearer',
  tokenUrl: endpoint.url,
  scope: 'https://mail.google.com/',
  clientId: 'robot@project.iam.gserviceaccount.com',
  privateKeyPem: new Secret(pair.key),
  privateKeyId: 'key-7',
  subject: 'a@x',
  ...more,
});

const appOnly = (
  endpoint: TokenEndpoint,
  more: Partial<ClientCredentialsCredential>,
): ClientCredentialsCredential => ({
  ...BUFFER,
  grant: 'client_credentials',
  tokenUrl: endpoint.url,
  scope: 'https://outlook.office365.com/.default',
  clientId: 'app-1',
  ...more,
});

test('refresh token of a public client goes without a secret', async (t) => {
  const endpoint = await provider(t, 'microsoft');
  const { clientId, refreshToken } = endpoint.add('a@x', { publicClient: true });
  const tokens = service(t);
  const { clientSecret: _none, ...credential } = refreshCredential(endpoint.url, 'a@x', {
    clientId,
    refreshToken: new Secret(refreshToken),
    scope: 'https://outlook.office.com/SMTP.Send offline_access',
  });
  tokens.applyAccounts([{ account: account('a@x'), credential }]);
  assert.ok(endpoint.verify('a@x', (await tokens.get('a@x')).reveal()));
  const form = endpoint.requests[0]?.form;
  assert.equal(form?.has('client_secret'), false);
  assert.equal(form?.get('scope'), 'https://outlook.office.com/SMTP.Send offline_access');
});

test('rotation that kills the old refresh token is followed', async (t) => {
  const endpoint = await provider(t, 'microsoft');
  endpoint.rotation = 'revoke-old';
  const { clientId, clientSecret, refreshToken } = endpoint.add('a@x');
  const tokens = service(t);
  const credential = refreshCredential(endpoint.url, 'a@x', {
    clientId,
    clientSecret: new Secret(clientSecret ?? ''),
    refreshToken: new Secret(refreshToken),
  });
  tokens.applyAccounts([{ account: account('a@x'), credential }]);
  for (let i = 0; i < 4; i += 1) {
    await tokens.refresh('a@x');
    assert.ok(endpoint.verify('a@x', tokens.peek('a@x')?.reveal() ?? ''));
  }
});

test('client credentials with a secret', async (t) => {
  const endpoint = await provider(t, 'microsoft');
  endpoint.add('a@x', { clientId: 'app-1', clientSecret: 's e+c&r=e%t' });
  const tokens = service(t);
  const credential = appOnly(endpoint, { clientSecret: new Secret('s e+c&r=e%t') });
  tokens.applyAccounts([{ account: account('a@x'), credential }]);
  assert.ok(endpoint.verify('a@x', (await tokens.get('a@x')).reveal()));
});

test('client credentials with a certificate: PS256, its SHA-256 thumbprint, a new id each time', async (t) => {
  const endpoint = await provider(t, 'microsoft');
  endpoint.add('a@x', { clientId: 'app-1', publicKeyPem: pair.certificate });
  const tokens = service(t);
  const clientCertificate = { privateKeyPem: new Secret(pair.key), certificatePem: pair.certificate };
  tokens.applyAccounts([{ account: account('a@x'), credential: appOnly(endpoint, { clientCertificate }) }]);
  assert.ok(endpoint.verify('a@x', (await tokens.get('a@x')).reveal()));
  await tokens.refresh('a@x');
  const [first, second] = endpoint.requests.map((r) => r.form.get('client_assertion'));
  const thumbprint = createHash('sha256')
    .update(new X509Certificate(pair.certificate).raw)
    .digest('base64url');
  assert.deepEqual(claimsOf(first, 0), { alg: 'PS256', typ: 'JWT', 'x5t#S256': thumbprint });
  const claims = claimsOf(first, 1);
  assert.equal(claims.aud, endpoint.url);
  assert.ok(Number(claims.exp) - Number(claims.iat) <= 600);
  assert.notEqual(claims.jti, claimsOf(second, 1).jti);
});

test("a certificate the app does not know is the app's fault, an unusable key needs no request", async (t) => {
  const endpoint = await provider(t, 'microsoft');
  endpoint.add('a@x', { clientId: 'app-1', publicKeyPem: pair.certificate });
  const log = createTestLog();
  const tokens = service(t, log);
  const wrong = { privateKeyPem: new Secret(foreign.key), certificatePem: foreign.certificate };
  const broken = { privateKeyPem: new Secret('not-a-key-but-secret'), certificatePem: pair.certificate };
  tokens.applyAccounts([
    { account: account('a@x'), credential: appOnly(endpoint, { clientCertificate: wrong }) },
    { account: account('b@x'), credential: appOnly(endpoint, { clientCertificate: broken }) },
  ]);
  await assert.rejects(tokens.get('a@x'), failsWith('app_misconfigured'));
  await assert.rejects(tokens.get('b@x'), failsWith('app_misconfigured'));
  assert.equal(endpoint.count(), 1);
  assert.equal(tokens.breakers()[0]?.faults, 0);
  assert.doesNotMatch(log.text(), /not-a-key|BEGIN/);
});

test('a Google service account acts for the mailbox', async (t) => {
  const endpoint = await provider(t, 'gmail');
  endpoint.add('a@x', { clientId: 'robot@project.iam.gserviceaccount.com', publicKeyPem: pair.certificate });
  const tokens = service(t);
  tokens.applyAccounts([{ account: account('a@x'), credential: serviceAccount(endpoint) }]);
  assert.ok(endpoint.verify('a@x', (await tokens.get('a@x')).reveal()));
  const assertion = endpoint.requests[0]?.form.get('assertion');
  assert.deepEqual(claimsOf(assertion, 0), { alg: 'RS256', typ: 'JWT', kid: 'key-7' });
  assert.equal(claimsOf(assertion, 1).sub, 'a@x');
});

for (const hours of [-3, 3]) {
  test(`a clock ${hours} h off is corrected by the endpoint's Date and the request made once more`, async (t) => {
    const endpoint = await provider(t, 'gmail');
    endpoint.add('a@x', {
      clientId: 'robot@project.iam.gserviceaccount.com',
      publicKeyPem: pair.certificate,
    });
    endpoint.clockOffsetMs = hours * 3_600_000;
    const log = createTestLog();
    const tokens = service(t, log);
    tokens.applyAccounts([{ account: account('a@x'), credential: serviceAccount(endpoint) }]);
    assert.ok(endpoint.verify('a@x', (await tokens.get('a@x')).reveal()));
    assert.equal(endpoint.count(), 2);
    assert.equal(log.lines.filter((l) => l.fields.event === 'clock_skew').length, 1);
    const { refresh_attempts, refresh_success, refresh_failures } = tokens.totals();
    assert.deepEqual([refresh_attempts, refresh_success, refresh_failures], [2, 1, 1]);
  });
}

test("a mailbox the service account may not use is the account's affair", async (t) => {
  const endpoint = await provider(t, 'gmail');
  const tokens = service(t);
  tokens.applyAccounts([{ account: account('a@x'), credential: serviceAccount(endpoint) }]);
  await assert.rejects(tokens.get('a@x'), failsWith('needs_consent'));
});
