/** Who may send as whom: the table of docs/senders.md, row by row, and several accounts for one sender. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { choicesFor } from '../../src/listener/sender-choice.ts';
import { formatReply } from '../../src/protocol/reply.ts';
import { leakless } from '../support/leak-check.ts';
import { account, bodyOf, stage } from './stage.ts';

const secret = { clientPassword: { hash: 'scrypt$…' } };
const accounts = [
  account('alice@x.test'),
  account('safe@x.test', { ...secret, senders: ['safe@x.test', '*@shop.test'] }),
  account('rest@x.test', {
    senders: ['rest@x.test', '*', '<>'],
    deny: ['*@spam.test'],
    rewriteSender: true,
  }),
];
const directory = createAccountDirectory(accounts);
/** An entry of the file could not be read, and nobody knows whose it is. */
const doubtful = createAccountDirectory(accounts, {
  problems: new Map(),
  isComplete: false,
  hidesSenders: true,
});
const open = { auth: undefined, isTrusted: true };
const options = { authRequired: false };

const rows: readonly [sender: string, facts: object, options: object, expected: string | RegExp][] = [
  ['alice@x.test', {}, {}, 'alice@x.test as alice@x.test, rest@x.test as rest@x.test'],
  ['root@host', {}, {}, 'rest@x.test as rest@x.test'],
  ['', {}, {}, 'rest@x.test as '],
  // A mailbox with a password is not opened by another account's `*`.
  ['safe@x.test', {}, {}, /^530/],
  ['a@shop.test', {}, {}, /^530/],
  ['x@spam.test', {}, {}, /^550 .* refused by "deny" of account rest@x\.test/],
  ['alice@x.test', { isTrusted: false }, {}, /^530/],
  ['alice@x.test', {}, { authRequired: true }, /^530/],
  ['alice@x.test', {}, { accounts: ['rest@x.test'] }, 'rest@x.test as rest@x.test'],
  ['alice@x.test', {}, { accounts: ['safe@x.test'] }, /^550 .*"accounts"/],
  // Also where the listener does not serve that mailbox.
  ['safe@x.test', {}, { accounts: ['rest@x.test'] }, /^550 .*safe@x\.test .*"accounts"/],
  ['a@shop.test', {}, { accounts: ['rest@x.test'] }, /^550 .*safe@x\.test .*"accounts"/],
  ['a@shop.test', { auth: { account: accounts[1] } }, {}, 'safe@x.test as a@shop.test'],
  ['', { auth: { account: accounts[1] } }, {}, 'safe@x.test as '],
  ['root@host', { auth: { account: accounts[2] } }, {}, 'rest@x.test as rest@x.test'],
  ['alice@x.test', { auth: { account: accounts[1] } }, {}, /^550 .*"\*@x\.test" to its "senders"/],
  // A login that needs no password opens no mailbox that has one.
  ['safe@x.test', { auth: { account: accounts[2] } }, {}, /^530/],
  ['a@shop.test', { auth: { account: accounts[2] } }, {}, /^530/],
  // Needless quotes make no other mailbox of it (RFC 5321 §4.1.2).
  ['"safe"@x.test', {}, {}, /^530/],
  ['"s\\afe"@x.test', {}, {}, /^530/],
  ['"x"@spam.test', {}, {}, /^550 .* refused by "deny"/],
  // What looks like a denied name to a person, or is one to some server: full-width, Cyrillic, IDNA's own mapping.
  ['x@\uff53pam.test', {}, {}, /^550 No account/],
  ['x@spam\u3002test', {}, {}, /^550 No account/],
  ['x@\u0455pam.test', {}, {}, /^550 .* refused by "deny".*"senders"/],
  ['x@xn--pam-lmd.test', {}, {}, /^550 .* refused by "deny"/],
  ['\uff52oot@host', {}, {}, /^550 .* refused by "deny".*"senders"/],
  ['r\u043eot@host', {}, {}, /^550 .* refused by "deny".*"senders"/],
];

for (const [sender, facts, more, expected] of rows) {
  test(`<${sender}> ${JSON.stringify({ ...facts, ...more }).slice(0, 60)}`, () => {
    const result = choicesFor(sender, { ...open, ...facts }, { ...options, ...more }, directory);
    const heard =
      'code' in result
        ? `${result.code} ${result.text}`
        : result.map((c) => `${c.account.id} as ${c.sender}`).join(', ');
    if (typeof expected === 'string') assert.equal(heard, expected);
    else assert.match(heard, expected);
  });
}

test(
  'a sender nobody has hears which setting would help',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const client = await s.greeted();
    await client.expect(
      'MAIL FROM:<root@host.local>',
      '550 5.7.1 No account for sender <root@host.local>: add it or "*@host.local" to "senders" of one, or "*" with "rewrite_sender"',
    );
    await client.expect('MAIL FROM:<>', '550 5.7.1 The null sender names no account');
  }),
);

test(
  'an accounts file without any account bounces nothing',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { accounts: [] });
    const client = await s.greeted();
    for (const sender of ['root@host.local', ''])
      await client.expect(`MAIL FROM:<${sender}>`, '451 4.3.5 The accounts file has no account: add one');
    const login = Buffer.from('\0root\0secret').toString('base64');
    await client.expect(`AUTH PLAIN ${login}`, '454 4.7.0');
  }),
);

test(
  'a foreign sender is replaced where the account says so, and only there',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { accounts: accounts.filter((a) => a.clientPassword === undefined) });
    const client = await s.greeted();
    for (const sender of ['root@host', 'rest@x.test', 'alice@x.test', '']) {
      await client.expect(`MAIL FROM:<${sender}>`, 250);
      await client.expect('RSET', 250);
    }
    assert.deepEqual(
      s.relay.seen.map(({ command }) => command.sender),
      ['rest@x.test', 'rest@x.test', 'alice@x.test', ''],
    );
  }),
);

test(
  'From: is replaced in the stream, whatever the pieces, and the body stays byte for byte',
  leakless(async (_t, defer) => {
    const rest = account('rest@x.test', {
      senders: ['rest@x.test', '*'],
      rewriteFrom: 'foreign',
      rewriteSender: true,
    });
    const s = await stage(defer, { accounts: [rest] });
    const head = 'Subject: a\r\nFrom: root <root@host>\r\nX: y\r\n';
    const changed =
      'Subject: a\r\nFrom: "root (root@host)" <rest@x.test>\r\nReply-To: root <root@host>\r\nX: y\r\n';
    const body = `\r\n${'From: root@host\xff\x00 text\r\n'.repeat(20_000)}`;
    for (const cuts of [[], [3, 10, 30, 31, head.length - 1, head.length, head.length + 1]]) {
      const client = await s.greeted();
      await client.expect('MAIL FROM:<root@host>', 250);
      await client.expect('RCPT TO:<b@y.test>', 250);
      await client.expect('DATA', 354);
      const wire = `${head}${body}.\r\n`;
      let from = 0;
      for (const cut of [...cuts, wire.length]) {
        await client.raw(Buffer.from(wire.slice(from, cut), 'latin1'));
        from = cut;
      }
      await client.expect(undefined, 250);
      const seen = s.relay.seen.at(-1);
      assert.equal(bodyOf(seen), changed + body);
      assert.equal(seen?.sizeChanged, true);
      assert.equal(seen?.command.sender, 'rest@x.test');
    }
    // An own From: passes untouched, and so does a message without a body.
    for (const content of [
      `From: rest@x.test\r\n${body}`,
      'From: rest@x.test\r\n',
      '\r\nFrom: root@host\r\n',
      '',
    ]) {
      const client = await s.greeted();
      await client.expect('MAIL FROM:<root@host>', 250);
      await client.expect('RCPT TO:<b@y.test>', 250);
      await client.expect('DATA', 354);
      await client.raw(Buffer.from(`${content}.\r\n`, 'latin1'));
      await client.expect(undefined, 250);
      assert.equal(bodyOf(s.relay.seen.at(-1)), content);
    }
  }),
);

test(
  'a header too long to change is refused, and nothing of it left',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { accounts: [account('a@x.test', { rewriteFrom: 'always' })] });
    const client = await s.inBody();
    await client.raw(`From: root@host\r\n${'X: y\r\n'.repeat(60_000)}\r\n.\r\n`);
    await client.expect(undefined, '552 5.3.4');
    assert.equal(bodyOf(s.relay.seen[0]), '');
  }),
);

test(
  'a device that sends neither Date nor Message-ID gets them where that is asked for',
  leakless(async (_t, defer) => {
    for (const [settings, more] of [
      [{ completeHeader: true }, {}],
      [{}, { completeHeader: true }],
    ]) {
      const s = await stage(defer, { settings: settings ?? {}, accounts: [account('a@x.test', more)] });
      const client = await s.inBody();
      await client.body('Subject: scan\r\n\r\npage\r\n');
      assert.match(
        bodyOf(s.relay.seen[0]),
        /^Date: \w{3}, \d{2} \w{3} \d{4} [\d:]{8} \+0000\r\nMessage-ID: <T1\.\w+@x\.test>\r\nSubject: scan\r\n\r\npage\r\n$/,
      );
    }
    const off = await stage(defer);
    await (await off.inBody()).body('Subject: scan\r\n\r\npage\r\n');
    assert.equal(bodyOf(off.relay.seen[0]), 'Subject: scan\r\n\r\npage\r\n');
  }),
);

test('who has logged in to an account whose entry has a mistake since hears 4xx, not that a login is needed', () => {
  const [first] = accounts;
  if (first === undefined) assert.fail('no account');
  const entry = { ...first, clientPassword: { hash: 'of nobody' } };
  const directory = createAccountDirectory([entry], {
    problems: new Map([[first.id, 'unknown key']]),
    isComplete: true,
    hidesSenders: false,
  });
  const result = choicesFor(first.email, { ...open, auth: { account: first } }, options, directory);
  assert.match('code' in result ? formatReply(result) : 'taken', /^451 4\.3\.5 /);
});

test('while an entry cannot be read, no pattern takes what may be its sender; addresses and logins go on', () => {
  const rows: readonly [string, object, string | RegExp][] = [
    ['boss@x.test', {}, /^451 4\.3\.5 <boss@x\.test> may be a sender of an account whose entry/],
    ['a@shop.test', {}, /^530|^451/],
    ['alice@x.test', {}, 'alice@x.test'],
    ['', {}, 'rest@x.test'],
    ['boss@x.test', { auth: { account: accounts[2] } }, 'rest@x.test'],
  ];
  for (const [sender, facts, expected] of rows) {
    const result = choicesFor(sender, { ...open, ...facts }, options, doubtful);
    if (typeof expected !== 'string')
      assert.match('code' in result ? formatReply(result) : 'taken', expected);
    else assert.equal('code' in result ? formatReply(result) : result[0]?.account.id, expected);
  }
});
