import assert from 'node:assert/strict';
import { test } from 'node:test';
import { supersededKeys } from '../../src/accounts/build-credential.ts';

test('an entry that gets another grant keeps nothing that it was asked with before', () => {
  const old = { email: 'a@x', access_token: 't', expires_at: 1, client_id: 'c' };
  const person = { client_id: 'c', refresh_token: 'new' };
  const application = { grant: 'client_credentials', client_id: 'c', client_secret: 's' };
  const service = { grant: 'jwt_bearer', service_account_file: 'key.json' };
  const certified = { grant: 'client_credentials', certificate: 'c', private_key: 'k' };
  const inEntry = { grant: 'jwt_bearer', client_email: 'e', private_key: 'k', private_key_id: 'i' };
  for (const [entry, given, gone] of [
    [{ client_secret: 's', refresh_token: 'r' }, person, []],
    [{ ...service, subject: 'a@x' }, person, ['grant', 'service_account_file', 'subject']],
    [certified, person, ['certificate', 'grant', 'private_key']],
    [{ client_secret: 's', client_id: 'another' }, person, ['client_secret']],
    [{ client_secret: 's', client_id: undefined }, person, []],
    [{ client_secret: 's', refresh_token: 'r' }, application, ['refresh_token']],
    // The secret is what the entry had beside the certificate.
    [{ ...certified, client_secret: 's' }, application, []],
    [certified, { ...application, client_secret: undefined }, []],
    [certified, application, ['certificate', 'private_key']],
    [inEntry, application, ['client_email', 'private_key', 'private_key_id']],
    [inEntry, service, ['client_email', 'private_key', 'private_key_id']],
    [{ ...service, subject: 'a@x' }, service, []],
    [{ refresh_token: 'r', client_secret: 's' }, service, ['client_secret', 'refresh_token']],
  ] as const)
    assert.deepEqual(
      [...new Set(supersededKeys({ ...old, ...entry }, given))].sort(),
      ['access_token', 'expires_at', ...gone].sort(),
      JSON.stringify([entry, given]),
    );
});
