import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import type { FlavourName } from './flavour.ts';
import { type Defer, leakless } from './leak-check.ts';
import { tokenAnswers } from './token-answers.ts';
import { startTokenEndpoint, type TokenEndpoint } from './token-endpoint.ts';

const USER = 'ann@example.com';

const start = async (defer: Defer, flavour: FlavourName): Promise<TokenEndpoint> => {
  const endpoint = await startTokenEndpoint(flavour);
  defer(() => endpoint.close());
  return endpoint;
};
const post = async (
  endpoint: TokenEndpoint,
  form: Record<string, string>,
): Promise<{ status: number; body: Record<string, unknown> }> => {
  const response = await fetch(endpoint.url, {
    method: 'POST',
    body: new URLSearchParams(form),
    headers: { connection: 'close' },
    redirect: 'manual',
  });
  const text = await response.text();
  return { status: response.status, body: text.startsWith('{') ? JSON.parse(text) : { text } };
};

test(
  'Google: a refresh gives a token that verifies for its user only, and no new refresh token',
  leakless(async (_t, defer) => {
    const endpoint = await start(defer, 'gmail');
    const account = endpoint.add(USER);
    const { status, body } = await post(endpoint, {
      grant_type: 'refresh_token',
      client_id: account.clientId,
      client_secret: account.clientSecret ?? '',
      refresh_token: account.refreshToken,
    });
    assert.equal(status, 200);
    assert.equal(body.expires_in, 3599);
    assert.equal(body.refresh_token, undefined);
    assert.equal(endpoint.verify('ANN@example.com', String(body.access_token)), true);
    assert.equal(endpoint.verify('bob@example.com', String(body.access_token)), false);
    assert.equal(endpoint.count(USER), 1);
  }),
);

test(
  'Microsoft: rotation keeps the old refresh token good or revokes it; a public client must not send a secret',
  leakless(async (_t, defer) => {
    const endpoint = await start(defer, 'microsoft');
    const account = endpoint.add(USER, { publicClient: true });
    const first = account.refreshToken;
    const form = { grant_type: 'refresh_token', client_id: account.clientId, refresh_token: first };
    const fresh = await post(endpoint, form);
    assert.notEqual(fresh.body.refresh_token, first);
    assert.equal((await post(endpoint, form)).status, 200);
    assert.deepEqual((await post(endpoint, { ...form, client_secret: 'x' })).body.error_codes, [700025]);
    endpoint.rotation = 'revoke-old';
    assert.equal((await post(endpoint, form)).status, 200);
    assert.equal((await post(endpoint, form)).body.error, 'invalid_grant');
  }),
);

test(
  'an endpoint that fails grants nothing: the refresh token stays good, and nothing was rotated',
  leakless(async (_t, defer) => {
    const endpoint = await start(defer, 'microsoft');
    endpoint.rotation = 'revoke-old';
    endpoint.decidesAtOnce = true;
    const { clientId, refreshToken } = endpoint.add(USER, { publicClient: true });
    const form = { grant_type: 'refresh_token', client_id: clientId, refresh_token: refreshToken };
    endpoint.always({ status: 503, body: 'no' });
    assert.equal((await post(endpoint, form)).status, 503);
    assert.equal(endpoint.lastRotation(USER), undefined);
    endpoint.always(undefined);
    assert.equal((await post(endpoint, form)).status, 200);
    assert.equal(endpoint.lastRotation(USER)?.isWhole, true);
  }),
);

test(
  'revocation, wrong client and wrong secret sound like the provider',
  leakless(async (_t, defer) => {
    const endpoint = await start(defer, 'gmail');
    const { clientId, clientSecret = '', refreshToken } = endpoint.add(USER);
    const form = {
      grant_type: 'refresh_token',
      client_id: clientId,
      client_secret: clientSecret,
      refresh_token: refreshToken,
    };
    const good = await post(endpoint, form);
    assert.equal((await post(endpoint, { ...form, client_secret: 'no' })).body.error, 'invalid_client');
    assert.equal((await post(endpoint, { ...form, client_id: 'no' })).status, 401);
    assert.equal(
      (await post(endpoint, { ...form, refresh_token: 'no' })).body.error_description,
      'Bad Request',
    );
    assert.equal((await post(endpoint, { grant_type: 'password' })).body.error, 'unsupported_grant_type');
    endpoint.revoke(USER);
    assert.match(String((await post(endpoint, form)).body.error_description), /expired or revoked/);
    assert.equal(endpoint.verify(USER, String(good.body.access_token)), false);
    endpoint.restore(USER);
    assert.equal((await post(endpoint, form)).status, 200);
  }),
);

test(
  'scripted answers wait in line, per user, and standing ones stay',
  leakless(async (_t, defer) => {
    const endpoint = await start(defer, 'microsoft');
    const { clientId, clientSecret = '', refreshToken } = endpoint.add(USER);
    const form = {
      grant_type: 'refresh_token',
      client_id: clientId,
      client_secret: clientSecret,
      refresh_token: refreshToken,
    };
    endpoint.queue(tokenAnswers.microsoftLoop, { user: USER });
    endpoint.queue(tokenAnswers.tooManyRequests(60));
    endpoint.queue({ patch: { expires_in: 'soon', access_token: undefined } });
    endpoint.queue(tokenAnswers.redirect('http://127.0.0.1:9/'));
    endpoint.queue(tokenAnswers.okHtml);
    assert.deepEqual((await post(endpoint, form)).body.error_codes, [50196]);
    assert.deepEqual(await post(endpoint, form), { status: 429, body: { text: 'Too Many Requests' } });
    const patched = await post(endpoint, form);
    assert.equal(patched.body.expires_in, 'soon');
    assert.equal('access_token' in patched.body, false);
    assert.equal((await post(endpoint, form)).status, 302);
    assert.match(String((await post(endpoint, form)).body.text), /^<!doctype/);
    endpoint.queue(tokenAnswers.truncated);
    await assert.rejects(post(endpoint, form));
    endpoint.queue(tokenAnswers.reset);
    await assert.rejects(post(endpoint, form));
    endpoint.always(tokenAnswers.unavailableHtml);
    for (let i = 0; i < 3; i++) assert.equal((await post(endpoint, form)).status, 503);
    endpoint.always(undefined);
    assert.equal((await post(endpoint, form)).status, 200);
    await endpoint.down();
    await assert.rejects(post(endpoint, form));
    await endpoint.up();
    assert.equal((await post(endpoint, form)).status, 200);
  }),
);

test(
  'a JWT assertion is judged by signature, audience and time',
  leakless(async (_t, defer) => {
    const endpoint = await start(defer, 'gmail');
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const account = endpoint.add(USER, {
      clientId: 'robot@project.iam.gserviceaccount.com',
      publicKeyPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    });
    const assertion = (change: object = {}): string => {
      const now = Math.floor(Date.now() / 1000);
      const claims = {
        iss: account.clientId,
        sub: USER,
        aud: endpoint.url,
        iat: now,
        exp: now + 3600,
        ...change,
      };
      const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
      const signed = `${part({ alg: 'RS256' })}.${part(claims)}`;
      return `${signed}.${createSign('sha256').update(signed).sign(privateKey).toString('base64url')}`;
    };
    const form = (jwt: string): Record<string, string> => ({
      grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
      assertion: jwt,
    });
    const good = await post(endpoint, form(assertion()));
    assert.equal(endpoint.verify(USER, String(good.body.access_token)), true);
    assert.match(String((await post(endpoint, form(`${assertion()}x`))).body.error_description), /Signature/);
    assert.match(
      String((await post(endpoint, form(assertion({ aud: 'x' })))).body.error_description),
      /Signature/,
    );
    endpoint.clockOffsetMs = 3_600_000;
    assert.match(
      String((await post(endpoint, form(assertion()))).body.error_description),
      /reasonable timeframe/,
    );
    assert.match(
      String((await post(endpoint, form(assertion({ sub: 'no@example.com' })))).body.error_description),
      /Invalid email/,
    );
  }),
);

test(
  'client credentials are good for every mailbox of the app',
  leakless(async (_t, defer) => {
    const endpoint = await start(defer, 'microsoft');
    const app = { clientId: 'app-1', clientSecret: 's+e&c' };
    endpoint.add(USER, app);
    endpoint.add('bob@example.com', app);
    const form = {
      grant_type: 'client_credentials',
      client_id: 'app-1',
      client_secret: 's+e&c',
      scope: 'x/.default',
    };
    const { body } = await post(endpoint, form);
    assert.equal(endpoint.verify('bob@example.com', String(body.access_token)), true);
    assert.equal(body.refresh_token, undefined);
    assert.deepEqual((await post(endpoint, { ...form, client_secret: 'no' })).body.error_codes, [7000215]);
  }),
);
