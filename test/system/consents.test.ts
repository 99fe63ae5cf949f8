// needs: redis-server
/**
 * One consent under several names, on relays that share a real Redis: no grant is lost, none is asked for twice at
 * once, and what a person signed in for anew stays with its mailbox. The endpoint revokes a refresh token when it gives
 * the next.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createRedisConnection } from '../../src/redis.ts';
import { AccessToken } from '../../src/tokens/access-token.ts';
import { createRedisStore } from '../../src/tokens/store-redis.ts';
import type { AccountCredential, TokenService } from '../../src/tokens/token-service.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startRedis } from '../support/redis.ts';
import { startTrial, type Trial } from '../support/token-trial.ts';
import { account } from '../tokens/support.ts';

const STOPS = 50;

async function trialOn(defer: Defer): Promise<Trial> {
  const redis = await startRedis();
  defer(() => redis.kill());
  const trial = await startTrial(1, (log) =>
    createRedisStore(createRedisConnection(new Secret(redis.url), { log }), { log, sealer: undefined }),
  );
  defer(() => trial.close());
  return trial;
}

/** A relay whose accounts file has the one entry under these names. */
async function served(trial: Trial, ...ids: readonly string[]): Promise<TokenService> {
  const service = await trial.serve();
  const credential = trial.entries[0]?.credential as AccountCredential['credential'];
  service.applyAccounts(ids.map((id) => ({ account: account(id), credential })));
  return service;
}

const assertEachUsedOnce = ({ endpoint }: Trial): void => {
  const used = endpoint.requests.map((request) => request.form.get('refresh_token'));
  assert.equal(new Set(used).size, used.length, 'a refresh token was used twice');
  assert.equal(endpoint.maxConcurrent, 1);
};

test(
  `${STOPS} times two relays with one consent under names of their own refresh at once, and one of them is stopped and renamed`,
  leakless(async (_t, defer) => {
    const trial = await trialOn(defer);
    const staying = await served(trial, 'a@x', 'b@x');
    for (let stop = 0; stop < STOPS; stop += 1) {
      trial.endpoint.delayMs = stop % 7;
      const own = ['c@x', 'd@x', 'a@x'][stop % 3] ?? '';
      const coming = await served(trial, own);
      const asked = [staying.refresh('a@x'), coming.refresh(own), staying.refresh('b@x')];
      const stopped = stop % 2 === 0 ? coming.close() : undefined;
      // Whoever is stopped before its turn does not ask.
      const results = await Promise.allSettled(asked);
      for (const result of results)
        if (result.status === 'rejected') assert.match(String(result.reason), /stopping|no account/);
      await stopped;
      await coming.close();
    }
    for (const id of ['a@x', 'b@x']) await staying.refresh(id);
    await staying.close();
    assertEachUsedOnce(trial);
  }),
);

test(
  'a new sign-in on one relay serves its mailbox on all of them, and no other one',
  leakless(async (_t, defer) => {
    const trial = await trialOn(defer);
    const { clientId, clientSecret = '' } = trial.endpoint.account(trial.users[0] ?? '') ?? assert.fail();
    const anew = trial.endpoint.add('anew@x', { clientId, clientSecret });
    const [one, two] = [await served(trial, 'ann@x', 'bob@x'), await served(trial, 'ann@x', 'bob@x')];
    for (const id of ['ann@x', 'bob@x']) for (const relay of [one, two]) await relay.refresh(id);
    await one.adopt('ann@x', {
      refreshToken: new Secret(anew.refreshToken),
      accessToken: new AccessToken('of the new sign-in', Date.now() + 3_600_000, Date.now()),
      resource: 'smtp',
    });
    for (let turn = 0; turn < 3; turn += 1)
      for (const relay of [one, two])
        for (const [id, owner] of [
          ['bob@x', trial.users[0]],
          ['ann@x', 'anew@x'],
        ] as const) {
          await relay.refresh(id);
          assert.equal(trial.endpoint.requests.at(-1)?.user, owner, id);
          assert.ok(trial.endpoint.verify(owner ?? '', (await relay.get(id)).reveal()), id);
        }
    await one.close();
    await two.close();
    assertEachUsedOnce(trial);
  }),
);

test(
  'a new sign-in serves an account on all relays only while it is that mailbox, and waits for it in Redis',
  leakless(async (_t, defer) => {
    const trial = await trialOn(defer);
    const { clientId, clientSecret = '' } = trial.endpoint.account(trial.users[0] ?? '') ?? assert.fail();
    const credential = trial.entries[0]?.credential as AccountCredential['credential'];
    const anew = trial.endpoint.add('ann@x', { clientId, clientSecret });
    const relays = [await served(trial, 'ann'), await served(trial, 'ann')];
    const serveAs = (user: string): void => {
      for (const relay of relays) relay.applyAccounts([{ account: { ...account('ann'), user }, credential }]);
    };
    const assertOwner = async (owner: string | undefined, when: string): Promise<void> => {
      for (const relay of relays) {
        assert.ok(trial.endpoint.verify(owner ?? '', (await relay.get('ann')).reveal()), when);
        await relay.refresh('ann');
        assert.ok(
          trial.endpoint.verify(owner ?? '', (await relay.get('ann')).reveal()),
          `${when}, refreshed`,
        );
      }
    };
    serveAs('ann@x');
    await assertOwner(trial.users[0], 'as given');
    await relays[0]?.adopt('ann', {
      refreshToken: new Secret(anew.refreshToken),
      accessToken: new AccessToken(
        trial.endpoint.issue('ann@x').accessToken,
        Date.now() + 3_600_000,
        Date.now(),
      ),
      resource: 'smtp',
    });
    await relays[1]?.refresh('ann');
    for (const turn of [1, 2]) {
      await assertOwner('ann@x', `turn ${turn}`);
      serveAs('bob@x');
      await assertOwner(trial.users[0], `turn ${turn}, as another mailbox`);
      serveAs('ann@x');
    }
    for (const relay of relays) await relay.close();
    assertEachUsedOnce(trial);
  }),
);
