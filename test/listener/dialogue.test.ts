import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { Account } from '../../src/accounts/account.ts';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { hashPassword } from '../../src/accounts/scrypt.ts';
import { silentLog } from '../../src/log.ts';
import { leakless } from '../support/leak-check.ts';
import { account, bodyOf, stage } from './stage.ts';

let withPassword: Account;
const plain = (user: string, password: string): string =>
  Buffer.from(`\0${user}\0${password}`).toString('base64');
const b64 = (text: string): string => Buffer.from(text).toString('base64');

before(async () => {
  const hash = await hashPassword('right', { n: 1024, r: 8, p: 1 });
  withPassword = account('a@x.test', {
    clientPassword: { hash },
    senders: ['a@x.test', 'alias@x.test', '*@team.test'],
  });
});

test(
  'AUTH PLAIN and LOGIN in all their forms, also after HELO',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { accounts: [withPassword] });
    const forms: readonly (readonly [line: string, code: string])[][] = [
      [[`AUTH PLAIN ${plain('a@x.test', 'right')}`, '235 2.7.0']],
      [
        ['AUTH PLAIN', '334 '],
        [plain('a@x.test', 'right'), '235 2.7.0'],
      ],
      [
        ['AUTH LOGIN', '334 VXNlcm5hbWU6'],
        [b64('a@x.test'), '334 UGFzc3dvcmQ6'],
        [b64('right'), '235 2.7.0'],
      ],
      [
        [`auth login ${b64('A@x.test')}`, '334 UGFzc3dvcmQ6'],
        [b64('right'), '235 2.7.0'],
      ],
      [
        ['AUTH PLAIN', '334 '],
        ['*', '501 5.5.2'],
        ['AUTH LOGIN', '334'],
        [b64('a@x.test'), '334'],
        ['*', '501 5.5.2'],
        ['AUTH LOGIN', '334'],
        ['no base64!', '501 5.5.2'],
        [`AUTH PLAIN ${plain('a@x.test', 'right')}`, '235 2.7.0'],
      ],
    ];
    for (const form of forms) {
      for (const hello of ['EHLO client.test', 'HELO client.test']) {
        const client = await s.connect();
        await client.expect(undefined, 220);
        const greeting = await client.expect(hello, 250);
        assert.equal(greeting.lines.includes('250 AUTH PLAIN LOGIN'), hello.startsWith('EHLO'));
        for (const [line, code] of form) await client.expect(line, code);
        await client.expect('AUTH PLAIN', '503 5.5.1');
        await client.expect('MAIL FROM:<a@x.test>', 250);
        assert.equal(s.relay.seen.at(-1)?.command.account.id, 'a@x.test');
        assert.doesNotMatch((await client.send('EHLO client.test')).text, /AUTH/);
        await client.expect('QUIT', 221);
      }
    }
  }),
);

test(
  'an account with a password is closed without it, and no reply tells what was wrong',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { accounts: [withPassword, account('open@x.test')] });
    const client = await s.greeted();
    await client.expect('MAIL FROM:<a@x.test>', '530 5.7.0');
    const wrong = await client.send(`AUTH PLAIN ${plain('a@x.test', 'wrong')}`);
    const unknown = await client.send(`AUTH PLAIN ${plain('nobody@x.test', 'wrong')}`);
    await client.send('AUTH LOGIN');
    await client.send(b64('nobody@x.test'));
    const login = await client.send(b64('x'));
    for (const r of [wrong, unknown, login]) {
      assert.equal(r.text, '535 5.7.8 Authentication credentials invalid');
    }
    await client.expect('MAIL FROM:<a@x.test>', '530 5.7.0');
    await client.expect('MAIL FROM:<open@x.test>', 250);
    assert.equal(s.listener.counts().authFailures, 3);
  }),
);

test(
  'a client of this machine that must log in may do so with a dummy, by id, address or user',
  leakless(async (_t, defer) => {
    const shared = account('open@x.test', { id: 'open', user: 'box@x.test' });
    const lines: string[] = [];
    const log = { ...silentLog, warn: (fields: object) => lines.push(JSON.stringify(fields)) };
    const s = await stage(defer, { accounts: [withPassword, shared], deps: { log } });
    for (const user of ['open', 'OPEN@x.test', 'box@x.test']) {
      const client = await s.greeted();
      assert.match((await client.send('EHLO c')).text, /AUTH PLAIN LOGIN/);
      await client.expect('AUTH LOGIN', 334);
      await client.expect(b64(user), 334);
      await client.expect(b64('x'), 235);
      await client.expect('MAIL FROM:<a@x.test>', '550 5.7.1');
      await client.expect('MAIL FROM:<open@x.test>', 250);
    }
    const wrong = await s.greeted();
    await wrong.expect(`AUTH PLAIN ${plain('a@x.test', 'x')}`, 535);
    await wrong.expect(`AUTH PLAIN ${plain('nobody@x.test\u202e', 'x')}`, 535);
    await wrong.expect(`AUTH PLAIN ${plain('hunter2password', 'x')}`, 535);
    assert.deepEqual(
      lines.map((line) => JSON.parse(line)),
      [
        {
          event: 'auth_failed',
          client: '127.0.0.1',
          user: 'a@x.test',
          account: 'a@x.test',
          reason: 'wrong password',
        },
        { event: 'auth_failed', client: '127.0.0.1', user: 'nobody@x.test ', reason: 'unknown user' },
        // It may be the password, typed into the wrong field.
        { event: 'auth_failed', client: '127.0.0.1', user: 'hu… (15 characters)', reason: 'unknown user' },
      ],
    );
  }),
);

test(
  'a client named in allow may log in with a dummy in clear text, behind a load balancer too; others there may not',
  leakless(async (_t, defer) => {
    const settings = { proxyProtocol: true, proxyFrom: ['127.0.0.1'], allow: ['192.0.2.0/24'] };
    const s = await stage(defer, { accounts: [account('open@x.test')], settings });
    const client = await s.connect();
    await client.raw('PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n');
    await client.expect(undefined, 220);
    assert.match((await client.send('EHLO c')).text, /AUTH PLAIN LOGIN/);
    await client.expect(`AUTH PLAIN ${plain('open@x.test', 'x')}`, 235);
    await client.expect('MAIL FROM:<open@x.test>', 250);
    const other = await s.connect();
    await other.raw('PROXY TCP4 198.51.100.7 192.0.2.1 40000 25\r\n');
    await other.closed();
  }),
);

test(
  'a login that comes to no user stands in the log with the client and what it heard',
  leakless(async (_t, defer) => {
    const lines: { reason?: string }[] = [];
    const log = { ...silentLog, warn: (fields: object) => lines.push(fields) };
    const s = await stage(defer, { accounts: [account('open@x.test')], deps: { log } });
    const client = await s.greeted();
    await client.expect('AUTH CRAM-MD5', '504 5.5.4');
    await client.expect(`AUTH PLAIN ${b64('open@x.test\0x')}`, '501 5.5.2');
    await client.expect('AUTH LOGIN', 334);
    await client.expect('open@x.test', '501 5.5.2');
    assert.deepEqual(
      lines.map(({ reason = '' }) => reason.slice(0, 30)),
      ['504 5.5.4 Mechanism not suppor', '501 5.5.2 Error: invalid userd', '501 5.5.2 Not base64'],
    );
    assert.deepEqual({ ...lines[0], reason: '' }, { event: 'auth_failed', client: '127.0.0.1', reason: '' });
  }),
);

test(
  'where a password is needed an account without one is refused, and the log says so',
  leakless(async (_t, defer) => {
    const lines: string[] = [];
    const log = { ...silentLog, warn: (fields: { reason?: string }) => lines.push(fields.reason ?? '') };
    const s = await stage(defer, {
      accounts: [withPassword, account('open@x.test')],
      deps: { log },
      settings: { authRequired: true },
    });
    const client = await s.greeted();
    await client.expect(`AUTH PLAIN ${plain('open@x.test', 'x')}`, '535 5.7.8');
    await client.expect(`AUTH PLAIN ${plain('a@x.test', 'right')}`, 235);
    assert.equal(lines.at(-1), 'account has no password and this listener needs one');
  }),
);

test(
  'a listener may serve some accounts only',
  leakless(async (_t, defer) => {
    const s = await stage(defer, {
      accounts: [account('a@x.test', { id: 'one' }), account('b@x.test'), account('c@x.test')],
      settings: { accounts: ['ONE', 'b@x.test'] },
    });
    const client = await s.greeted();
    for (const [sender, code] of [
      ['a@x.test', 250],
      ['b@x.test', 250],
      ['c@x.test', '550 5.7.1'],
    ] as const) {
      await client.expect(`MAIL FROM:<${sender}>`, code);
      await client.expect('RSET', 250);
    }
    await client.expect(`AUTH PLAIN ${plain('c@x.test', 'x')}`, 535);
    await client.expect(`AUTH PLAIN ${plain('one', 'x')}`, 235);
  }),
);

test(
  'after AUTH only the senders of that account',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { accounts: [withPassword, account('open@x.test')] });
    const client = await s.greeted();
    await client.expect(`AUTH PLAIN ${plain('a@x.test', 'right')}`, 235);
    for (const [sender, code] of [
      ['open@x.test', '550 5.7.1'],
      ['stranger@z.test', '550 5.7.1'],
      ['alias@x.test', '250'],
      ['Any.One@TEAM.test', '250'],
      ['x@sub.team.test', '550 5.7.1'],
      ['', '250'],
    ]) {
      await client.expect(`MAIL FROM:<${sender}>`, code ?? '');
      await client.expect('RSET', 250);
    }
  }),
);

test(
  'a session that logged in with a password of old ends at its next MAIL, whose message waits',
  leakless(async (_t, defer) => {
    for (const changed of [
      account('a@x.test', { clientPassword: { hash: 'another' } }),
      account('a@x.test'),
    ]) {
      let directory = createAccountDirectory([withPassword]);
      const s = await stage(defer, { deps: { directory: () => directory } });
      const client = await s.greeted();
      await client.expect(`AUTH PLAIN ${plain('a@x.test', 'right')}`, 235);
      await client.expect('MAIL FROM:<a@x.test>', 250);
      await client.expect('RSET', 250);
      directory = createAccountDirectory([changed]);
      await client.expect('MAIL FROM:<a@x.test>', '421 4.7.0');
      assert.equal(await client.closed(), 'end');
    }
  }),
);

test(
  'where AUTH is required nobody sends or dawdles without it',
  leakless(async (_t, defer) => {
    const s = await stage(defer, {
      accounts: [withPassword, account('open@x.test')],
      settings: { authRequired: true, limits: { maxUnauthenticatedCommands: 4 } },
    });
    const client = await s.greeted();
    await client.expect('MAIL FROM:<open@x.test>', '530 5.7.0');
    await client.expect('NOOP', 250);
    await client.expect('NOOP', 250);
    await client.expect(`AUTH PLAIN ${plain('a@x.test', 'wrong')}`, 535);
    await client.expect('NOOP', '421 4.7.0');
    await client.closed();
    assert.equal(s.listener.counts().limitHits.unauthenticated_commands, 1);
    const other = await s.greeted();
    await other.expect(`AUTH PLAIN ${plain('a@x.test', 'right')}`, 235);
    for (let i = 0; i < 8; i++) await other.expect('NOOP', 250);
    await other.expect('MAIL FROM:<a@x.test>', 250);
  }),
);

test(
  'From: must be a sender of the account where that is asked for',
  leakless(async (_t, defer) => {
    const s = await stage(defer, {
      accounts: [withPassword],
      settings: { checkFromHeader: true, bareLineEnds: 'pass' },
    });
    const client = await s.greeted();
    await client.expect(`AUTH PLAIN ${plain('a@x.test', 'right')}`, 235);
    const bodies: readonly [body: string, code: string][] = [
      ['From: <a@x.test>\r\n\r\ntext', '250'],
      ['Subject: s\r\nFrom: X <x@team.test>, alias@x.test\r\n\r\ntext', '250'],
      ['From: boss@z.test\r\n\r\ntext', '550 5.7.1'],
      ['From: a@x.test, boss@z.test\r\n\r\ntext', '550 5.7.1'],
      ['From: a@x.test\r\nFrom: boss@z.test\r\n\r\ntext', '550 5.7.1'],
      ['Subject: s\r\n\r\nFrom: a@x.test\r\n', '550 5.7.1'],
      ['\r\nFrom: a@x.test\r\n', '550 5.7.1'],
      ['', '550 5.7.1'],
      // A header that ends at a bare LF for some readers and goes on for others.
      ['X: y\n\nFrom: boss@z.test\r\nFrom: a@x.test\r\n\r\ntext', '554 5.6.0'],
      ['From: a@x.test\r\nX: y\n\nz\r\n\r\ntext', '554 5.6.0'],
    ];
    for (const [body, code] of bodies) {
      await client.expect('MAIL FROM:<a@x.test>', 250);
      await client.expect('RCPT TO:<b@y.test>', 250);
      await client.expect('DATA', 354);
      assert.match((await client.body(body)).text, new RegExp(`^${code}`), JSON.stringify(body));
    }
    assert.equal(s.relay.taken().length, 2);
  }),
);

test(
  'an account may ask for that check itself, wherever its mail comes from',
  leakless(async (_t, defer) => {
    const strict = account('a@x.test', { checkFromHeader: true });
    const accounts = [strict, account('b@x.test')];
    const s = await stage(defer, { accounts, settings: { bareLineEnds: 'pass' } });
    const client = await s.greeted();
    for (const [sender, body, code] of [
      ['a@x.test', 'From: a@x.test\r\n\r\n', 250],
      ['a@x.test', 'From: boss@z.test\r\n\r\n', 550],
      ['a@x.test', 'From: a@x.test\r\nX: y\n\nz\r\n\r\n', 554],
      ['b@x.test', 'From: boss@z.test\r\n\r\n', 250],
      ['b@x.test', 'From: boss@z.test\r\nX: y\n\nz\r\n\r\n', 250],
    ] as const) {
      await client.expect(`MAIL FROM:<${sender}>`, 250);
      await client.expect('RCPT TO:<c@y.test>', 250);
      await client.expect('DATA', 354);
      assert.equal((await client.body(body)).code, code, JSON.stringify([sender, body]));
    }
  }),
);

test(
  'the header is judged the same when it comes octet by octet',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { accounts: [account('a@x.test')], settings: { checkFromHeader: true } });
    for (const [from, code] of [
      ['a@x.test', 250],
      ['b@x.test', 550],
    ]) {
      const client = await s.inBody();
      const before = s.relay.seen.length;
      for (const octet of `From: ${from}\r\n\r\ntext\r\n.\r\n`) await client.raw(octet);
      await client.expect(undefined, code ?? 0);
      assert.equal(s.relay.seen.length, before);
    }
  }),
);

test(
  'a header too long to be judged whole is refused where From: is checked, and passes elsewhere',
  leakless(async (_t, defer) => {
    const long = `From: a@x.test\r\n${'X-Filler: 0123456789\r\n'.repeat(13_000)}From: b@x.test\r\n\r\ntext\r\n.`;
    for (const [checkFromHeader, expected] of [
      [true, '552 5.3.4'],
      [false, '250'],
    ] as const) {
      const s = await stage(defer, { accounts: [account('a@x.test')], settings: { checkFromHeader } });
      const client = await s.inBody();
      await client.expect(long, expected);
    }
  }),
);

test(
  'a Received line where asked for, and a message that has gone round is refused',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { received: true } });
    const client = await s.inBody();
    const old = 'Received: from x by y; now\r\n';
    await client.expect(`Subject: t\r\n\r\n${old.repeat(40)}\r\n.`, '250');
    const text = bodyOf(s.relay.seen[0]);
    assert.match(
      text,
      /^Received: from client\.test \(\[127\.0\.0\.1\]\)\r\n\tby relay\.test with ESMTP id T1;\r\n\t[^\r\n]+\r\nSubject: t\r\n\r\nReceived/,
    );
    for (const [count, code] of [
      [30, '250'],
      [31, '554 5.4.6'],
    ] as const) {
      await client.expect('MAIL FROM:<a@x.test>', 250);
      await client.expect('RCPT TO:<b@y.test>', 250);
      await client.expect('DATA', 354);
      assert.ok((await client.body(`${old.repeat(count)}\r\ntext`)).text.startsWith(code));
    }
    assert.equal(s.relay.taken().length, 2);
    assert.equal(s.relay.seen.at(-1)?.aborted, 'body');
  }),
);
