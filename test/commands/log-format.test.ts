/** The log for people: start, transactions, trouble with its cure. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogFormat } from '../../src/commands/log-format.ts';
import type { Paint } from '../../src/commands/terminal.ts';

const colour = (name: string) => (text: string) => `<${name}>${text}</>`;
const paint: Paint = {
  bold: (text) => text,
  dim: (text) => text,
  red: colour('red'),
  green: colour('green'),
  yellow: colour('yellow'),
};
const format = createLogFormat({ paint, withDate: false });
const line = (fields: object): string =>
  format(`${JSON.stringify({ level: 30, time: '2026-11-26T10:00:00.000Z', ...fields })}\n`);

test('the start names every address, the dashboard and how many accounts can send', () => {
  const listening = line({
    event: 'listening',
    listeners: [{ host: '127.0.0.1', port: 2525 }, { host: '::1', port: 587 }, { path: '/run/relay.sock' }],
    admin: { host: '127.0.0.1', port: 9090 },
    version: '1.2.3',
    pid: 42,
    msg: 'listening',
  });
  assert.match(listening, /xoauth2-relay 1\.2\.3, process 42/);
  for (const place of ['127.0.0.1:2525', '[::1]:587', '/run/relay.sock', 'http://127.0.0.1:9090/'])
    assert(listening.includes(place), place);
  const ready = (usable: number, accounts: number): string =>
    line({ event: 'ready', accounts, usable, ms: 640 });
  assert.match(ready(3, 3), /ready: <green>3 of 3 accounts can send<\/> after 0\.64 s\n$/);
  assert.match(ready(1, 3), /<yellow>1 of 3 accounts can send<\/>.*status names the others/);
  assert.match(ready(1, 1), /1 of 1 account can send/);
});

test('a message is one line: outcome, from whom to whom, by which account, what was said', () => {
  const told = line({
    event: 'transaction',
    account: 'alice',
    sender: '*@example.com',
    recipients: ['*@example.net', '*@example.org'],
    recipient_count: 3,
    bytes: 4123,
    outcome: 'deferred',
    reply: { code: 451, enhanced: '4.7.0', text: 'later' },
    timings: { total_ms: 12.4 },
    msg: 'deferred',
  });
  assert.match(
    told,
    /<yellow>deferred<\/> \*@example\.com → \*@example\.net and 2 more by alice, 4\.1 kB, 12 ms: 451 4\.7\.0 later\n$/,
  );
});

test('trouble has its colour, and the cure a line of its own', () => {
  const lines = line({
    level: 40,
    msg: 'no token',
    event: 'x',
    account: 'bob',
    reason: 'it has ended',
    cure: 'sign in again',
  });
  assert.match(
    lines,
    /<yellow>WARN {1}<\/> no token account=bob reason="it has ended"\n +cure sign in again\n$/,
  );
  assert.match(line({ level: 50, msg: 'broken' }), /<red>ERROR<\/> broken\n$/);
});

test('a line read later has its date; what is no line of ours stays as it is', () => {
  const dated = createLogFormat({ paint, withDate: true });
  assert.match(
    dated(JSON.stringify({ level: 30, time: new Date(2026, 10, 26, 9, 8, 7).toISOString(), msg: 'm' })),
    /^\[2026-11-26 09:08:07\] <green>INFO {1}<\/> m\n$/,
  );
  for (const other of ['hello', '', 'null', '[]', '{"a":1}', '{"level":'])
    assert.equal(format(other), `${other}\n`);
  for (const odd of [
    '{"level":30}',
    '{"level":"x","event":"transaction"}',
    '{"level":30,"event":"ready"}',
    '{"level":30,"event":"listening","admin":null}',
  ])
    assert.match(format(odd), /\n$/, odd);
});
