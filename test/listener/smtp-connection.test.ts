import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reply } from '../../src/protocol/reply.ts';
import { leakless } from '../support/leak-check.ts';
import { waitFor } from '../support/wait-for.ts';
import { account, bodyOf, stage } from './stage.ts';

test(
  'greets, lists its extensions and relays a message octet for octet',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const client = await s.connect();
    assert.equal((await client.reply()).text, '220 relay.test ESMTP xoauth2-relay');
    const { lines } = await client.send('EHLO client.test');
    assert.deepEqual(lines, [
      '250-relay.test',
      '250-PIPELINING',
      '250-SIZE 35000000',
      '250-8BITMIME',
      '250-SMTPUTF8',
      '250-ENHANCEDSTATUSCODES',
      '250 AUTH PLAIN LOGIN',
    ]);
    assert.equal(
      (await client.send('MAIL FROM:<a@x.test> SIZE=20 BODY=8BITMIME')).text,
      '250 2.1.0 Sender OK',
    );
    assert.equal((await client.send('RCPT TO:<b@y.test> NOTIFY=NEVER ORCPT=rfc822;B+2Bx@y.test')).code, 250);
    assert.equal((await client.send('DATA')).code, 354);
    assert.equal((await client.body('Subject: t\r\n\r\n.dot\r\n\x80\xff')).text, '250 2.0.0 Taken');
    assert.equal((await client.send('QUIT')).text, '221 2.0.0 Bye');
    await client.closed();
    const [one] = s.relay.taken();
    assert.equal(bodyOf(one), Buffer.from('Subject: t\r\n\r\n.dot\r\n\x80\xff\r\n').toString('latin1'));
    assert.deepEqual(one?.command.parameters, ['SIZE=20', 'BODY=8BITMIME']);
    assert.equal(one?.command.account.id, 'a@x.test');
    assert.deepEqual(one?.recipients, [
      { address: 'b@y.test', parameters: ['NOTIFY=NEVER', 'ORCPT=rfc822;B+2Bx@y.test'] },
    ]);
  }),
);

test(
  'hands on what the relay answers, for exactly that command',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    s.relay.on.mail = () => reply(451, '4.7.0', 'account a needs consent');
    const client = await s.greeted();
    assert.equal((await client.send('MAIL FROM:<a@x.test>')).text, '451 4.7.0 account a needs consent');
    s.relay.on.mail = () => reply(250, '2.1.0', 'OK');
    s.relay.on.rcpt = (to) =>
      to.startsWith('bad') ? reply(550, '5.1.1', 'no such user') : reply(250, '', 'fine');
    await client.expect('MAIL FROM:<a@x.test>', 250);
    assert.equal((await client.send('RCPT TO:<bad@y.test>')).text, '550 5.1.1 no such user');
    assert.equal((await client.send('DATA')).text, '554 5.5.1 No valid recipients');
    assert.equal((await client.send('RCPT TO:<good@y.test>')).text, '250 fine');
    await client.expect('DATA', 354);
    s.relay.on.end = () => reply(550, '5.7.1', 'line one line two');
    assert.equal((await client.body('x')).text, '550 5.7.1 line one line two');
    assert.equal(s.relay.taken().length, 0);
    await client.expect('MAIL FROM:<a@x.test>', 250);
    await client.expect('RCPT TO:<good@y.test>', 250);
    s.relay.on.data = () => reply(552, '5.3.4', 'too big for upstream');
    assert.equal((await client.send('DATA')).text, '552 5.3.4 too big for upstream');
    await client.expect('MAIL FROM:<a@x.test>', 250);
  }),
);

test(
  'names no account for a stranger',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const client = await s.greeted();
    await client.expect('MAIL FROM:<nobody@z.test>', '550 5.7.1');
    await client.expect('MAIL FROM:<>', '550 5.7.1');
    await client.expect('MAIL FROM:<A@X.TEST>', 250);
    assert.equal(s.relay.seen[0]?.command.sender, 'A@X.TEST');
  }),
);

test(
  'answers a pipelined transaction in one write',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const client = await s.greeted();
    const chunks: string[] = [];
    client.socket.on('data', (chunk: Buffer) => chunks.push(chunk.toString()));
    await client.raw('MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nRCPT TO:<c@y.test>\r\nDATA\r\n');
    for (const code of [250, 250, 250, 354]) await client.expect(undefined, code);
    assert.equal(chunks.length, 1, JSON.stringify(chunks));
    await client.raw(
      'hello\r\n.\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<d@y.test>\r\nDATA\r\nagain\r\n.\r\nQUIT\r\n',
    );
    for (const code of [250, 250, 250, 354, 250, 221]) await client.expect(undefined, code);
    assert.equal(chunks.length, 2, JSON.stringify(chunks));
    assert.deepEqual(s.relay.taken().map(bodyOf), ['hello\r\n', 'again\r\n']);
  }),
);

test(
  'a chunk full of commands is answered completely and in order, and others get their turn',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const client = await s.greeted();
    const other = await s.greeted();
    await Promise.all([
      client.raw(`${'NOOP\r\nVRFY x\r\n'.repeat(2000)}QUIT\r\n`),
      other.expect('NOOP', 250),
    ]);
    for (let i = 0; i < 2000; i++) {
      await client.expect(undefined, 250);
      await client.expect(undefined, 252);
    }
    await client.expect(undefined, 221);
  }),
);

test(
  'a slow answer holds back only what follows it',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    let release = (): void => {};
    s.relay.on.rcpt = (_to, earlier) =>
      earlier === 0
        ? reply(250, '2.1.5', 'first')
        : new Promise((resolve) => {
            release = () => resolve(reply(550, '5.1.1', 'second'));
          });
    const client = await s.greeted();
    await client.raw('MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nNOOP\r\nRCPT TO:<c@y.test>\r\nRSET\r\n');
    await client.expect(undefined, 250);
    await client.expect(undefined, '250 2.1.5 first');
    await client.expect(undefined, '250 2.0.0');
    release();
    await client.expect(undefined, '550 5.1.1 second');
    await client.expect(undefined, '250 2.0.0');
    assert.equal(s.relay.seen[0]?.aborted, 'transaction');
  }),
);

test(
  'RCPTs that are there together are asked for together, and answered in order whatever each of them is',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const batches: number[] = [];
    s.relay.on.rcpt = (to, earlier) => {
      batches.push(earlier);
      return to.startsWith('bad') ? reply(550, '5.1.1', to) : reply(250, '2.1.5', to);
    };
    const client = await s.greeted();
    await client.raw(
      [
        'MAIL FROM:<a@x.test>',
        'RCPT TO:<bad1@y.test>',
        'rcpt to:<b@y.test>',
        'RCPT FOR:<nobody>',
        'RCPT TO:<broken',
        'RCPT TO:<c@y.test>',
        `RCPT TO:<${'x'.repeat(20_000)}@y.test>`,
        'RCPT TO:<d@y.test>',
        'RCPT TO:<e\u0001@y.test>',
        'DATA',
        '',
      ].join('\r\n'),
    );
    for (const answer of [
      '250 2.1.0',
      '550 5.1.1 bad1@y.test',
      '250 2.1.5 b@y.test',
      '501 5.5.4',
      '501',
      '250 2.1.5 c@y.test',
      '500 5.5.6',
      '250 2.1.5 d@y.test',
      '500 5.5.2',
      '354',
    ])
      await client.expect(undefined, answer);
    assert.deepEqual(
      s.relay.seen[0]?.recipients.map((r) => r.address),
      ['b@y.test', 'c@y.test', 'd@y.test'],
    );
  }),
);

test(
  'a client that hangs up in the middle of a body delivers nothing',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    for (const how of ['end', 'reset'] as const) {
      const client = await s.inBody();
      await client.raw('half of a mess');
      await waitFor(() => bodyOf(s.relay.seen.at(-1)) === 'half of a mess');
      client[how]();
      await waitFor(() => s.relay.seen.at(-1)?.aborted !== undefined, { what: `cut after ${how}` });
    }
    assert.equal(s.relay.taken().length, 0);
    await waitFor(() => s.listener.counts().sessions === 0);
    assert.equal(s.listener.counts().heldBytes, 0);
  }),
);

test(
  'a client that closes its side after the last command still hears the verdict',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    let release = (): void => {};
    s.relay.on.end = () =>
      new Promise((resolve) => {
        release = () => resolve(reply(250, '2.0.0', 'late'));
      });
    const client = await s.inBody();
    await client.raw('text\r\n.\r\nQUIT\r\n');
    client.end();
    await waitFor(() => bodyOf(s.relay.seen[0]) === 'text\r\n');
    release();
    await client.expect(undefined, '250 2.0.0 late');
    await client.expect(undefined, 221);
    await client.closed();
  }),
);

test(
  'commands out of order or malformed are refused with their code',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { limits: { maxBadCommands: 100 } } });
    const client = await s.connect();
    await client.expect(undefined, 220);
    await client.expect('MAIL FROM:<a@x.test>', '503 5.5.1');
    await client.expect('HELO client.test', '250 relay.test');
    const table: readonly [string, string][] = [
      ['RCPT TO:<b@y.test>', '503 5.5.1'],
      ['DATA', '503 5.5.1'],
      ['MAIL', '501 5.5.4'],
      ['MAIL FROM:', '501 5.1.7'],
      ['MAIL FROM:<a@x.test', '501 5.1.7'],
      ['MAIL FROM:<a@x.test>X', '501 5.1.7'],
      ['MAIL FROM:<ax.test>', '501 5.1.7'],
      ['MAIL FROM:<a@x.test> HOLDFOR=3', '555 5.5.4'],
      ['MAIL FROM:<a@x.test> SIZE=x', '501 5.5.4'],
      ['MAIL FROM:<a@x.test> BODY=BINARYMIME', '501 5.5.4'],
      ['MAIL FROM:<a@x.test> SIZE=1 SIZE=1', '501 5.5.4'],
      ['MAIL FROM:<a@x.test> SIZE=99999999', '552 5.3.4'],
      ['MAIL FROM:<ä@x.test>', '553 5.6.7'],
      ['VRFY b', '252 2.1.5'],
      ['VRFY', '501 5.5.4'],
      ['EXPN list', '502 5.5.1'],
      ['ETRN x', '502 5.5.1'],
      ['WIZ', '500 5.5.1'],
      ['SHELL', '500 5.5.1'],
      ['KILL', '500 5.5.1'],
      ['BDAT 3 LAST', '502 5.5.1'],
      ['STARTTLS', '502 5.5.1'],
      ['XCLIENT ADDR=1.2.3.4', '500 5.5.1'],
      ['AUTH XOAUTH2 abc', '504 5.5.4'],
      ['AUTH PLAIN !!!', '501 5.5.2'],
      ['HELP', '214 2.0.0'],
      ['NOOP whatever', '250 2.0.0'],
      ['', '500 5.5.1'],
      ['NO\0OP', '500 5.5.2'],
      ['MAIL FROM:<a@x.test>', '250'],
      ['MAIL FROM:<a@x.test>', '503 5.5.1'],
      ['AUTH PLAIN AGEAYg==', '503 5.5.1'],
      ['DATA', '503 5.5.1'],
      ['RCPT TO:<b@y.test> FOO', '555 5.5.4'],
      ['RCPT TO:<b@y.test> NOTIFY=SOMETIMES', '501 5.5.4'],
      ['RCPT TO:<>', '501 5.1.3'],
      ['RCPT TO:<ö@y.test>', '553 5.6.7'],
      ['RCPT TO:<@gate.test,@other.test:c@y.test>', '250'],
      ['DATA now', '501 5.5.4'],
      ['EHLO client.test', '250'],
      ['DATA', '503 5.5.1'],
    ];
    for (const [line, code] of table) await client.expect(line, code);
    assert.deepEqual(
      s.relay.seen[0]?.recipients.map((r) => r.address),
      ['c@y.test'],
    );
    assert.equal(s.relay.seen[0]?.aborted, 'transaction');
  }),
);

test(
  'a client that is wrong too often is shown the door',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { limits: { maxBadCommands: 3 } } });
    const client = await s.greeted();
    await client.expect('FOO', 500);
    await client.expect('BAR', 500);
    await client.expect('BAZ', '421 4.7.0');
    await client.closed();
    const web = await s.connect();
    await web.expect(undefined, 220);
    await web.expect('POST /mail HTTP/1.1', '421 4.7.0');
    await web.closed();
    assert.equal(s.listener.counts().limitHits.bad_commands, 1);
  }),
);

test(
  'addresses and parameters pass through as the client wrote them',
  leakless(async (_t, defer) => {
    const s = await stage(defer, {
      accounts: [account('a@x.test', { senders: ['a@x.test', '*@xn--mller-kva.test'] })],
    });
    const client = await s.greeted();
    await client.expect('MAIL FROM:<Büro@xn--mller-kva.test> SMTPUTF8 RET=HDRS ENVID=QQ+2Bx AUTH=<>', 250);
    await client.expect('RCPT TO:<"odd one"@xn--mller-kva.test>', 250);
    await client.expect('RCPT TO:<ö@y.test> ORCPT=rfc822;a+40b', 250);
    const [one] = s.relay.seen;
    assert.equal(one?.command.sender, 'Büro@xn--mller-kva.test');
    assert.deepEqual(one?.command.parameters, ['SMTPUTF8', 'RET=HDRS', 'ENVID=QQ+2Bx']);
    assert.deepEqual(
      one?.recipients.map((r) => [r.address, ...r.parameters]),
      [['"odd one"@xn--mller-kva.test'], ['ö@y.test', 'ORCPT=rfc822;a+40b']],
    );
  }),
);

test(
  'speaks LMTP: a reply for every recipient that was accepted',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { lmtp: true } });
    const client = await s.connect();
    await client.expect(undefined, '220 relay.test LMTP');
    await client.expect('EHLO client.test', 500);
    await client.expect('LHLO client.test', 250);
    s.relay.on.rcpt = (to) => (to.startsWith('bad') ? reply(550, '5.1.1', 'no') : reply(250, '', 'ok'));
    await client.expect('MAIL FROM:<a@x.test>', 250);
    await client.expect('RCPT TO:<b@y.test>', 250);
    await client.expect('RCPT TO:<bad@y.test>', 550);
    await client.expect('RCPT TO:<c@y.test>', 250);
    await client.expect('DATA', 354);
    await client.raw('x\r\n.\r\nNOOP\r\n');
    assert.equal((await client.reply()).text, '250 2.0.0 Taken');
    assert.equal((await client.reply()).text, '250 2.0.0 Taken');
    assert.equal((await client.reply()).text, '250 2.0.0 OK');
    // 421 ends the session, so that only the last of them can hear it.
    s.relay.on.end = () => reply(421, '4.4.2', 'unknown');
    for (const line of ['MAIL FROM:<a@x.test>', 'RCPT TO:<b@y.test>', 'RCPT TO:<c@y.test>'])
      await client.expect(line, 250);
    await client.expect('DATA', 354);
    await client.raw('x\r\n.\r\n');
    assert.equal((await client.reply()).text, '451 4.4.2 unknown');
    assert.equal((await client.reply()).text, '421 4.4.2 unknown');
    await client.closed();
  }),
);
