import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Admin } from '../src/admin/admin.ts';
import { createApp } from '../src/app.ts';
import { loadSettings } from '../src/config.ts';
import type { LogSink } from '../src/log/sink.ts';
import { createLog } from '../src/log.ts';
import { createMemoryStore } from '../src/tokens/store-memory.ts';
import { leakless } from './support/leak-check.ts';

test(
  'told to stop while it starts: nothing more opens, what is open is closed',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'app-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    const accounts = join(directory, 'accounts.json');
    const entry = { email: 'ann@gmail.example', provider: 'gmail', client_id: 'c', client_secret: 's' };
    writeFileSync(accounts, JSON.stringify([{ ...entry, refresh_token: 'r' }]), { mode: 0o600 });
    const settings = await loadSettings({ flags: { accounts, port: '0', precache: false }, env: {} });
    const happened: string[] = [];
    let opened: () => void = () => undefined;
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
      openAdmin: () =>
        ({
          listen: async () => {
            happened.push('admin listens');
            return { host: '127.0.0.1', port: 1 };
          },
          accountChanged: () => undefined,
          close: async () => undefined,
        }) as unknown as Admin,
    });
    const started = app.start();
    await asked;
    const stopped = app.stop({ deadlineMs: 5_000 });
    opened();
    assert.equal(await started, 'stopped');
    await stopped;
    assert.deepEqual(happened, ['store closed']);
  }),
);
