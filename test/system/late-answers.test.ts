// needs: redis-server
/**
 * Late and odd answers of a token endpoint that revokes a refresh token when it gives the next, to two relays on a real
 * Redis: 50 of each kind, and every account can be refreshed afterwards.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createRedisConnection } from '../../src/redis.ts';
import { createRedisStore } from '../../src/tokens/store-redis.ts';
import type { TokenService } from '../../src/tokens/token-service.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startRedis } from '../support/redis.ts';
import type { TokenAnswer } from '../support/token-answers.ts';
import { startTrial, type Trial } from '../support/token-trial.ts';

const TIMES = 50;
const ACCOUNTS = 3;

async function trialOn(defer: Defer): Promise<Trial> {
  const redis = await startRedis();
  defer(() => redis.kill());
  const trial = await startTrial(ACCOUNTS, (log) =>
    createRedisStore(createRedisConnection(new Secret(redis.url), { log }), { log, sealer: undefined }),
  );
  defer(() => trial.close());
  return trial;
}

const assertEachUsedOnce = ({ endpoint }: Trial): void => {
  const used = endpoint.requests.map((request) => request.form.get('refresh_token'));
  assert.equal(new Set(used).size, used.length, 'a refresh token was used twice');
};

const refreshAll = ({ users }: Trial, service: TokenService): Promise<PromiseSettledResult<unknown>[]> =>
  Promise.allSettled(users.map((user) => service.refresh(user)));

const ODD: readonly TokenAnswer[] = [
  { patch: { expires_in: 0 } },
  { patch: { expires_in: -1 } },
  { patch: { token_type: 'mac' } },
  { patch: { access_token: undefined } },
  { patch: { access_token: 'a\r\nb' } },
];

test(
  `${TIMES} times an answer whose access token is no good: its refresh token serves both relays`,
  leakless(async (_t, defer) => {
    const trial = await trialOn(defer);
    const two = await trial.serve();
    for (let time = 0; time < TIMES; time += 1) {
      const odd = ODD[time % ODD.length];
      // Anew each time: an endpoint that fails again and again is left alone.
      const one = await trial.serve();
      trial.endpoint.always(odd);
      for (const result of await refreshAll(trial, one)) assert.equal(result.status, 'rejected');
      trial.endpoint.always(undefined);
      if (time % 2 === 0) await one.close();
      for (const result of await refreshAll(trial, two))
        assert.equal(result.status, 'fulfilled', `${time}: ${JSON.stringify(odd)}`);
      if (time % 2 === 1) await one.close();
    }
    await two.close();
    assert.deepEqual(await trial.lost(), []);
    assertEachUsedOnce(trial);
  }),
);

for (const [what, whileLate] of [
  ['the relay is stopped', (one: TokenService) => one.close({ deadlineMs: 5000 })],
  [
    'the accounts leave the accounts file and come back',
    async (one: TokenService, { entries }: Trial) => {
      one.applyAccounts([]);
      one.applyAccounts(entries);
    },
  ],
  ['the other relay wants one too', async () => undefined],
] as const)
  test(
    `${TIMES} times an answer after the limit, while ${what}: its refresh token serves both relays`,
    leakless(async (_t, defer) => {
      const trial = await trialOn(defer);
      const two = await trial.serve();
      for (let time = 0; time < TIMES; time += 1) {
        const one = await trial.serve({}, { answerTimeoutMs: 100, lateMs: 5000 });
        trial.endpoint.delayMs = 150 + (time % 40);
        for (const result of await refreshAll(trial, one)) assert.equal(result.status, 'rejected');
        trial.endpoint.delayMs = 0;
        const ended = whileLate(one, trial);
        for (const result of await refreshAll(trial, two))
          assert.equal(result.status, 'fulfilled', `${time}: ${JSON.stringify(result)}`);
        await ended;
        await one.close();
      }
      assert.equal(trial.endpoint.count(), 2 * TIMES * ACCOUNTS);
      await two.close();
      assert.deepEqual(await trial.lost(), []);
      assertEachUsedOnce(trial);
    }),
  );
