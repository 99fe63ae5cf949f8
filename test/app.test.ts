import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Admin } from '../src/admin/admin.ts';
import type { AdminBackend } from '../src/admin/backend.ts';
import { createApp } from '../src/app.ts';
import { pause, systemClock } from '../src/clock.ts';
import { loadSettings } from '../src/config.ts';
import type { LogSink } from '../src/log/sink.ts';
import { createLog } from '../src/log.ts';
import { createMemoryStore } from '../src/tokens/store-memory.ts';
import { createTestClock } from './support/clock.ts';
import { greeted, transact } from './support/dialogue.ts';
import { leakless } from './support/leak-check.ts';
import { startProvider } from './support/provider.ts';
import { waitFor } from './support/wait-for.ts';

const ANN = 'ann@gmail.example';
const entry = { provider: 'gmail', client_id: 'c', client_secret: 's', refresh_token: 'r' };

/** An app whose token store opens when `opened` is called; `asked` resolves when that is waited for. */
async function appThatOpensLate(defer: (undo: () => void) => void) {
  const directory = mkdtempSync(join(tmpdir(), 'app-'));
  defer(() => rmSync(directory, { recursive: true, force: true }));
  const accounts = join(directory, 'accounts.json');
  const writeAccounts = (...emails: readonly string[]): void =>
    writeFileSync(accounts, JSON.stringify(emails.map((email) => ({ email, ...entry }))), { mode: 0o600 });
  writeAccounts('ann@gmail.example');
  const settings = await loadSettings({ flags: { accounts, port: '0', precache: false }, env: {} });
  const happened: string[] = [];
  let opened: () => void = () => undefined;
  let backend: AdminBackend | undefined;
  const sink = { write: () => undefined, dropped: 0, onRecovered: undefined } as unknown as LogSink;
  let isAsked: () => void = () => undefined;
  const asked = new Promise<void>((resolve) => {
    isAsked = resolve;
  });
  const app = createApp({
    settings,
    log: createLog('debug', sink),
    openStore: () => ({
      ...createMemoryStore(),
      open: () =>
        new Promise((resolve) => {
          opened = resolve;
          isAsked();
        }),
      close: async () => void happened.push('store closed'),
    }),
    openAdmin: (deps) => {
      backend = deps.backend;
      return {
        listen: async () => {
          happened.push('admin listens');
          return { host: '127.0.0.1', port: 1 };
        },
        accountChanged: () => undefined,
        reloaded: () => undefined,
        close: async () => undefined,
      } as unknown as Admin;
    },
  });
  return {
    app,
    asked,
    happened,
    opened: () => opened(),
    served: () => [...(backend?.rows() ?? [])].map(({ id }) => id),
    writeAccounts,
  };
}

test(
  'told to stop while it starts: nothing more opens, what is open is closed',
  leakless(async (_t, defer) => {
    const { app, asked, happened, opened } = await appThatOpensLate(defer);
    const started = app.start();
    await asked;
    const stopped = app.stop({ deadlineMs: 5_000 });
    opened();
    assert.equal(await started, 'stopped');
    await stopped;
    assert.deepEqual(happened, ['store closed']);
  }),
);

test(
  'the stop deadline is one: what a silent provider has cost of it is not waited for again',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [ANN] });
    defer(() => provider.close());
    const directory = mkdtempSync(join(tmpdir(), 'app-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const accounts = join(directory, 'accounts.json');
    writeFileSync(accounts, JSON.stringify([provider.entry(ANN)]), { mode: 0o600 });
    const settings = await loadSettings({ flags: { accounts, port: '0', precache: false }, env: {} });
    let log = '';
    const sink = {
      write: (line: string) => {
        log += line;
      },
      dropped: 0,
      onRecovered: undefined,
    } as unknown as LogSink;
    const clock = createTestClock();
    const app = createApp({
      settings,
      log: createLog('info', sink),
      clock,
      openAdmin: () =>
        ({
          listen: async () => ({ host: '127.0.0.1', port: 1 }),
          accountChanged: () => undefined,
          recordTransaction: () => undefined,
          observeRefresh: () => undefined,
          close: async () => undefined,
        }) as unknown as Admin,
    });
    const silence = provider.smtp.script('greeting', {}, { after: 'hang' });
    await app.start();
    const port = await waitFor(() => Number(/"smtp":\{[^}]*"port":(\d+)/.exec(log)?.[1]) || undefined);
    const client = await greeted(port);
    defer(() => client.reset());
    const verdict = transact(client, { from: ANN });
    await waitFor(() => silence.hits > 0, { what: 'the silence' });
    let isStopped = false;
    const stopped = app.stop({ deadlineMs: 2_000 }).then(() => {
      isStopped = true;
    });
    // Two deadlines, one after the other, would be 4 s.
    let left = 3_900;
    await waitFor(
      () => {
        clock.advance(Math.min(left, 100));
        left -= Math.min(left, 100);
        return isStopped;
      },
      { what: 'the stop' },
    );
    assert.equal((await verdict).code, 421);
    await stopped;
  }),
);

test(
  'told to reload while it starts: what it serves is the file as it is now',
  leakless(async (_t, defer) => {
    const { app, asked, opened, served, writeAccounts } = await appThatOpensLate(defer);
    const started = app.start();
    await asked;
    writeAccounts('ann@gmail.example', 'bob@gmail.example');
    const reloaded = app.reload();
    // Time enough for a reload that waits for nothing.
    await Promise.race([reloaded, pause(systemClock, 500)]);
    opened();
    assert.equal(await started, 'serving');
    assert.deepEqual((await reloaded).added, ['bob@gmail.example']);
    assert.deepEqual(served(), ['ann@gmail.example', 'bob@gmail.example']);
    await app.stop({ deadlineMs: 5_000 });
  }),
);

test(
  'told to reload and to stop while it starts: nothing is taken in any more',
  leakless(async (_t, defer) => {
    const { app, asked, happened, opened, served } = await appThatOpensLate(defer);
    const started = app.start();
    await asked;
    const reloaded = app.reload();
    const stopped = app.stop({ deadlineMs: 5_000 });
    opened();
    assert.equal(await started, 'stopped');
    assert.equal((await reloaded).ok, false);
    await stopped;
    assert.deepEqual(served(), []);
    assert.deepEqual(happened, ['store closed']);
  }),
);

test(
  'tried and not started: an MTA that comes meanwhile is told to come again, not that it has no account',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'app-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const path = join(directory, 'smtp.sock');
    const settings = await loadSettings({ flags: { accounts: join(directory, 'accounts.json') }, env: {} });
    const [listener] = settings.listeners;
    assert(listener !== undefined);
    const sink = { write: () => undefined, dropped: 0, onRecovered: undefined } as unknown as LogSink;
    let heard = '';
    const app = createApp({
      settings: { ...settings, listeners: [{ ...listener, path }] },
      log: createLog('debug', sink),
      openAdmin: () =>
        ({
          // A name that is looked up for long keeps the other addresses open as long.
          listen: () =>
            new Promise((resolve, reject) => {
              const mta = connect(path, () =>
                mta.write('EHLO mta.test\r\nMAIL FROM:<ann@gmail.example>\r\n'),
              );
              mta.on('data', (chunk) => {
                heard += chunk;
                if (/^(?:421|550|250 SIZE)/m.test(heard)) mta.end();
              });
              mta.once('error', reject).once('close', () => resolve({ host: '127.0.0.1', port: 1 }));
            }),
          close: async () => undefined,
        }) as unknown as Admin,
    });
    assert.deepEqual(await app.trial(), []);
    assert.match(heard, /^421 /);
  }),
);
