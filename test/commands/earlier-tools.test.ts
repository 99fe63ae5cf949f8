import assert from 'node:assert/strict';
import { test } from 'node:test';
import { convertEarlierAccount } from '../../src/commands/earlier-tools.ts';

const providerOf = (entry: object): unknown =>
  convertEarlierAccount({ client_id: 'c', refresh_token: 'r', ...entry }).entry.provider;

test('which provider an account is with is guessed from its servers, and from its domain where it names none', () => {
  assert.equal(providerOf({ email: 'a@gmail.com' }), 'gmail');
  assert.equal(providerOf({ email: 'a@firm.example', smtp: 'smtp://smtp.office365.com:587' }), 'outlook');
  assert.equal(providerOf({ email: 'a@gmail.com', smtp: 'smtp://smtp.firm.example:587' }), undefined);
  assert.equal(providerOf({ email: 'a@firm.example', provider: 'Google' }), 'gmail');
  // Their own other servers.
  for (const [email, token_url, provider] of [
    ['a@gmail.com', 'https://accounts.google.com/o/oauth2/token', 'gmail'],
    ['a@hotmail.com', 'https://login.live.com/oauth20_token.srf', 'outlook-personal'],
    ['a@outlook.com', 'https://smtp.outlook.com', 'outlook-personal'],
  ])
    assert.equal(providerOf({ email, token_url }), provider);
});

test('what is no text where one is expected is left for the check of the entry', () => {
  const odd = { toString: 1 };
  assert.equal(providerOf({ email: 'a@gmail.com', smtp: odd }), 'gmail');
  assert.equal(providerOf({ email: 'a@gmail.com', provider: odd }), odd);
});
