import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { AccessToken, TokenError } from '../../src/tokens/access-token.ts';
import {
  bufferFor,
  createEntry,
  freshUntil,
  refreshAheadAt,
  stateOf,
  takeStored,
  takeToken,
  usableUntil,
} from '../../src/tokens/token-entry.ts';
import { entryFor } from './support.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const token = (lifeMs: number): AccessToken => new AccessToken('t', 1_000_000 + lifeMs, 1_000_000);

test('the buffer is the whole one for long lives, a part of short ones', () => {
  assert.equal(bufferFor(HOUR, 5 * MINUTE), 5 * MINUTE);
  assert.equal(bufferFor(10 * MINUTE, 5 * MINUTE), 5 * MINUTE);
  for (const life of [1000, MINUTE, 9 * MINUTE]) {
    const buffer = bufferFor(life, 5 * MINUTE);
    assert.ok(buffer > 0 && buffer <= life / 2, `${life}: ${buffer}`);
  }
});

test('tokens are refreshed ahead near 80 % of life, never after the buffer begins, never all at once', () => {
  for (const [life, buffer] of [
    [HOUR, 5 * MINUTE],
    [HOUR, 10 * MINUTE],
    [90 * MINUTE, 10 * MINUTE],
    [15 * MINUTE, 5 * MINUTE],
    [MINUTE, 5 * MINUTE],
    [28 * HOUR, 10 * MINUTE],
  ] as const) {
    const times = [0, 0.25, 0.5, 1].map((random) => refreshAheadAt(token(life), buffer, random) - 1_000_000);
    for (const at of times) {
      assert.ok(at <= life * 0.8 && at <= freshUntil(token(life), buffer) - 1_000_000, `${life} ${at}`);
      assert.ok(at >= life * 0.5, `${life} ${at}`);
    }
    assert.equal(new Set(times).size, 4);
  }
});

test('without a new one a token is used almost to its end', () => {
  assert.ok(usableUntil(token(HOUR)) < 1_000_000 + HOUR);
  assert.ok(usableUntil(token(HOUR)) > 1_000_000 + HOUR - MINUTE);
  assert.ok(usableUntil(token(1000)) > 1_000_500);
});

const entry = () => {
  const { account, credential } = entryFor('https://t/token', 'a@x');
  return createEntry(account, credential);
};

test('what an operator sees', () => {
  const e = entry();
  assert.deepEqual(stateOf(e, 0), { status: 'refreshing' });
  takeToken(e, token(HOUR), 'on-demand');
  assert.deepEqual(stateOf(e, 1_000_000), { status: 'ready' });
  e.failure = new TokenError('provider_fault', 'down');
  assert.equal(stateOf(e, 1_000_000).status, 'ready');
  assert.deepEqual(stateOf(e, 1_000_000 + HOUR), { status: 'unreachable', reason: 'down' });
  e.failure = new TokenError('needs_consent', 'revoked', { cure: 'sign in' });
  e.blockedUntil = 2_000_000;
  const seen = { status: 'needs_consent', reason: 'revoked', cure: 'sign in', until: 2_000_000 };
  assert.deepEqual(stateOf(e, 1_000_000), seen);
});

test('a stored record is taken where it belongs to the same consent and is newer', () => {
  const stored = {
    grantFingerprint: entry().grantFingerprint,
    tokenFingerprint: entry().tokenFingerprint,
    refreshToken: 'newest',
    refreshTokenObtainedAt: 5,
    accessToken: 'kept',
    expiresAt: HOUR,
    obtainedAt: 1,
  };
  const e = entry();
  assert.equal(takeStored(e, stored, 10), true);
  assert.equal(e.token?.reveal(), 'kept');
  assert.equal(e.refreshToken?.reveal(), 'newest');
  assert.equal(takeStored(e, { ...stored, refreshToken: 'older', refreshTokenObtainedAt: 4 }, 10), false);
  assert.equal(e.refreshToken?.reveal(), 'newest');
  assert.equal(takeStored(entry(), { ...stored, grantFingerprint: 'another' }, 10), false);
  const otherScope = entry();
  assert.equal(takeStored(otherScope, { ...stored, tokenFingerprint: 'another' }, 10), false);
  assert.equal(otherScope.refreshToken?.reveal(), 'newest');
  const refused = entry();
  refused.rejected = new AccessToken('kept', HOUR, 1);
  assert.equal(takeStored(refused, stored, 10), false, 'a rejected token');
  assert.equal(takeStored(entry(), stored, HOUR), false, 'an ended token');
});

test('fingerprints follow the content of a credential, not the object', () => {
  const { account, credential } = entryFor('https://t/token', 'a@x');
  const like = (more: object) => createEntry(account, { ...credential, ...more });
  const same = like({ refreshToken: new Secret(credential.refreshToken.reveal()) });
  assert.equal(same.fingerprint, entry().fingerprint);
  for (const more of [
    { refreshToken: new Secret('x') },
    { clientSecret: new Secret('x') },
    { clientId: 'x' },
    { scope: 'x' },
    { tokenUrl: 'https://x/' },
    { safetyBufferMs: 1 },
    { initial: { accessToken: new Secret('x'), expiresAt: 1 } },
  ]) {
    assert.notEqual(like(more).fingerprint, entry().fingerprint, Object.keys(more).join());
  }
  assert.equal(like({ clientSecret: new Secret('x') }).grantFingerprint, entry().grantFingerprint);
});
