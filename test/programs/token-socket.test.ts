/** The token socket with programs that behave and programs that do not. */
import assert from 'node:assert/strict';
import { linkSync, lstatSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Account } from '../../src/accounts/account.ts';
import { createTokenSocket, type TokenSocketDeps } from '../../src/programs/token-socket.ts';
import { MAX_QUESTION, parseTokenReply, type TokenReply } from '../../src/programs/token-wire.ts';
import { AccessToken, TokenError } from '../../src/tokens/access-token.ts';
import { createTestClock } from '../support/clock.ts';
import { waitFor } from '../support/wait-for.ts';
import { createTestLog } from '../tokens/support.ts';

const alice = {
  id: 'alice',
  email: 'alice@example.com',
  user: 'alice@example.com',
  provider: 'outlook',
  grant: 'refresh_token',
  upstream: { host: 'smtp.office365.com', port: 587, tls: 'starttls' },
} as Account;
const gina = {
  ...alice,
  id: 'gina',
  email: 'gina@gmail.com',
  provider: 'gmail',
  upstream: { ...alice.upstream, host: 'smtp.gmail.com' },
} as Account;

function place(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'token-socket-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return join(directory, 'token.sock');
}

const HOUR = 3_600_000;

async function open(t: TestContext, tokens: Partial<TokenSocketDeps['tokens']> = {}, path = place(t)) {
  const clock = createTestClock();
  const log = createTestLog();
  const given = new AccessToken('the-token', clock.now() + HOUR, clock.now());
  const socket = createTokenSocket(
    {
      tokens: { get: async () => given, renew: async () => given, ...tokens },
      accountOf: (name) => [alice, gina].find(({ id, email }) => name === id || name === email),
      log,
      clock,
    },
    { path, answerTimeoutMs: 20_000 },
  );
  await socket.listen();
  t.after(() => socket.close());
  return { path, clock, log, socket };
}

/** What came until the end; `talk` writes. */
function say(path: string, talk: (socket: Socket) => void): Promise<string> {
  return new Promise((resolve) => {
    let heard = '';
    const socket = connect(path, () => talk(socket));
    socket.setEncoding('utf8').on('data', (text: string) => {
      heard += text;
    });
    socket.on('error', () => {});
    socket.once('close', () => resolve(heard));
  });
}

async function ask(path: string, question: object): Promise<TokenReply> {
  const line = await say(path, (socket) => socket.write(`${JSON.stringify(question)}\n`));
  const reply = parseTokenReply(line);
  assert(reply !== undefined, line);
  return reply;
}

test('a program gets a token, the log a line without it, and only this user may open the socket', async (t) => {
  const { path, log } = await open(t);
  assert.equal(lstatSync(path).mode & 0o777, 0o600);
  const reply = await ask(path, { account: 'ALICE@example.com'.toLowerCase(), resource: 'smtp' });
  assert(reply.ok);
  assert.deepEqual([reply.account, reply.user, reply.access_token], ['alice', alice.user, 'the-token']);
  const told = log.lines.filter((line) => line.fields.event === 'token_given');
  assert.deepEqual(
    told.map((line) => [line.fields.account, line.fields.resource]),
    [['alice', 'smtp']],
  );
  assert(!log.text().includes('the-token'));
});

test('who is unknown, where a token does not belong, what the grant does not cover: an error with its cure', async (t) => {
  const { path, log } = await open(t, {
    get: async (_id, resource) => {
      if (resource === 'graph') throw new TokenError('bad_request', 'account alice has no scope for graph');
      throw new TokenError('needs_consent', 'invalid_grant: AADSTS65001: no consent', {
        causeId: 'consent-missing',
        cure: 'consent to SMTP.Send',
      });
    },
  });
  const denied = async (question: object): Promise<string> => {
    const reply = await ask(path, question);
    assert(!reply.ok);
    return `${reply.error} | ${reply.cure}`;
  };
  assert.match(await denied({ account: 'bob@x', resource: 'smtp' }), /no account bob@x \| .*status/);
  assert.match(
    await denied({ account: 'alice', resource: 'smtp', host: 'evil.example' }),
    /evil\.example is no smtp server of alice: no token is shown to it/,
  );
  assert.match(
    await denied({ account: 'alice', resource: 'imap' }),
    /does not cover imap: .*AADSTS65001.* \| .*account add alice@example\.com --replace --imap/,
  );
  assert.match(
    await denied({ account: 'alice', resource: 'graph' }),
    /does not cover graph.*--transport smtp_then_graph/,
  );
  assert.match(await denied({ account: 'gina', resource: 'graph' }), /has no scope for graph \| undefined/);
  assert.equal(log.lines.filter((line) => line.fields.event === 'token_denied').length, 5);
});

test('who ends after the question, or ends the question so, hears the answer however late it comes', async (t) => {
  const { path } = await open(t, {
    get: async () => {
      await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
      return new AccessToken('late', Date.now() + HOUR, Date.now());
    },
  });
  const question = JSON.stringify({ account: 'alice', resource: 'smtp' });
  for (const written of [`${question}\n`, question])
    assert.match(await say(path, (socket) => socket.end(written)), /"access_token":"late"/);
  assert.equal(await say(path, (socket) => socket.end()), '');
});

test('a refused token is replaced', async (t) => {
  let refused = '';
  const { path, log } = await open(t, {
    renew: async (_id, rejected) => {
      refused = rejected.reveal();
      return new AccessToken('another', Date.now() + HOUR, Date.now());
    },
  });
  const reply = await ask(path, { account: 'alice', resource: 'smtp', refused: 'the-token' });
  assert(reply.ok && reply.access_token === 'another');
  assert.equal(refused, 'the-token');
  assert(!log.text().includes('the-token') && !log.text().includes('another'));
});

test('whoever says nothing, too much, nonsense or waits too long has an end', async (t) => {
  let asked = 0;
  const { path, clock, log } = await open(t, {
    get: () => {
      asked += 1;
      return new Promise(() => {});
    },
  });
  let connected = 0;
  const silent = say(path, (socket) => {
    connected += 1;
    socket.write('{"acc');
  });
  const patient = ask(path, { account: 'alice', resource: 'smtp' });
  await waitFor(() => asked === 1 && connected === 1 && clock.pending() === 2, { what: 'both are heard' });
  clock.advance(20_000);
  assert.equal(await silent, '');
  const late = await patient;
  assert(!late.ok);
  assert.match(late.error, /not answered yet/);
  const flood = parseTokenReply(await say(path, (socket) => socket.write('x'.repeat(MAX_QUESTION + 1))));
  assert.equal(flood?.ok, false);
  const http = parseTokenReply(await say(path, (socket) => socket.write('GET / HTTP/1.1\r\n\r\n')));
  assert.equal(http?.ok, false);
  assert.equal(log.lines.filter((line) => line.fields.event === 'token_denied').length, 3);
});

test('programs that say nothing hold nobody up who asks; those that have asked keep their places', async (t) => {
  let give = (_token: AccessToken): void => {};
  const late = new Promise<AccessToken>((resolve) => {
    give = resolve;
  });
  let asked = 0;
  const { path, socket, clock } = await open(t, {
    get: () => {
      asked++;
      return asked === 1 ? late : Promise.resolve(new AccessToken('soon', clock.now() + HOUR, 0));
    },
  });
  const slow = ask(path, { account: 'alice', resource: 'smtp' });
  await waitFor(() => asked === 1);
  const idle = Array.from({ length: 100 }, () => say(path, () => {}));
  await Promise.all(idle.slice(0, 30));
  assert((await ask(path, { account: 'alice', resource: 'smtp' })).ok);
  give(new AccessToken('late', clock.now() + HOUR, 0));
  assert((await slow).ok);
  await socket.close();
  await Promise.all(idle);
});

test('a socket that nobody listens on is replaced; one in use, a file and a link are left alone', async (t) => {
  const path = place(t);
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(path, resolve));
  // Closed without being removed, as after SIGKILL.
  linkSync(path, `${path}.kept`);
  await new Promise((resolve) => dead.close(resolve));
  renameSync(`${path}.kept`, path);
  const { socket } = await open(t, {}, path);
  assert((await ask(path, { account: 'alice', resource: 'smtp' })).ok);

  await assert.rejects(open(t, {}, path), /TokenSocketError|EADDRINUSE/);
  assert((await ask(path, { account: 'alice', resource: 'smtp' })).ok, 'the first one still serves');

  const file = `${path}.file`;
  writeFileSync(file, 'precious');
  await assert.rejects(open(t, {}, file), /no socket has this name/);
  symlinkSync(path, `${path}.link`);
  await assert.rejects(open(t, {}, `${path}.link`), /no socket has this name/);
  await socket.close();
  assert.throws(() => lstatSync(path), /ENOENT/, 'removed at the end');
});
