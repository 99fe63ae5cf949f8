/**
 * A token service in a process of its own, for tests that kill one: forked with its set-up as JSON,
 * answers `{ id, get }` with the token and says `{ fetching }` when a request begins.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Account } from '../../src/accounts/account.ts';
import { Secret } from '../../src/accounts/credential.ts';
import { silentLog } from '../../src/log.ts';
import { createRedisConnection } from '../../src/redis.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { createRedisStore } from '../../src/tokens/store-redis.ts';
import { createTokenService } from '../../src/tokens/token-service.ts';

export interface InstanceSetup {
  /** One of the two. */
  readonly redisUrl?: string;
  readonly stateDir?: string;
  readonly tokenUrl: string;
  readonly lockMs: number;
  readonly accounts: readonly {
    readonly id: string;
    readonly clientId: string;
    readonly clientSecret?: string;
    readonly refreshToken: string;
  }[];
}

export interface Instance {
  readonly child: ChildProcess;
  get(accountId: string): Promise<string>;
  refresh(accountId: string): Promise<string>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

export async function startInstance(setup: InstanceSetup): Promise<Instance> {
  const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(setup)]);
  await new Promise((resolve, reject) => {
    child.once('message', resolve);
    child.once('exit', reject);
  });
  let questions = 0;
  const ask = (question: object): Promise<string> =>
    new Promise((resolve, reject) => {
      const id = ++questions;
      const hear = (message: unknown): void => {
        const { id: of, token, error } = message as { id: number; token?: string; error?: string };
        if (of !== id) return;
        child.off('message', hear);
        if (token === undefined) reject(new Error(error));
        else resolve(token);
      };
      child.on('message', hear);
      child.once('exit', () => reject(new Error('the instance has ended')));
      child.send({ id, ...question });
    });
  return {
    child,
    get: (accountId) => ask({ get: accountId }),
    refresh: (accountId) => ask({ refresh: accountId }),
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    },
  };
}

async function serve(setup: InstanceSetup): Promise<void> {
  const { redisUrl, stateDir = '', tokenUrl, lockMs } = setup;
  const facts = { log: silentLog, sealer: undefined };
  const store =
    redisUrl === undefined
      ? createFileStore(stateDir, facts)
      : createRedisStore(createRedisConnection(new Secret(redisUrl), { log: silentLog }), facts, { lockMs });
  const tokens = createTokenService({ log: silentLog, store });
  await tokens.open();
  tokens.applyAccounts(
    setup.accounts.map(({ id, clientId, clientSecret, refreshToken }) => ({
      account: { id, email: id, provider: 'test' } as unknown as Account,
      credential: {
        grant: 'refresh_token',
        tokenUrl,
        scope: '',
        safetyBufferMs: 60_000,
        clientId,
        ...(clientSecret === undefined ? {} : { clientSecret: new Secret(clientSecret) }),
        refreshToken: new Secret(refreshToken),
      },
    })),
  );
  process.on('message', (message) => {
    const { id, get, refresh } = message as { id: number; get?: string; refresh?: string };
    const asked =
      refresh === undefined
        ? tokens.get(get ?? '').then((token) => token.reveal())
        : tokens.refresh(refresh).then(() => 'refreshed');
    asked.then(
      (token) => process.send?.({ id, token }),
      (error: unknown) => process.send?.({ id, error: String(error) }),
    );
  });
  process.send?.({ ready: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await serve(JSON.parse(process.argv[2] ?? '') as InstanceSetup);
}
