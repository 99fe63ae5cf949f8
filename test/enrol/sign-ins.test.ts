import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readAccountsFile } from '../../src/accounts/accounts-file.ts';
import type { SignInWay } from '../../src/enrol/draft.ts';
import { createSignIns } from '../../src/enrol/sign-ins.ts';
import { silentLog } from '../../src/log.ts';
import { TokenError } from '../../src/tokens/access-token.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startSignInServer } from '../support/sign-in-server.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@mail.example';

const PAIRS: readonly (readonly [SignInWay, SignInWay])[] = [
  ['browser', 'device'],
  ['device', 'browser'],
  ['browser', 'browser'],
  ['device', 'device'],
];

async function setUp(defer: Defer, more: Record<string, unknown> = {}, base: Record<string, unknown> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'sign-ins-'));
  defer(() => rmSync(directory, { recursive: true, force: true }));
  const provider = await startProvider({ users: [ANN] });
  defer(() => provider.close());
  const page = await startSignInServer(provider, ANN);
  defer(() => page.close());
  const path = join(directory, 'accounts.json');
  const { client_id, client_secret } = provider.entry(ANN);
  const sim = {
    ...base,
    smtp: `starttls://localhost:${provider.smtp.port}`,
    token_url: page.tokenUrl,
    authorize_url: page.authorizeUrl,
    device_url: page.deviceUrl,
  };
  const entry = { email: ANN, provider: 'sim', client_id, client_secret, refresh_token: 'ended', ...more };
  writeFileSync(path, JSON.stringify({ providers: { sim }, accounts: [entry] }), { mode: 0o600 });
  const [served] = (await readAccountsFile(path)).accounts;
  const adopted: string[] = [];
  const spent: string[] = [];
  const unsaved: string[] = [];
  let goOn = (): void => {};
  /** A grant is kept when it opens. */
  const gate = { opens: Promise.resolve() };
  const close = (): void => {
    gate.opens = new Promise((resolve) => {
      goOn = resolve;
    });
  };
  const signIns = createSignIns({
    accountsPath: path,
    publicUrl: undefined,
    heloName: undefined,
    isKept: true,
    log: silentLog,
    served: () => served,
    async adopt(id, { isWanted }) {
      adopted.push(id);
      await gate.opens;
      if (isWanted?.() === false) throw new TokenError('bad_request', 'not wanted');
    },
    unsaved: () => unsaved,
    reload: async () => true,
    spend: (id) => void spent.push(id),
    cured: async () => {},
  });
  defer(() => signIns.close());
  return { page, path, signIns, adopted, spent, unsaved, gate: { close, open: () => goOn() } };
}

for (const pair of PAIRS)
  test(
    `of two that begin in one moment (${pair.join(', ')}) one is under way, and nothing of the other goes on`,
    leakless(async (_t, defer) => {
      const { page, signIns } = await setUp(defer);
      page.devicePolls = Array.from({ length: 100 }, () => 'authorization_pending' as const);
      const begun = await Promise.allSettled(
        pair.map((way) => signIns.begin(ANN, way, 'http://127.0.0.1:9090')),
      );
      const alive = begun.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
      // The earlier may have been told where to sign in before the later one ended it.
      assert.ok(alive.length > 0);
      assert.equal((await signIns.look(ANN)).state, 'waiting');
      signIns.cancel(ANN);
      const polls = page.tokenRequests.length;
      // One more is begun, and polls three times: what still went on beside it would poll too.
      page.devicePolls = ['authorization_pending', 'authorization_pending', 'authorization_declined'];
      await signIns.begin(ANN, 'device', 'http://127.0.0.1:9090');
      await waitFor(async () => (await signIns.look(ANN)).state !== 'waiting', { what: 'the end of it' });
      assert.equal((await signIns.look(ANN)).state, 'failed');
      assert.equal(page.tokenRequests.length - polls, 3);
    }),
  );

/** A draft cannot show whose mailbox it is, and no SMTP server is asked. */
const BY_GRAPH = [
  { transport: 'graph', graph_permissions: 'send' },
  { extends: 'outlook-personal', graph_url: 'http://127.0.0.1:9/v1.0' },
] as const;

test(
  'who is invited cannot have mail leave by Graph from another mailbox',
  leakless(async (_t, defer) => {
    const { signIns, page, adopted } = await setUp(defer, ...BY_GRAPH);
    page.claims = { preferred_username: 'ben@mail.example' };
    await signIns.begin(ANN, 'device', 'http://127.0.0.1:9090');
    await waitFor(async () => (await signIns.look(ANN)).state === 'failed', { what: 'its end' });
    assert.match((await signIns.look(ANN)).note ?? '', /another person.*signed in as ben@mail.example/);
    assert.deepEqual(adopted, []);
  }),
);

test(
  'a link that ends while a sign-in begins with it, or before that is kept, has none kept',
  leakless(async (_t, defer) => {
    const { signIns, page, adopted } = await setUp(defer, ...BY_GRAPH);
    page.claims = { preferred_username: ANN };
    let isOpen = true;
    const begin = () => signIns.begin(ANN, 'device', 'http://127.0.0.1:9090', () => isOpen);
    const early = begin();
    isOpen = false;
    await assert.rejects(early, /not good any more/);
    assert.deepEqual([(await signIns.look(ANN)).state, page.deviceScopes.length], ['idle', 0]);
    for (const staysOpen of [false, true]) {
      isOpen = true;
      await begin();
      isOpen = staysOpen;
      const end = staysOpen ? 'done' : 'failed';
      await waitFor(async () => (await signIns.look(ANN)).state === end, { what: end });
      assert.deepEqual(adopted, staysOpen ? [ANN] : []);
    }
  }),
);

for (const isCancelled of [true, false])
  test(
    `of a sign-in that waits to be kept, unseen behind another, ${isCancelled ? 'nothing is kept once the account has another link' : 'the grant is kept and its link spent'}`,
    leakless(async (_t, defer) => {
      const { signIns, page, adopted, spent, gate } = await setUp(defer, ...BY_GRAPH);
      page.claims = { preferred_username: ANN };
      gate.close();
      await signIns.begin(ANN, 'device', 'http://127.0.0.1:9090');
      await waitFor(() => adopted.length > 0, { what: 'the end of the proof' });
      await signIns.begin(ANN, 'browser', 'http://127.0.0.1:9090');
      if (isCancelled) signIns.cancel(ANN);
      gate.open();
      await waitFor(async () => (await signIns.look(ANN)).state === (isCancelled ? 'idle' : 'done'));
      assert.deepEqual(spent, isCancelled ? [] : [ANN]);
    }),
  );

test(
  'what the token store could not take is not told as kept',
  leakless(async (_t, defer) => {
    const { signIns, page, unsaved } = await setUp(defer, ...BY_GRAPH);
    page.claims = { preferred_username: ANN };
    for (const isTaken of [true, false]) {
      if (!isTaken) unsaved.push(ANN);
      await signIns.begin(ANN, 'device', 'http://127.0.0.1:9090');
      await waitFor(async () => (await signIns.look(ANN)).state === 'done', { what: 'the end' });
      assert.equal((await signIns.look(ANN)).note === null, isTaken);
    }
  }),
);

test(
  'nobody is asked to sign in to a new account where the accounts file cannot be written',
  leakless(async (_t, defer) => {
    const { signIns, path } = await setUp(defer);
    const begin = (email: string) =>
      signIns.beginNew({ email, provider: 'sim', client_id: 'c' }, 'browser', 'http://127.0.0.1:9090');
    assert.equal((await begin('new@mail.example')).state, 'waiting');
    // No lock can be made beside it.
    mkdirSync(`${path}.lock`);
    await assert.rejects(begin('newer@mail.example'), /cannot write/);
  }),
);
