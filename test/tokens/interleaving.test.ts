/** Everything at once, in random order: no hang, no lost refresh token, exact counts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { type AccessToken, TokenError } from '../../src/tokens/access-token.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { within } from '../support/wait-for.ts';
import { account, createTestLog, refreshCredential } from './support.ts';

/** Mulberry32: the same order every time for one seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

for (const seed of [1, 2, 3, 4, 5]) {
  test(`seed ${seed}`, async (t) => {
    const random = randomFrom(seed);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
    const endpoint = await startTokenEndpoint('microsoft');
    t.after(() => endpoint.close());
    // No second chance: whoever loses a refresh token has lost the account.
    endpoint.rotation = 'revoke-old';
    const users = ['a@x', 'b@x', 'c@x', 'd@x'];
    const operators = users.map((user) => ({ ...endpoint.add(user) }));
    const entries = (secretOf: (user: string) => string) =>
      operators.map(({ user, clientId, refreshToken }) => ({
        account: account(user),
        credential: refreshCredential(endpoint.url, user, {
          clientId,
          clientSecret: new Secret(secretOf(user)),
          refreshToken: new Secret(refreshToken),
        }),
      }));
    const secret = endpoint.account('a@x')?.clientSecret ?? '';
    const tokens = createTokenService({ log: createTestLog(), random });
    t.after(() => tokens.close());
    tokens.applyAccounts(entries(() => secret));

    const failures: unknown[] = [];
    const rejected = new Map<string, AccessToken>();
    const pending: Promise<unknown>[] = [];
    const note = (promise: Promise<unknown>): void => {
      pending.push(promise.catch((error: unknown) => failures.push(error)));
    };
    for (let step = 0; step < 600; step += 1) {
      const user = pick(users);
      const choice = random();
      if (choice < 0.4) note(tokens.get(user));
      else if (choice < 0.55) {
        const current = tokens.peek(user);
        if (current !== undefined) {
          rejected.set(user, current);
          note(
            tokens.renew(user, current).then((renewed) => {
              assert.notEqual(renewed.reveal(), current.reveal(), 'a rejected token came back');
            }),
          );
        }
      } else if (choice < 0.65) tokens.forget(user);
      else if (choice < 0.75) note(tokens.refresh(user));
      else if (choice < 0.8) note(tokens.precache());
      // The same consent in other words: tokens are dropped, rotated refresh tokens are not.
      else if (choice < 0.85)
        tokens.applyAccounts(
          entries(() => secret).map(({ account: a, credential }) => ({
            account: a,
            credential: { ...credential, safetyBufferMs: 300_000 + step },
          })),
        );
      else await new Promise((resume) => setImmediate(resume));
      // One at a time at the endpoint: what is under test is the order here, not the provider's.
      if (random() < 0.3) await Promise.all(pending.splice(0));
    }
    await within(Promise.all(pending), 10_000, 'all answers');
    assert.deepEqual(
      failures.filter((f) => !(f instanceof TokenError)),
      [],
    );
    const { refresh_attempts, refresh_success, refresh_failures } = tokens.totals();
    assert.equal(refresh_attempts, endpoint.count());
    assert.equal(refresh_success + refresh_failures, refresh_attempts);
    assert.deepEqual(failures.map(String), []);
    for (const user of users) assert.ok(endpoint.verify(user, (await tokens.get(user)).reveal()));
  });
}
