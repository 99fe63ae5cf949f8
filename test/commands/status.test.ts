import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { AccountRow } from '../../src/admin/shapes.ts';
import { formatAccounts, status } from '../../src/commands/status.ts';
import { createTerminal } from '../../src/commands/terminal.ts';
import { leakless } from '../support/leak-check.ts';

const terminal = createTerminal({
  stdin: process.stdin,
  stdout: process.stderr,
  stderr: process.stderr,
  env: { NO_COLOR: '1' },
});

const row = (id: string, more: Partial<AccountRow> = {}): AccountRow => ({
  id,
  email: id,
  provider: 'outlook',
  transport: 'smtp',
  way: 'smtp',
  cause: null,
  tokens: [],
  status: 'ready',
  reason: null,
  cure: null,
  until: null,
  drained: false,
  token: { cached: true, expires_at: null, expires_in_s: 3_000, age_s: 600 },
  pool: { size: 3, busy: 1, idle: 2, max: 3 },
  messages: { relayed: 1_234_567, deferred: 1_234, rejected: 12 },
  last_error: null,
  last_error_at: null,
  ...more,
});

test('status fits 80 columns and begins with what needs somebody', () => {
  const lines = formatAccounts({ ...terminal, columns: 80 }, [
    row('fine@example.com'),
    row('off@example.com', { drained: true }),
    row('both@example.com', { drained: true, status: 'needs_consent', reason: 'the sign-in was revoked' }),
    row('a.very.long.address.of.somebody.in.sales@subsidiary.department.example.com', {
      status: 'throttled',
      until: '2026-11-25T20:15:00.000Z',
      reason: 'the provider asked for a pause because of too many messages in the last minute',
    }),
    row('gone@example.com', {
      status: 'needs_consent',
      reason: 'the sign-in was revoked',
      cure: 'sign in again: xoauth2-relay account add gone@example.com --replace',
    }),
  ]);
  for (const line of lines) assert(line.length <= 80, `${line.length}: ${line}`);
  assert.match(lines[0] ?? '', /^account +status +token +conn +relayed +defer +reject$/);
  // Drained or not, only a person brings it back.
  assert.match(lines[1] ?? '', /^both@example\.com +needs_consent, drained /);
  assert.match(lines[2] ?? '', /^gone@example\.com +needs_consent /);
  assert.match(lines[3] ?? '', /^a\.very.*… +throttled until \d\d:\d\d /);
  assert.match(lines[4] ?? '', /^off@example\.com +drained /);
  assert.match(lines[5] ?? '', /^fine@example\.com +ready /);
  assert.match(lines.slice(6).join(' ').replaceAll(/\s+/g, ' '), /account add gone@example\.com --replace/);
});

test(
  'status says that Redis is away, and nothing of several relays otherwise',
  leakless(async (_t, defer) => {
    let fleet: object | undefined;
    const server = createServer((request, response) => {
      const answer =
        request.url === '/admin/accounts' ? { accounts: [row('a@x')], next_cursor: null } : fleet;
      const head = { 'content-type': 'application/json', connection: 'close' };
      response.writeHead(answer === undefined ? 404 : 200, head);
      response.end(JSON.stringify(answer ?? { error: 'no such page' }));
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    defer(() => new Promise<void>((resolve) => void server.close(() => resolve())));
    const { port } = server.address() as AddressInfo;
    const shown = async (): Promise<readonly string[]> => {
      const lines: string[] = [];
      const print = (line: string): void => void lines.push(line);
      const options = { adminPort: String(port), pidFile: '/nonexistent/relay.pid' };
      const code = await status.run({
        arguments: [],
        options,
        env: {},
        terminal: { ...terminal, unread: terminal.unread, print },
      });
      assert.equal(code, 0);
      return lines.slice(1, -2);
    };
    // A relay of an earlier version.
    assert.deepEqual(await shown(), []);
    fleet = { shared: true, apart: false, share: 1, relays: [] };
    assert.deepEqual(await shown(), []);
    fleet = { shared: true, apart: true, share: 0.5, relays: [] };
    assert.deepEqual(await shown(), ['Redis is away: this relay keeps to its share, 50 % of every limit']);
  }),
);
