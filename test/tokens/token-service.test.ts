import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { TokenError } from '../../src/tokens/access-token.ts';
import {
  createTokenService,
  type TokenService,
  type TokenServiceDeps,
  type TokenServiceOptions,
} from '../../src/tokens/token-service.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor } from '../support/wait-for.ts';
import { account, answerJson, createTestLog, entryFor, grant, startEndpoint } from './support.ts';

const HOUR = 3_600_000;

function serve(
  t: TestContext,
  deps: Partial<TokenServiceDeps> = {},
  options: TokenServiceOptions = {},
): TokenService {
  const service = createTokenService({ log: createTestLog(), random: () => 0, ...deps }, options);
  t.after(() => service.close());
  return service;
}

const failsWith = (code: string) => (error: unknown) => error instanceof TokenError && error.code === code;

test('a token is fetched once and then had synchronously', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  assert.equal(tokens.peek('a@x'), undefined);
  const token = await tokens.get('a@x');
  assert.equal(token.reveal(), 'access-1');
  assert.equal(tokens.peek('a@x'), token);
  assert.equal(await tokens.get('a@x'), token);
  assert.deepEqual(Object.fromEntries(endpoint.requests[0]?.form ?? []), {
    grant_type: 'refresh_token',
    client_id: 'client-1',
    client_secret: 'client-secret-1',
    refresh_token: 'refresh-of-a@x',
  });
  assert.equal(endpoint.requests.length, 1);
});

test('the log tells the life of a token: obtained, from the cache, ended, refused, forgotten', async (t) => {
  const endpoint = await startEndpoint(t);
  const log = createTestLog();
  const clock = createTestClock();
  const tokens = serve(t, { log, clock }, { refreshAhead: false });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await tokens.get('a@x');
  await tokens.get('a@x');
  clock.advance(HOUR);
  await tokens.renew('a@x', await tokens.get('a@x'));
  tokens.forget('a@x');
  assert.deepEqual(
    // The endpoint has a clock of its own.
    log.lines.filter(({ level }) => level !== 'warn').map(({ level, fields }) => `${level} ${fields.event}`),
    [
      'info token_obtained',
      'debug token_cached',
      'debug token_expired',
      'info token_obtained',
      'debug token_rejected',
      'info token_obtained',
      'debug token_forgotten',
    ],
  );
});

test('1,000 callers of one missing token make one request and exact counts', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  const got = await Promise.all(Array.from({ length: 1000 }, () => tokens.get('a@x')));
  assert.equal(new Set(got).size, 1);
  assert.equal(endpoint.requests.length, 1);
  for (let i = 0; i < 1000; i += 1) tokens.peek('a@x');
  assert.deepEqual(tokens.totals(), {
    cache_hits: 1000,
    cache_misses: 1000,
    refresh_attempts: 1,
    refresh_success: 1,
    refresh_failures: 0,
  });
  assert.equal(tokens.statusOf('a@x')?.uses, 2000);
});

test('1,000 callers hear of one failed request', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (_request, response) => answerJson(response, 400, { error: 'invalid_grant' });
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  const got = await Promise.allSettled(Array.from({ length: 1000 }, () => tokens.get('a@x')));
  assert.ok(got.every((r) => r.status === 'rejected' && failsWith('needs_consent')(r.reason)));
  assert.equal(endpoint.requests.length, 1);
  const { refresh_attempts, refresh_failures, cache_misses } = tokens.totals();
  assert.deepEqual([refresh_attempts, refresh_failures, cache_misses], [1, 1, 1000]);
});

test('an account that is not there is told so', async (t) => {
  const tokens = serve(t);
  assert.equal(tokens.peek('nobody'), undefined);
  await assert.rejects(tokens.get('nobody'), failsWith('unknown_account'));
  await assert.rejects(tokens.refresh('nobody'), failsWith('unknown_account'));
  assert.equal(tokens.forget('nobody'), false);
  assert.equal(tokens.statusOf('nobody'), undefined);
});

test('a reload keeps the tokens of untouched accounts only', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = serve(t);
  const first = tokens.applyAccounts(['same', 'other', 'gone'].map((id) => entryFor(endpoint.url, id)));
  assert.deepEqual(first.added, ['same', 'other', 'gone']);
  await tokens.precache();
  const kept = tokens.peek('same');
  const second = tokens.applyAccounts([
    entryFor(endpoint.url, 'same'),
    entryFor(endpoint.url, 'other', { refreshToken: new Secret('another') }),
    entryFor(endpoint.url, 'new'),
  ]);
  assert.deepEqual(second, { added: ['new'], changed: ['other'], removed: ['gone'], untouched: ['same'] });
  assert.equal(tokens.peek('same'), kept);
  assert.equal(tokens.peek('other'), undefined);
  assert.equal(tokens.peek('gone'), undefined);
  await tokens.get('other');
  assert.equal(endpoint.requests.at(-1)?.form.get('refresh_token'), 'another');
});

test('what is being prepared changes nothing until it serves, and then everything at once', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = serve(t);
  tokens.applyAccounts(['same', 'other', 'gone'].map((id) => entryFor(endpoint.url, id)));
  await tokens.precache();
  const before = ['same', 'other', 'gone'].map((id) => tokens.peek(id));
  const steps = tokens.prepareAccounts([
    entryFor(endpoint.url, 'same'),
    entryFor(endpoint.url, 'other', { refreshToken: new Secret('another') }),
    entryFor(endpoint.url, 'new', { initial: { accessToken: new Secret('brought'), expiresAt: 4e12 } }),
  ]);
  let turns = 0;
  let step = steps.next();
  for (; !step.done; step = steps.next()) {
    turns++;
    assert.deepEqual(
      ['same', 'other', 'gone'].map((id) => tokens.peek(id)),
      before,
    );
    assert.equal(tokens.peek('new'), undefined);
  }
  // A step an account, before and after.
  assert.equal(turns, 6);
  step.value();
  assert.equal(tokens.peek('same'), before[0]);
  assert.equal(tokens.peek('other'), undefined);
  assert.equal(tokens.peek('gone'), undefined);
  assert.equal(tokens.peek('new')?.reveal(), 'brought');
});

test('a caller waiting through a reload gets a token of the new credential', async (t) => {
  const endpoint = await startEndpoint(t);
  const held: (() => void)[] = [];
  endpoint.answer = async (request, response) => {
    const given = request.form.get('refresh_token');
    if (given === 'refresh-of-a@x') await new Promise<void>((resume) => held.push(resume));
    grant(response, { access_token: `for-${given}` });
  };
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  const waiting = tokens.get('a@x');
  await waitFor(() => held.length === 1, { what: 'the first request' });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x', { refreshToken: new Secret('second') })]);
  held[0]?.();
  assert.equal((await waiting).reveal(), 'for-second');
  assert.equal(tokens.peek('a@x')?.reveal(), 'for-second');
});

test('a late answer does not replace what came after a forget', async (t) => {
  const endpoint = await startEndpoint(t);
  const held: (() => void)[] = [];
  endpoint.answer = async (_request, response) => {
    const number = endpoint.requests.length;
    if (number === 1) await new Promise<void>((resume) => held.push(resume));
    grant(response, { access_token: `access-${number}` });
  };
  const tokens = serve(t);
  const credential = {
    grant: 'client_credentials',
    tokenUrl: endpoint.url,
    scope: '',
    safetyBufferMs: 300_000,
    clientId: 'app',
    clientSecret: new Secret('s'),
  } as const;
  tokens.applyAccounts([{ account: account('a@x'), credential }]);
  const early = tokens.get('a@x');
  await waitFor(() => held.length === 1, { what: 'the first request' });
  assert.equal(tokens.forget('a@x'), true);
  assert.equal((await tokens.get('a@x')).reveal(), 'access-2');
  held[0]?.();
  assert.equal((await early).reveal(), 'access-1');
  assert.equal(tokens.peek('a@x')?.reveal(), 'access-2');
});

test('a refresh token is never used twice at once', async (t) => {
  const endpoint = await startEndpoint(t);
  const held: (() => void)[] = [];
  endpoint.answer = async (_request, response) => {
    const number = endpoint.requests.length;
    await new Promise<void>((resume) => held.push(resume));
    grant(response, { access_token: `access-${number}`, refresh_token: `rotated-${number}` });
  };
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  const early = tokens.get('a@x');
  await waitFor(() => held.length === 1, { what: 'the first request' });
  tokens.forget('a@x');
  const later = tokens.get('a@x');
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x', { clientSecret: new Secret('new') })]);
  const last = tokens.get('a@x');
  for (let i = 0; i < 5; i += 1) await new Promise((resume) => setImmediate(resume));
  assert.equal(endpoint.peak(), 1);
  endpoint.answer = (_request, response) =>
    grant(response, { access_token: 'newest', refresh_token: `rotated-${endpoint.requests.length}` });
  held[0]?.();
  await Promise.all([early, later, last]);
  assert.equal(endpoint.peak(), 1);
  const used = endpoint.requests.map((r) => r.form.get('refresh_token'));
  assert.equal(new Set(used).size, used.length, used.join());
});

test('renew asks once for a rejected token, however many connections were refused', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  const rejected = await tokens.get('a@x');
  const renewed = await Promise.all(Array.from({ length: 10 }, () => tokens.renew('a@x', rejected)));
  assert.deepEqual(new Set(renewed.map((r) => r.reveal())), new Set(['access-2']));
  assert.equal((await tokens.renew('a@x', rejected)).reveal(), 'access-2');
  assert.equal(endpoint.requests.length, 2);
});

test('renew never hands the rejected token out again, also while the endpoint is down', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  const rejected = await tokens.get('a@x');
  await endpoint.stop();
  await assert.rejects(tokens.renew('a@x', rejected), failsWith('provider_fault'));
  assert.equal(tokens.peek('a@x'), undefined);
});

test('a forced refresh replaces a good token', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await tokens.get('a@x');
  const status = await tokens.refresh('a@x');
  assert.equal(status.origin, 'operator');
  assert.equal(tokens.peek('a@x')?.reveal(), 'access-2');
});

test('tokens are refreshed in the background before they end', async (t) => {
  const endpoint = await startEndpoint(t);
  const clock = createTestClock();
  const tokens = serve(t, { clock });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await tokens.get('a@x');
  clock.advance(HOUR * 0.79);
  assert.equal(endpoint.requests.length, 1);
  clock.advance(HOUR * 0.02);
  await waitFor(() => tokens.peek('a@x')?.reveal() === 'access-2', { what: 'the refresh ahead' });
  assert.equal(tokens.statusOf('a@x')?.origin, 'refresh-ahead');
});

test('while the endpoint is down a token inside its life is used, then nothing', async (t) => {
  const endpoint = await startEndpoint(t);
  const clock = createTestClock();
  const log = createTestLog();
  const tokens = serve(t, { clock, log });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  const token = await tokens.get('a@x');
  await endpoint.stop();
  clock.advance(HOUR - 60_000);
  await waitFor(() => log.text().includes('about to expire'), { what: 'the failed refresh ahead' });
  assert.equal(await tokens.get('a@x'), token);
  assert.equal(tokens.statusOf('a@x')?.state.status, 'ready');
  assert.equal(tokens.statusOf('a@x')?.lastError?.code, 'provider_fault');
  clock.advance(60_000);
  await assert.rejects(tokens.get('a@x'), failsWith('provider_fault'));
  assert.equal(tokens.statusOf('a@x')?.state.status, 'unreachable');
  await endpoint.start();
  assert.equal((await tokens.get('a@x')).reveal(), 'access-2');
  assert.equal(tokens.statusOf('a@x')?.state.status, 'ready');
});

test('accounts are named once when their tokens end while the endpoint is not asked', async (t) => {
  const endpoint = await startEndpoint(t);
  const clock = createTestClock();
  const log = createTestLog();
  const ids = Array.from({ length: 20 }, (_, i) => `user${i}@x`);
  const tokens = serve(t, { clock, log });
  tokens.applyAccounts(ids.map((id) => entryFor(endpoint.url, id)));
  await tokens.precache();
  await endpoint.stop();
  const idle = () => ids.every((id) => tokens.statusOf(id)?.refreshing === false);
  for (let minute = 0; minute < 59; minute += 1) {
    clock.advance(60_000);
    await waitFor(idle, { what: 'the background' });
  }
  for (const id of ids) {
    assert.ok(tokens.peek(id), 'the token is used to its end');
    const named = log.lines.filter((l) => l.message.includes('about to expire') && l.fields.account === id);
    assert.ok(named.length >= 1, id);
  }
  const warnings = log.lines.filter((l) => l.level === 'warn');
  assert.ok(warnings.length <= 4 * ids.length, `${warnings.length} warnings`);
});

test('a dead credential is probed once an hour and no more', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (_request, response) => answerJson(response, 400, { error: 'invalid_grant' });
  const clock = createTestClock();
  const tokens = serve(t, { clock });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await assert.rejects(tokens.get('a@x'), failsWith('needs_consent'));
  for (let minute = 0; minute < 59; minute += 1) {
    clock.advance(60_000);
    await assert.rejects(tokens.get('a@x'), failsWith('needs_consent'));
  }
  assert.equal(endpoint.requests.length, 1);
  endpoint.answer = (_request, response) => grant(response, { access_token: 'back' });
  clock.advance(60_000 * 2);
  assert.equal((await tokens.get('a@x')).reveal(), 'back');
  assert.equal(endpoint.requests.length, 2);
});

test('a throttled account is left alone as long as the provider asked', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (_request, response) => {
    response.writeHead(429, { 'content-type': 'text/plain', 'retry-after': '60' });
    response.end('Too Many Requests');
  };
  const clock = createTestClock();
  const tokens = serve(t, { clock }, { refreshAhead: false });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await assert.rejects(tokens.get('a@x'), failsWith('throttled'));
  clock.advance(59_000);
  await assert.rejects(tokens.get('a@x'), failsWith('throttled'));
  await assert.rejects(tokens.refresh('a@x'), failsWith('throttled'));
  assert.equal(endpoint.requests.length, 1);
  const state = tokens.statusOf('a@x')?.state;
  assert.equal(state?.status, 'throttled');
  assert.equal(state?.until, clock.now() + 1000);
  clock.advance(1000);
  await assert.rejects(tokens.get('a@x'), failsWith('throttled'));
  assert.equal(endpoint.requests.length, 2);
});

test('while a client is throttled the background of its other accounts waits, without spinning', async (t) => {
  const endpoint = await startEndpoint(t);
  const clock = createTestClock();
  const tokens = serve(t, { clock });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x'), entryFor(endpoint.url, 'b@x')]);
  await tokens.get('b@x');
  clock.advance(HOUR * 0.79);
  const honest = endpoint.answer;
  endpoint.answer = (_request, response) => answerJson(response, 429, {}, { 'retry-after': '600' });
  await assert.rejects(tokens.get('a@x'), failsWith('throttled'));
  let planned = 0;
  const { after } = clock;
  clock.after = (ms, task) => {
    planned += 1;
    return after(ms, task);
  };
  clock.advance(HOUR * 0.02);
  for (let i = 0; i < 50; i += 1) {
    await new Promise((resume) => setImmediate(resume));
    clock.advance(10);
  }
  assert.ok(planned < 5, `${planned} timers`);
  assert.equal(endpoint.requests.length, 2);
  endpoint.answer = honest;
  clock.advance(600_000);
  await waitFor(() => tokens.statusOf('b@x')?.origin === 'refresh-ahead', {
    what: 'the refresh after the pause',
  });
});

test('tokens that live for a second do not keep the endpoint busy', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (_request, response) => grant(response, { access_token: 'brief', expires_in: 1 });
  const clock = createTestClock();
  const tokens = serve(t, { clock });
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  assert.equal((await tokens.get('a@x')).reveal(), 'brief');
  for (let second = 0; second < 60; second += 1) {
    clock.advance(1000);
    await waitFor(() => tokens.statusOf('a@x')?.refreshing === false, { what: 'the background' });
  }
  assert.ok(endpoint.requests.length <= 8, `${endpoint.requests.length} requests`);
});

test('one revoked mailbox does not open the breaker of its endpoint, a failing endpoint does', async (t) => {
  const endpoint = await startEndpoint(t);
  const ids = Array.from({ length: 40 }, (_, i) => `revoked-${i}`);
  endpoint.answer = (request, response) => {
    if (request.form.get('refresh_token')?.includes('revoked')) {
      answerJson(response, 400, { error: 'invalid_grant' });
    } else grant(response, { access_token: 'good' });
  };
  const tokens = serve(t, {}, { refreshAhead: false });
  tokens.applyAccounts([...ids, 'healthy', 'late'].map((id) => entryFor(endpoint.url, id)));
  await Promise.allSettled(ids.map((id) => tokens.get(id)));
  assert.equal((await tokens.get('healthy')).reveal(), 'good');
  assert.equal(tokens.breakers()[0]?.state, 'closed');
  endpoint.answer = (_request, response) => answerJson(response, 503, {});
  for (let i = 0; i < 100 && tokens.breakers()[0]?.state === 'closed'; i += 1) {
    await assert.rejects(tokens.get('late'), failsWith('provider_fault'));
  }
  assert.equal(tokens.breakers()[0]?.state, 'open');
  const before = endpoint.requests.length;
  await assert.rejects(tokens.get('late'), failsWith('provider_fault'));
  assert.equal(endpoint.requests.length, before);
});

test('a rotated refresh token is used from then on', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (_request, response) =>
    grant(response, { access_token: 'a', refresh_token: `rotated-${endpoint.requests.length}` });
  const tokens = serve(t);
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await tokens.get('a@x');
  await tokens.refresh('a@x');
  await tokens.refresh('a@x');
  assert.deepEqual(
    endpoint.requests.map((r) => r.form.get('refresh_token')),
    ['refresh-of-a@x', 'rotated-1', 'rotated-2'],
  );
  // A new client secret does not bring the operator's old refresh token back.
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x', { clientSecret: new Secret('new-secret') })]);
  await tokens.get('a@x');
  assert.equal(endpoint.requests.at(-1)?.form.get('refresh_token'), 'rotated-3');
});

test('a token the operator brought along is used while it lives', async (t) => {
  const endpoint = await startEndpoint(t);
  const clock = createTestClock();
  const tokens = serve(t, { clock });
  const initial = { accessToken: new Secret('brought'), expiresAt: clock.now() + HOUR };
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x', { initial })]);
  assert.equal((await tokens.get('a@x')).reveal(), 'brought');
  assert.equal(endpoint.requests.length, 0);
  clock.advance(HOUR);
  assert.equal((await tokens.get('a@x')).reveal(), 'access-1');
});

test('state changes and durations are told', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = serve(t);
  const states: string[] = [];
  const refreshes: boolean[] = [];
  tokens.onStateChange((id, state) => states.push(`${id} ${state.status}`));
  tokens.onRefresh((r) => refreshes.push(r.ok && r.ms > 0));
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x')]);
  await tokens.get('a@x');
  await waitFor(() => states.length === 2, { what: 'two states' });
  assert.deepEqual(states, ['a@x refreshing', 'a@x ready']);
  assert.deepEqual(refreshes, [true]);
});
