import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { channel } from 'node:diagnostics_channel';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { before, test } from 'node:test';
import tls, { connect as tlsConnect } from 'node:tls';
import { Worker } from 'node:worker_threads';
import type { Account } from '../../src/accounts/account.ts';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { hashPassword } from '../../src/accounts/scrypt.ts';
import { createListener } from '../../src/listener/listener.ts';
import { silentLog } from '../../src/log.ts';
import { type Reply, reply } from '../../src/protocol/reply.ts';
import { serialAt, testAuthority } from '../support/certificate.ts';
import { createTestClock } from '../support/clock.ts';
import { leakless } from '../support/leak-check.ts';
import { PATIENCE_MS, waitFor, within } from '../support/wait-for.ts';
import { account, bodyOf, certificateFiles, fakeRelay, stage } from './stage.ts';

const AUTH_A = `AUTH PLAIN ${Buffer.from('\0a@x.test\0right').toString('base64')}`;
let withPassword: Account;

before(async () => {
  const hash = await hashPassword('right', { n: 1024, r: 8, p: 1 });
  withPassword = account('a@x.test', { clientPassword: { hash } });
});

test(
  'greets at once instead of waiting 100 ms for early talkers',
  leakless(async (t, defer) => {
    const s = await stage(defer);
    let tell = (_: Promise<unknown>): void => {};
    const greeted = within(
      new Promise((resolve) => {
        tell = resolve;
      }),
      PATIENCE_MS,
      'the greeting',
    );
    // From here on no timer of the listener ends.
    t.mock.timers.enable({ apis: ['setTimeout'] });
    tell(s.connect().then((client) => client.expect(undefined, 220)));
    await greeted;
    t.mock.timers.reset();
  }),
);

test(
  'STARTTLS: nothing learned or sent in clear text counts after it',
  leakless(async (_t, defer) => {
    const files = await certificateFiles(defer);
    const s = await stage(defer, {
      accounts: [withPassword],
      settings: { tls: 'starttls', received: true, ...files },
    });
    const client = await s.greeted();
    assert.match((await client.send('EHLO client.test')).text, /STARTTLS/);
    await client.expect(AUTH_A, 235);
    await client.expect('MAIL FROM:<a@x.test>', 250);
    await client.startTls(testAuthority().certPem);
    assert.equal(s.relay.seen[0]?.aborted, 'transaction');
    await client.expect('MAIL FROM:<a@x.test>', 503);
    assert.doesNotMatch((await client.send('EHLO client.test')).text, /STARTTLS/);
    await client.expect('STARTTLS', 503);
    await client.expect('MAIL FROM:<a@x.test>', 530);
    await client.expect(AUTH_A, 235);
    await client.expect('MAIL FROM:<a@x.test>', 250);
    await client.expect('RCPT TO:<b@y.test>', 250);
    await client.expect('DATA', 354);
    await client.body('Subject: t\r\n\r\nx');
    assert.match(
      bodyOf(s.relay.taken()[0]),
      /^Received: from client\.test .*\r\n\tby relay\.test with ESMTPSA \(TLS/,
    );
  }),
);

test(
  'commands behind STARTTLS in the same packet never run',
  leakless(async (_t, defer) => {
    const files = await certificateFiles(defer);
    const s = await stage(defer, { settings: { tls: 'starttls', ...files } });
    const client = await s.greeted();
    const answered = new Promise<string>((resolve) => {
      client.socket.once('data', (chunk: Buffer) => resolve(chunk.toString()));
    });
    await client.raw('STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n');
    assert.equal(await answered, '220 2.0.0 Ready to start TLS\r\n');
    client.socket.removeAllListeners('data');
    const secure = tlsConnect({
      socket: client.socket,
      servername: 'localhost',
      ca: testAuthority().certPem,
    });
    await new Promise((resolve, reject) => secure.once('secureConnect', resolve).once('error', reject));
    const next = new Promise<string>((resolve) => secure.once('data', (c: Buffer) => resolve(c.toString())));
    secure.write('RCPT TO:<c@y.test>\r\n');
    assert.equal(await next, '503 5.5.1 Send EHLO first\r\n');
    assert.equal(s.relay.seen.length, 0);
    secure.destroy();
  }),
);

test(
  'a handshake that never comes is given up, and one under way does not hold up a stop',
  leakless(async (_t, defer) => {
    const files = await certificateFiles(defer);
    const settings = { tls: 'starttls', ...files } as const;
    const clock = createTestClock();
    const impatient = await stage(defer, { deps: { clock }, settings });
    const silent = await impatient.greeted();
    await silent.expect('STARTTLS', 220);
    clock.advance(31_000);
    await silent.closed();
    const secure = await impatient.greeted();
    await secure.startTls(testAuthority().certPem);
    await secure.expect('EHLO client.test', 250);
    // The time of the handshake does not go on counting.
    clock.advance(31_000);
    await secure.expect('NOOP', 250);

    const patient = await stage(defer, { settings });
    const waiting = await patient.greeted();
    await waiting.expect('STARTTLS', 220);
    // The first octets of a TLS record, and no more.
    await waiting.raw(Buffer.from([0x16, 3, 1, 2, 0, 1]));
    await patient.listener.stop({ deadlineMs: 60_000 });
    await waiting.closed();
  }),
);

test(
  'implicit TLS with a certificate that can be replaced',
  leakless(async (_t, defer) => {
    const files = await certificateFiles(defer);
    const s = await stage(defer, { accounts: [withPassword], settings: { tls: 'implicit', ...files } });
    const client = await s.greeted({ tls: true, ca: testAuthority().certPem });
    const first = await serialAt(s.port);
    await files.renew();
    assert.equal(await serialAt(s.port), first);
    await s.listener.reloadTls();
    assert.notEqual(await serialAt(s.port), first);
    const key = await readFile(files.keyFile, 'utf8');
    const { privateKey: another } = generateKeyPairSync('ed25519');
    const anotherKind = another.export({ format: 'pem', type: 'pkcs8' });
    for (const [broken, why] of [
      ['garbage', ''],
      ['', ''],
      [anotherKind, 'the key is not that of the certificate'],
    ]) {
      await writeFile(files.keyFile, broken ?? '');
      await assert.rejects(
        s.listener.reloadTls(),
        new RegExp(`key\\.pem are no usable certificate and key: .*${why}`),
      );
      assert.notEqual(await serialAt(s.port), first);
    }
    await rm(files.keyFile);
    execFileSync('mkfifo', [files.keyFile]);
    await assert.rejects(s.listener.reloadTls(), /key\.pem: is no file/);
    await rm(files.keyFile);
    // As openssl writes the name of a PKCS #12 file beside it.
    await writeFile(
      files.keyFile,
      Buffer.concat([Buffer.from('    friendlyName: B\xfcro\n', 'latin1'), Buffer.from(key)]),
    );
    await s.listener.reloadTls();
    // The session from before goes on.
    await client.expect(AUTH_A, 235);
  }),
);

test(
  'TLS 1.1 is refused by us, not only by the defaults of OpenSSL',
  leakless(async (_t, defer) => {
    const files = await certificateFiles(defer);
    const before = tls.DEFAULT_CIPHERS;
    tls.DEFAULT_CIPHERS = 'ALL@SECLEVEL=0';
    defer(() => {
      tls.DEFAULT_CIPHERS = before;
    });
    const s = await stage(defer, { accounts: [withPassword], settings: { tls: 'implicit', ...files } });
    const outcomes: unknown[] = [];
    for (const maxVersion of ['TLSv1.1', 'TLSv1.2'] as const) {
      const socket = tlsConnect({
        host: '127.0.0.1',
        port: s.port,
        servername: 'localhost',
        ca: testAuthority().certPem,
        minVersion: 'TLSv1',
        maxVersion,
      });
      outcomes.push(
        await new Promise((resolve) =>
          socket
            .once('error', () => resolve('refused'))
            .once('secureConnect', () => resolve(socket.getProtocol())),
        ),
      );
      socket.destroy();
    }
    assert.deepEqual(outcomes, ['refused', 'TLSv1.2']);
  }),
);

test(
  'does not start exposed, without a certificate, with a bad range or on a taken port',
  leakless(async (_t, defer) => {
    const taken = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => taken.once('listening', resolve));
    defer(() => taken.close());
    const address = taken.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    const directory = createAccountDirectory([account('a@x.test')]);
    const deps = { relay: fakeRelay(), directory: () => directory, log: silentLog, replayBytes: 4096 };
    for (const [settings, code] of [
      [{ host: '0.0.0.0', port: 0 }, 'exposed'],
      [{ port: 0, tls: 'starttls' }, 'certificate'],
      [{ port: 0, tls: 'implicit', certFile: '/nowhere', keyFile: '/nowhere' }, 'certificate'],
      [{ port: 0, allow: ['10.0.0.0/99'] }, 'option'],
      [{ port }, 'address'],
    ] as const) {
      await assert.rejects(createListener(deps, settings).listen(), { name: 'ListenerError', code });
    }
  }),
);

test(
  'AUTH over clear text only on loopback; the address behind a proxy is what counts',
  leakless(async (_t, defer) => {
    const files = await certificateFiles(defer);
    const s = await stage(defer, {
      accounts: [withPassword],
      settings: { tls: 'starttls', proxyProtocol: true, received: true, ...files },
    });
    const client = await s.connect();
    await client.raw('PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n');
    await client.expect(undefined, 220);
    const { text } = await client.send('EHLO client.test');
    assert.match(text, /STARTTLS/);
    assert.doesNotMatch(text, /AUTH/);
    await client.expect(AUTH_A, '538 5.7.11');
    await client.startTls(testAuthority().certPem);
    assert.match((await client.send('EHLO client.test')).text, /AUTH PLAIN LOGIN/);
    await client.expect(AUTH_A, 235);
    await client.expect('MAIL FROM:<a@x.test>', 250);
    assert.equal(s.relay.seen[0]?.command.session.remoteAddress, '192.0.2.7');
    await client.expect('RCPT TO:<b@y.test>', 250);
    await client.expect('DATA', 354);
    await client.body('x');
    assert.match(
      bodyOf(s.relay.seen[0]),
      /^Received: from client\.test \(\[192\.0\.2\.7\]\)\r\n\tby relay\.test with ESMTPSA \(TLSv1\.3 /,
    );
    const junk = await s.connect();
    await junk.raw('EHLO client.test\r\n');
    await junk.closed();
  }),
);

test(
  'only named proxies are believed',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { proxyProtocol: ['192.0.2.0/24'], allow: ['127.0.0.1'] } });
    const client = await s.connect();
    await client.expect(undefined, 220);
    await client.expect('PROXY TCP4 10.0.0.1 10.0.0.2 1 2', 500);
  }),
);

test(
  '`allow` refuses everybody else and trusts those it names',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { allow: ['10.0.0.0/8', '::1'], proxyProtocol: true } });
    const client = await s.connect();
    await client.raw('PROXY TCP4 11.0.0.1 10.0.0.2 1 2\r\n');
    await client.expect(undefined, '554 5.7.1');
    await client.closed();
    const named = await s.connect();
    await named.raw('PROXY TCP4 10.9.9.9 10.0.0.2 1 2\r\n');
    await named.expect(undefined, 220);
    await named.expect('EHLO client.test', 250);
    await named.expect('MAIL FROM:<a@x.test>', 250);
    const counts = s.listener.counts();
    assert.equal(counts.limitHits.not_allowed, 1);
    assert.equal(counts.refusedTotal, 1);
    assert.equal(counts.sessionsTotal, 2);
  }),
);

/** Looks from another thread for the first moment at which there is something at `path`. */
const FIRST_SEEN = `
  const { lstatSync } = require('node:fs');
  const { parentPort, workerData } = require('node:worker_threads');
  parentPort.postMessage('looking');
  for (const end = Date.now() + 5_000; Date.now() < end; ) {
    const facts = lstatSync(workerData, { throwIfNoEntry: false });
    if (facts !== undefined) { parentPort.postMessage(facts.mode & 0o777); break; }
  }`;

test(
  'a UNIX socket has its mode from the first moment, whatever the umask',
  leakless(async (_t, defer) => {
    const { directory } = await certificateFiles(defer);
    const accounts = createAccountDirectory([account('a@x.test')]);
    const deps = {
      relay: fakeRelay(),
      directory: () => accounts,
      log: silentLog,
      replayBytes: 4096,
    };
    const before = process.umask(0);
    defer(() => void process.umask(before));
    for (let i = 0; i < 5; i++) {
      const path = join(directory, `mode${i}.sock`);
      const looker = new Worker(FIRST_SEEN, { eval: true, workerData: path });
      const said = (): Promise<unknown> => new Promise((resolve) => looker.once('message', resolve));
      assert.equal(await said(), 'looking');
      const mode = said();
      const listener = createListener(deps, { path, pathMode: 0o600, hostname: 'relay.test' });
      await listener.listen();
      assert.equal(await mode, 0o600);
      assert.equal(process.umask(), 0);
      await listener.stop({ deadlineMs: 0 });
      await looker.terminate();
    }
  }),
);

test(
  'listens on a UNIX socket, takes over a dead one and leaves a live one alone',
  leakless(async (_t, defer) => {
    const { directory } = await certificateFiles(defer);
    const path = join(directory, 'relay.sock');
    const accounts = createAccountDirectory([account('a@x.test')]);
    const relay = fakeRelay();
    const deps = { relay, directory: () => accounts, log: silentLog, replayBytes: 4096 };
    const code = `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`;
    const killed = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => killed.stdout.once('data', resolve));
    killed.kill('SIGKILL');
    await new Promise((resolve) => killed.once('close', resolve));
    assert.ok((await stat(path)).isSocket());
    const listener = createListener(deps, { path, hostname: 'relay.test', lmtp: true, received: true });
    assert.deepEqual(await listener.listen(), { path });
    defer(() => listener.stop({ deadlineMs: 0 }));
    assert.equal((await stat(path)).mode & 0o777, 0o660);
    await assert.rejects(createListener(deps, { path }).listen(), { code: 'address' });
    // Such as the accounts file.
    const file = join(directory, 'accounts.json');
    await writeFile(file, '{}');
    await assert.rejects(createListener(deps, { path: file }).listen(), /no socket has this name/);
    assert.equal(await readFile(file, 'utf8'), '{}');
    const socket = connect(path);
    defer(() => socket.destroy());
    let heard = '';
    socket.on('data', (chunk) => {
      heard += chunk;
    });
    socket.write('LHLO c\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n');
    await waitFor(() => heard.includes('221 '));
    assert.match(bodyOf(relay.taken()[0]), /^Received: from c\r\n\tby relay\.test with LMTP id T1;/);
  }),
);

test(
  'stopping tells idle clients at once and lets transactions finish',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    let release = (_: Reply): void => {};
    s.relay.on.end = () =>
      new Promise((resolve) => {
        release = resolve;
      });
    const idle = await s.greeted();
    const early = await s.greeted();
    await early.expect('MAIL FROM:<a@x.test>', 250);
    const late = await s.inBody();
    await late.raw('text\r\n.\r\n');
    await waitFor(() => bodyOf(s.relay.seen[1]) === 'text\r\n');
    const stopped = s.listener.stop({ deadlineMs: 60_000 });
    await idle.expect(undefined, '421 4.3.2');
    await idle.closed();
    await assert.rejects(s.connect());
    await early.expect('RCPT TO:<b@y.test>', 250);
    await early.expect('RSET', 250);
    await early.expect(undefined, '421 4.3.2');
    release(reply(250, '2.0.0', 'Taken'));
    await late.expect(undefined, '250 2.0.0 Taken');
    await late.expect(undefined, '421 4.3.2');
    await stopped;
    assert.equal(s.relay.taken().length, 1);
    assert.equal(s.listener.counts().sessions, 0);
  }),
);

test(
  'a stop between a connection being accepted and its session: 421 for a greeting, and no message goes on coming by it',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    let stopped: Promise<void> | undefined;
    // Node tells of a connection in the turn in which it is accepted.
    const accepted = channel('net.server.socket');
    const stop = (): void => {
      accepted.unsubscribe(stop);
      stopped = s.listener.stop({ deadlineMs: 60_000 });
    };
    accepted.subscribe(stop);
    const client = await s.connect();
    await client.expect(undefined, '421 4.3.2');
    await client.closed();
    await stopped;
    assert.equal(s.listener.counts().sessions, 0);
  }),
);

test(
  'a client that closes instead of a handshake, as a health check does, is not waited for',
  leakless(async (_t, defer) => {
    for (const tls of ['implicit', 'starttls'] as const) {
      const settings = { tls, ...(await certificateFiles(defer)) };
      const s = await stage(defer, { settings, deps: { clock: createTestClock() } });
      for (const hello of ['', '\x16\x03\x01\x02\x00\x01']) {
        const socket = connect({ port: s.port, host: '127.0.0.1', allowHalfOpen: true });
        socket.on('error', () => {});
        let said = '';
        socket.on('data', (chunk) => {
          said += chunk.toString('latin1');
        });
        await waitFor(() => s.listener.counts().sessions === 1);
        if (tls === 'starttls') {
          socket.write('EHLO client.test\r\nSTARTTLS\r\n');
          await waitFor(() => said.includes('Ready to start TLS'));
        }
        socket.end(Buffer.from(hello, 'latin1'));
        await waitFor(() => s.listener.counts().sessions === 0);
        socket.destroy();
      }
      assert.equal(s.listener.counts().limitHits.handshake, 0);
    }
  }),
);

for (const how of ['stop', 'cut'] as const) {
  test(
    `a ${how} between a connection being accepted and its TLS handshake ends that connection, and not the process`,
    leakless(async (_t, defer) => {
      const s = await stage(defer, { settings: { tls: 'implicit', ...(await certificateFiles(defer)) } });
      let stopped: Promise<void> | undefined;
      const accepted = channel('net.server.socket');
      const stop = (): void => {
        accepted.unsubscribe(stop);
        if (how === 'cut') s.listener.cut();
        stopped = s.listener.stop({ deadlineMs: 60_000 });
      };
      accepted.subscribe(stop);
      const socket = connect(s.port, '127.0.0.1');
      await new Promise((resolve) =>
        socket
          .on('error', () => {})
          .once('close', resolve)
          .resume(),
      );
      await stopped;
      assert.equal(s.listener.counts().sessions, 0);
    }),
  );
}

test(
  'at the deadline what is left is cut and nothing of it delivered',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const client = await s.inBody();
    await client.raw('half');
    await waitFor(() => bodyOf(s.relay.seen[0]) === 'half');
    await s.listener.stop({ deadlineMs: 20 });
    await client.closed();
    assert.equal(s.relay.seen[0]?.aborted, 'body');
    assert.equal(s.relay.taken().length, 0);
  }),
);

test(
  'offers DSN only where every upstream honours it',
  leakless(async (_t, defer) => {
    const offered = { dsn: true, smtpUtf8: false, eightBitMime: true };
    const s = await stage(defer, { deps: { offered: () => offered } });
    const client = await s.greeted();
    const { lines } = await client.send('EHLO client.test');
    assert.ok(lines.includes('250 DSN') || lines.includes('250-DSN'));
    assert.ok(!lines.some((l) => l.includes('SMTPUTF8')));
  }),
);
