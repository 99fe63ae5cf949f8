/** Mail by Graph from MAIL to the final reply, and the fallback from SMTP to it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatReply } from '../../../src/protocol/reply.ts';
import { leakless } from '../../support/leak-check.ts';
import { ANN, mailOf, type Room, startRoom } from '../../support/relay-room.ts';
import { waitFor } from '../../support/wait-for.ts';

const BOB = 'bob@example.net';
const EVE = 'eve@example.net';
const graphAccount = { transport: 'graph' };
const mail = (to: string, id: string, more = ''): string =>
  `Message-ID: <${id}@c>\r\nFrom: ${ANN}\r\nTo: ${to}\r\nSubject: s\r\n${more}\r\nbody\r\n`;

async function said(room: Room, message: Parameters<Room['send']>[0]): Promise<string> {
  const heard = await room.send(message);
  const last = heard.final ?? heard.data ?? (heard.mail.code >= 400 ? heard.mail : heard.rcpts.at(-1));
  return last === undefined ? '' : formatReply(last);
}

test(
  'a message by Graph: no SMTP connection, its own token, one record',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: graphAccount,
    });
    assert.equal(await said(room, { to: [BOB], body: mail(BOB, 'a') }), '250 2.0.0 OK <a@c> [graph]');
    assert.deepEqual(room.provider.graph.delivered[0]?.recipients, [BOB]);
    assert.equal(room.provider.smtp.connections, 0);
    assert.deepEqual(
      room.provider.token.requests.map((r) => r.form.get('scope')),
      ['https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/Mail.Send offline_access'],
    );
    const [record] = room.records;
    assert.equal(record?.way, 'graph');
    assert.equal(record?.outcome, 'relayed');
    assert.equal(record?.flights, 2);
    assert.equal(record?.decidedBy, 'upstream');
    assert.deepEqual(room.ways.status(ANN), {
      way: 'graph',
      counts: { size: 0, idle: 0, busy: 0, max: 0 },
      state: { status: 'ready' },
    });
  }),
);

test(
  'recipients: Bcc for those no header names, 554 for those the transaction lacks',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: graphAccount,
    });
    assert.match(await said(room, { to: [BOB, EVE], body: mail(BOB, 'bcc') }), /^250 /);
    assert.deepEqual([...(room.provider.graph.delivered[0]?.recipients ?? [])].sort(), [BOB, EVE]);
    assert.doesNotMatch(room.provider.graph.delivered[0]?.text ?? '', /eve/);
    assert.match(
      await said(room, { to: [BOB], body: mail(`${BOB}, ${EVE}`, 'foreign') }),
      /^554 5\.6\.0 .*names eve@example\.net.*graph_recipients/,
    );
    assert.match(await said(room, { to: [BOB], body: mail('root', 'root') }), /^554 5\.6\.0/);
    assert.equal(room.provider.graph.delivered.length, 1);
    assert.equal(room.provider.graph.count('create'), 1);
  }),
);

test(
  'recipients rewritten: only the transaction’s are mailed, the originals can be read',
  leakless(async (_t, defer) => {
    const account = { ...graphAccount, graph_recipients: 'rewrite' };
    const room = await startRoom(defer, { provider: { flavour: 'microsoft', graph: {} }, account });
    assert.match(await said(room, { to: [BOB], body: mail(`${BOB}, ${EVE}`, 'rewritten') }), /^250 /);
    assert.deepEqual(room.provider.graph.delivered[0]?.recipients, [BOB]);
    assert.match(
      room.provider.graph.delivered[0]?.text ?? '',
      /X-Original-To: bob@example\.net, eve@example\.net/,
    );
  }),
);

test(
  'senders: the null sender, and a From: that is somebody else’s',
  leakless(async (_t, defer) => {
    const account = { ...graphAccount, senders: ['alias@example.com'] };
    const room = await startRoom(defer, { provider: { flavour: 'microsoft', graph: {} }, account });
    const from = (address: string): string => mail(BOB, `from-${address}`).replace(ANN, address);
    assert.match(
      await said(room, { to: [BOB], body: from('eve@example.com') }),
      /^550 5\.7\.1 From: eve@example\.com/,
    );
    assert.match(
      await said(room, { to: [BOB], body: mail(BOB, 'x').replace(/From:.*\r\n/, '') }),
      /^550 5\.7\.1/,
    );
    const long = mail(BOB, 'long').replace('Subject:', `${'X: y\r\n'.repeat(50_000)}Subject:`);
    assert.match(await said(room, { to: [BOB], body: long }), /^552 5\.3\.4 Header section exceeds/);
    assert.match(await said(room, { to: [BOB], body: from('alias@example.com') }), /^250 /);
    const [account0] = [room.ways.of(ANN, [], ANN)?.account];
    assert.ok(account0);
    const opened = await room.relay.mail({
      account: account0,
      sender: '',
      parameters: [],
      session: { id: 's', remoteAddress: '127.0.0.1' },
    });
    assert.match(formatReply(opened.reply), /^550 5\.7\.1/);
    assert.equal(room.provider.graph.delivered.length, 1);
  }),
);

test(
  'a recipient without a domain hears so by itself; the others are mailed',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: graphAccount,
    });
    const heard = await room.send({ to: ['Postmaster', BOB], body: mail(BOB, 'bare') });
    assert.match(heard.rcpts.map(formatReply).join('\n'), /^550 5\.1\.3 .*postmaster@example\.org\n250 /);
    assert.equal(heard.final?.code, 250);
    assert.deepEqual(room.provider.graph.delivered[0]?.recipients, [BOB]);
  }),
);

test(
  'size: 552 at MAIL by SIZE, at the end without; DSN and SMTPUTF8 are refused, not dropped',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: graphAccount,
    });
    assert.match(await said(room, { mailParameters: ['SIZE=3000001'] }), /^552 5\.3\.4/);
    const body = Buffer.concat([Buffer.from(mail(BOB, 'large')), mailOf(3_000_001)]);
    assert.match(
      await said(room, { to: [BOB], body: [body.subarray(0, 1_000_000), body.subarray(1_000_000)] }),
      /^552 5\.3\.4/,
    );
    assert.match(await said(room, { mailParameters: ['RET=HDRS'] }), /^555 /);
    assert.match(await said(room, { mailParameters: ['SMTPUTF8'] }), /^550 5\.6\.7/);
    const most = `${mail(BOB, 'most')}${'x'.repeat(76)}\r\n`;
    const filled = Buffer.from(
      most + `${'x'.repeat(76)}\r\n`.repeat(Math.floor((2_999_900 - most.length) / 78)),
    );
    assert.match(
      await said(room, { to: [BOB], mailParameters: [`SIZE=${filled.length}`], body: filled }),
      /^250 /,
    );
  }),
);

test(
  'trouble of the account becomes a state with a cure; a permission granted ends it',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: graphAccount,
    });
    room.provider.graph.refuseMailbox(ANN, 404, 'MailboxNotEnabledForRESTAPI');
    assert.match(await said(room, { to: [BOB], body: mail(BOB, 'no') }), /^451 4\.7\.0/);
    assert.deepEqual(
      [room.ways.status(ANN)?.state.status, room.ways.status(ANN)?.state.cause],
      ['misconfigured', 'graph-no-licence'],
    );
    const asked = room.provider.graph.requests.length;
    assert.match(await said(room, { to: [BOB], body: mail(BOB, 'no') }), /^451 4\.7\.0/);
    assert.equal(room.provider.graph.requests.length, asked, 'while it stands nothing is asked');
    room.provider.graph.refuseMailbox(ANN, 0, '');
    await room.ways.retryNow([ANN]);
    assert.match(await said(room, { to: [BOB], body: mail(BOB, 'yes') }), /^250 /);
    assert.equal(room.ways.status(ANN)?.state.status, 'ready');
  }),
);

const OFF = [
  '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled [x]',
  '535 5.7.139 Authentication unsuccessful, user is locked by your organization’s security defaults policy. Contact your administrator. [x]',
  '535 5.7.139 Authentication unsuccessful, the mailbox has no license for SMTP. [x]',
];
for (const refusal of OFF)
  test(
    `fallback: ${refusal.slice(44, 90)}`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, {
        provider: { flavour: 'microsoft', graph: {} },
        account: { transport: 'smtp_then_graph' },
        warm: false,
      });
      const off = room.provider.smtp.script('AUTH', { times: Number.POSITIVE_INFINITY }, { reply: refusal });
      assert.match(await said(room, { to: [BOB], body: mail(BOB, 'f') }), /^250 2\.0\.0 OK <f@c> \[graph\]/);
      assert.equal(room.provider.messages.length, 0);
      const status = room.ways.status(ANN);
      assert.equal(status?.way, 'graph');
      assert.equal(status?.state.status, 'ready');
      assert.match(status?.state.reason ?? '', /SMTP AUTH is switched off/);
      assert.ok(status?.state.until, 'when SMTP is tried again');
      assert.ok(room.changes.includes(`${ANN}:by graph`));
      const logins = room.provider.smtp.connections;
      assert.match(await said(room, { to: [BOB], body: mail(BOB, 'g') }), /\[graph\]/);
      assert.equal(room.provider.smtp.connections, logins, 'SMTP is not tried for every message');
      assert.match(
        await said(room, { mailParameters: ['SIZE=4000000'] }),
        /^451 4\.7\.0/,
        'too large for Graph waits',
      );
      off.remove();
      await room.ways.retryNow([ANN]);
      assert.match(await said(room, { to: [BOB], body: mail(BOB, 'h') }), /^250 .*Hostname/);
      assert.equal(room.ways.status(ANN)?.way, 'smtp');
      assert.ok(room.changes.includes(`${ANN}:by smtp`));
    }),
  );

/** A transaction that began with a live connection, which is gone before anything is sent; logins are refused from now on. */
async function openedThenOff(room: Room, parameters: readonly string[] = []) {
  const opened = await room.mail(ANN, parameters);
  assert.ok(opened.transaction);
  room.provider.smtp.script('AUTH', { times: Number.POSITIVE_INFINITY }, { reply: OFF[0] ?? '' });
  assert.ok(room.provider.smtp.disturb('eof') > 0);
  await waitFor(() => room.ways.live(ANN) === 0, { what: 'no live connection' });
  return opened.transaction;
}
const to = (address: string, parameters: readonly string[] = []) => [{ address, parameters }];

test(
  'switched off after MAIL: this very message goes by Graph, not the next retry',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: { transport: 'smtp_then_graph' },
    });
    const transaction = await openedThenOff(room);
    await transaction.rcpt(to(BOB));
    const writer = transaction.body();
    await writer.write(Buffer.from(mail(BOB, 'now')));
    assert.equal(formatReply(await writer.end()), '250 2.0.0 OK <now@c> [graph]');
    assert.equal(room.provider.submissions.length, 0);
    assert.deepEqual(
      room.provider.graph.delivered.map((d) => d.recipients),
      [[BOB]],
    );
    assert.deepEqual([room.records[0]?.way, room.records[0]?.outcome], ['graph', 'relayed']);
    assert.equal(room.ways.status(ANN)?.way, 'graph');
  }),
);

test(
  'switched off at the second recipient: both are promised and mailed by Graph',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: { transport: 'smtp_then_graph' },
    });
    const transaction = await openedThenOff(room);
    const replies = [...(await transaction.rcpt(to(BOB))), ...(await transaction.rcpt(to(EVE)))];
    assert.deepEqual(
      replies.map((r) => r.code),
      [250, 250],
    );
    const writer = transaction.body();
    await writer.write(Buffer.from(mail(BOB, 'two')));
    assert.match(formatReply(await writer.end()), /^250 .*\[graph\]/);
    assert.deepEqual([...(room.provider.graph.delivered[0]?.recipients ?? [])].sort(), [BOB, EVE]);
    assert.equal(room.provider.submissions.length, 0);
  }),
);

for (const [what, parameters, recipients] of [
  ['a report of its own', ['RET=HDRS'], to(BOB, ['NOTIFY=FAILURE'])],
  ['a recipient without a domain', [], to('Postmaster')],
] as const)
  test(
    `switched off after MAIL: ${what}, which Graph would refuse for good, waits for SMTP`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, {
        provider: { flavour: 'microsoft', graph: {} },
        account: { transport: 'smtp_then_graph' },
      });
      const unfit = await openedThenOff(room, parameters);
      await unfit.rcpt(recipients);
      const writer = unfit.body();
      await writer.write(Buffer.from(mail(BOB, 'unfit')));
      assert.match(formatReply(await writer.end()), /^451 4\.7\.0/);
      assert.equal(room.provider.graph.requests.length, 0);
    }),
  );

test(
  'while SMTP is switched off: what Graph must not be asked for waits for SMTP, and is not bounced',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: { transport: 'smtp_then_graph' },
      warm: false,
    });
    const off = room.provider.smtp.script(
      'AUTH',
      { times: Number.POSITIVE_INFINITY },
      { reply: OFF[0] ?? '' },
    );
    assert.match(await said(room, { to: [BOB], body: mail(BOB, 'first') }), /\[graph\]/);
    const others = mail(`${BOB}, ${EVE}`, 'others');
    const foreign = mail(BOB, 'foreign').replace(/^From: .*$/m, 'From: root@host.test');
    const rows: readonly (readonly [Parameters<Room['send']>[0], RegExp])[] = [
      [{ mailParameters: ['RET=HDRS'] }, /RET; it waits: .*5\.7\.139/],
      [{ mailParameters: ['SMTPUTF8'] }, /SMTPUTF8; it waits: /],
      [{ mailParameters: ['SIZE=4000000'] }, /larger than .*; it waits: /],
      [{ to: [BOB], body: others }, /names eve@\S+, who is not in this transaction.*; it waits: /],
      [{ to: [BOB], body: foreign }, /From: root@host\.test is not a sender.*; it waits: /],
    ];
    for (const [message, words] of rows) {
      const heard = await said(room, message);
      assert.match(heard, /^451 4\.7\.0/);
      assert.match(heard, words);
    }
    const opened = await room.mail(ANN);
    const [recipient] = (await opened.transaction?.rcpt(to(BOB, ['NOTIFY=NEVER']))) ?? [];
    const [bare] = (await opened.transaction?.rcpt(to('Postmaster'))) ?? [];
    assert.deepEqual([recipient?.code, bare?.code], [451, 451]);
    opened.transaction?.abort();
    assert.equal(room.provider.graph.delivered.length, 1);
    off.remove();
    await room.ways.retryNow([ANN]);
    for (const body of [others, foreign])
      assert.match(await said(room, { to: [BOB], body }), /^250 .*Hostname/);
  }),
);

test(
  'no fallback for anything else: a refused token, a server that is away',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, {
      provider: { flavour: 'microsoft', graph: {} },
      account: { transport: 'smtp_then_graph' },
      warm: false,
    });
    room.provider.smtp.script(
      'AUTH',
      { times: Number.POSITIVE_INFINITY },
      { reply: '535 5.7.3 Authentication unsuccessful [x]' },
    );
    assert.match(await said(room, { to: [BOB], body: mail(BOB, 'n') }), /^451 4\.7\.0/);
    assert.equal(room.provider.graph.requests.length, 0);
  }),
);
