import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  clientAssertionClaims,
  clientCredentialsForm,
  jwtBearerForm,
  refreshTokenForm,
  serviceAccountClaims,
} from '../../src/protocol/token-request.ts';

const read = (form: string): Record<string, string> => Object.fromEntries(new URLSearchParams(form));
const NOW = Date.parse('2026-11-20T10:00:00.700Z');

test('refresh grant, with what is needed and nothing else', () => {
  const facts = { clientId: 'c d', refreshToken: '1//0a+b/=&', scope: '' };
  assert.deepEqual(read(refreshTokenForm(facts)), {
    grant_type: 'refresh_token',
    client_id: 'c d',
    refresh_token: '1//0a+b/=&',
  });
  const confidential = read(refreshTokenForm({ ...facts, clientSecret: 's+~ü', scope: 'a b' }));
  assert.equal(confidential.client_secret, 's+~ü');
  assert.equal(confidential.scope, 'a b');
});

test('client credentials with a secret or an assertion, never both', () => {
  assert.deepEqual(read(clientCredentialsForm('c', 'x/.default', { secret: 's' })), {
    grant_type: 'client_credentials',
    client_id: 'c',
    scope: 'x/.default',
    client_secret: 's',
  });
  assert.deepEqual(read(clientCredentialsForm('c', '', { assertion: 'j.w.t' })), {
    grant_type: 'client_credentials',
    client_id: 'c',
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: 'j.w.t',
  });
});

test('service account grant', () => {
  assert.deepEqual(read(jwtBearerForm('j.w.t')), {
    grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
    assertion: 'j.w.t',
  });
});

test('claims are in whole seconds and live as long as the providers allow', () => {
  const client = clientAssertionClaims('c', 'https://t/token', NOW, 'id-1');
  const now = Math.floor(NOW / 1000);
  assert.deepEqual(
    { ...client, exp: 0 },
    { aud: 'https://t/token', iss: 'c', sub: 'c', jti: 'id-1', iat: now, nbf: now, exp: 0 },
  );
  assert.ok(Number(client.exp) > now && Number(client.exp) <= now + 600);
  const robot = serviceAccountClaims('r@p', 'a@x', 'scope', 'https://t/token', NOW);
  assert.deepEqual(
    { ...robot, exp: 0 },
    { iss: 'r@p', sub: 'a@x', scope: 'scope', aud: 'https://t/token', iat: now, exp: 0 },
  );
  assert.ok(Number(robot.exp) > now && Number(robot.exp) <= now + 3600);
});
