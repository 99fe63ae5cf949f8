import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock } from '../../src/clock.ts';
import {
  accountDrain,
  accountInvite,
  accountRefresh,
  accountResume,
  accountShow,
} from '../../src/commands/account-running.ts';
import { createAdminClient } from '../../src/commands/admin-client.ts';
import { reload } from '../../src/commands/running.ts';
import { status } from '../../src/commands/status.ts';
import { createTerminal } from '../../src/commands/terminal.ts';
import { unclearAgain, unclearDelivered, unclearList } from '../../src/commands/unclear.ts';
import { loadSettings } from '../../src/config.ts';
import { OperatorError } from '../../src/enrol/operator-error.ts';
import { createTestClock } from '../support/clock.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { waitFor } from '../support/wait-for.ts';

/** A client of something that answers `answer` to everything. */
async function clientOf(defer: Defer, status: number, answer: unknown) {
  const server = createServer((_request, response) => {
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
    response.end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  defer(() => new Promise<void>((resolve) => void server.close(() => resolve())));
  const { port } = server.address() as AddressInfo;
  return createAdminClient(await loadSettings({ flags: { adminPort: String(port) }, env: {} }));
}

const RELOADED = { ok: true, added: ['a@x'], changed: [], removed: [], untouched: [], errors: [] };

test(
  'keys of a later version are no trouble; an answer that lacks something is told, with the cure',
  leakless(async (_t, defer) => {
    const later = await clientOf(defer, 200, { ...RELOADED, later: 1 });
    assert.deepEqual((await later.reload()).added, ['a@x']);
    const { added: _, ...lacking } = RELOADED;
    const other = await clientOf(defer, 200, lacking);
    await assert.rejects(other.reload(), /does not understand \(added: .*another version\? restart it/);
  }),
);

test(
  "the relay's own error is told as it is",
  leakless(async (_t, defer) => {
    const client = await clientOf(defer, 400, { error: 'not like this' });
    await assert.rejects(client.accounts(), { message: 'not like this' });
  }),
);

/** A client of a server that does with a request what `answer` does. */
async function clientOfSocket(
  defer: Defer,
  answer: (socket: Socket) => void,
  options: { readonly clock?: Clock; readonly maxOctets?: number } = {},
) {
  const open = new Set<Socket>();
  const server = createTcpServer((socket) => {
    open.add(socket.on('error', () => {}));
    socket.once('data', () => answer(socket));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  defer(async () => {
    for (const socket of open) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  const settings = await loadSettings({ flags: { adminPort: String(port) }, env: {} });
  return createAdminClient(settings, options);
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n';

for (const [what, answer] of [
  ['breaks off', `${HEAD}content-length: 100\r\n\r\n{"acc`],
  ['is not what it says', `${HEAD}content-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd`],
] as const)
  test(
    `an answer that ${what} is told in words`,
    leakless(async (_t, defer) => {
      const client = await clientOfSocket(defer, (socket) => socket.end(answer));
      await assert.rejects(
        client.reload(),
        (error) => error instanceof OperatorError && /did not end it/.test(error.message),
      );
    }),
  );

test(
  'an answer that is no JSON is told in words',
  leakless(async (_t, defer) => {
    const client = await clientOfSocket(defer, (socket) =>
      socket.end(`${HEAD}content-length: 5\r\n\r\n{"acc`),
    );
    await assert.rejects(
      client.accounts(),
      (error) => error instanceof OperatorError && /without JSON/.test(error.message),
    );
  }),
);

for (const [what, begins] of [
  ['before it begins', ''],
  ['in the middle', `${HEAD}content-length: 100\r\n\r\n{"acc`],
] as const)
  test(
    `an answer that stops ${what} is waited for 30 s`,
    leakless(async (_t, defer) => {
      const clock = createTestClock();
      let asked = false;
      const client = await clientOfSocket(
        defer,
        (socket) => {
          asked = true;
          if (begins !== '') socket.write(begins);
        },
        { clock },
      );
      const said = client.reload().then(
        () => 'answered',
        (error: Error) => error.message,
      );
      await waitFor(() => asked, { what: 'the request' });
      // What only the answer holds is gone by then.
      for (let turn = 0; turn < 30; turn++) {
        collect();
        await new Promise((resolve) => setImmediate(resolve));
      }
      clock.advance(30_000);
      assert.match(await said, /no relay answers|did not end it/);
      assert.equal(clock.pending(), 0);
    }),
  );

test(
  'a token of a person’s making is told as a password: a bearer token has no spaces',
  leakless(async (_t, defer) => {
    const heard: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      heard.push(request.headers.authorization);
      response.writeHead(200, { 'content-type': 'application/json', connection: 'close' });
      response.end(JSON.stringify(RELOADED));
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    defer(() => new Promise<void>((resolve) => void server.close(() => resolve())));
    const adminPort = String((server.address() as AddressInfo).port);
    for (const token of ['plain', 'drei Wörter €'])
      await createAdminClient(
        await loadSettings({ flags: { adminPort }, env: { XOAUTH2_RELAY_ADMIN_TOKEN: token } }),
      ).reload();
    const basic = Buffer.from(':drei Wörter €').toString('base64');
    assert.deepEqual(heard, ['Bearer plain', `Basic ${basic}`]);
  }),
);

test(
  'an answer that floods is not read to its end',
  leakless(async (_t, defer) => {
    const blanks = Buffer.alloc(64 * 1024, ' ');
    const client = await clientOfSocket(
      defer,
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n');
        const flood = (): void => {
          while (!socket.destroyed && socket.write(blanks));
        };
        socket.on('drain', flood);
        flood();
      },
      { maxOctets: 1024 * 1024 },
    );
    await assert.rejects(client.accounts(), /began an answer and did not end it/);
  }),
);

test(
  'the token that may only read is offered by the commands that only read, and by no other',
  leakless(async (_t, defer) => {
    const terminal = createTerminal(process);
    let methods: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      methods.push(request.method);
      response.writeHead(400, { 'content-type': 'application/json', connection: 'close' });
      response.end(JSON.stringify({ error: 'not like this' }));
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    defer(() => new Promise<void>((resolve) => void server.close(() => resolve())));
    const { port } = server.address() as AddressInfo;
    const accounts = [accountShow, accountRefresh, accountDrain, accountResume, accountInvite];
    for (const command of [...accounts, status, reload, unclearList, unclearDelivered, unclearAgain]) {
      methods = [];
      const ran = command.run({
        arguments: ['a@x'],
        options: { adminPort: String(port) },
        env: {},
        terminal,
      });
      await assert.rejects(Promise.resolve(ran), { message: 'not like this' }, command.name);
      const onlyReads = methods.length > 0 && methods.every((method) => method === 'GET');
      const isOffered = command.options.some(({ flags }) => flags.startsWith('--admin-read-token-file'));
      assert.equal(isOffered, onlyReads, command.name);
    }
  }),
);
