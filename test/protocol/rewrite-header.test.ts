import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { changeHeader, type HeaderChanges } from '../../src/protocol/rewrite-header.ts';

const OWN = 'box@corp.test';
const foreign: HeaderChanges = {
  from: { mode: 'foreign', email: OWN, isOwn: (a) => a.endsWith('@corp.test') },
};
const always: HeaderChanges = { from: { mode: 'always', email: OWN, isOwn: () => true } };

const run = (section: string, changes: HeaderChanges): string | undefined =>
  changeHeader(Buffer.from(section, 'latin1'), changes)?.toString('latin1');

const cases: readonly [from: string, expected: string | undefined][] = [
  ['From: root@host', 'From: "root@host" <box@corp.test>\r\nReply-To: root@host'],
  ['From: <root@host>', 'From: "root@host" <box@corp.test>\r\nReply-To: <root@host>'],
  ['From: Root <root@host>', 'From: "Root (root@host)" <box@corp.test>\r\nReply-To: Root <root@host>'],
  [
    'From: "Doe, \\"J\\" <x>" <j@host>',
    'From: "Doe, \\"J\\" <x> (j@host)" <box@corp.test>\r\nReply-To: "Doe, \\"J\\" <x>" <j@host>',
  ],
  // What cron writes: no address at all, so there is nobody to answer to.
  ['From: root (Cron Daemon)', 'From: "Cron Daemon (root)" <box@corp.test>'],
  [
    'From: =?utf-8?q?J=C3=B6rg?= <j@host>',
    'From: =?utf-8?q?J=C3=B6rg?= "(j@host)" <box@corp.test>\r\nReply-To: =?utf-8?q?J=C3=B6rg?= <j@host>',
  ],
  [
    'From: J\xc3\xb6rg <j@host>',
    'From: "J\xc3\xb6rg (j@host)" <box@corp.test>\r\nReply-To: J\xc3\xb6rg <j@host>',
  ],
  [
    'from: A <a@corp.test>,\r\n\tB <b@host>',
    'From: "A (a@corp.test)" <box@corp.test>\r\nReply-To: A <a@corp.test>,\r\n\tB <b@host>',
  ],
  [
    'From: Box <box@corp.test>, boss@host',
    'From: Box <box@corp.test>\r\nReply-To: Box <box@corp.test>, boss@host',
  ],
  ['From: <box@corp.test> <boss@host>', 'From: <box@corp.test>'],
  ['From: ', 'From: <box@corp.test>'],
  // Another's address in place of a name must not become a second one.
  [
    'From: boss@host <box@corp.test>, a@host',
    'From: "boss@host" <box@corp.test>\r\nReply-To: boss@host <box@corp.test>, a@host',
  ],
  [
    'From: =?utf-8?q?J=C3=B6rg?= boss@host; <j@host>',
    'From: =?utf-8?q?J=C3=B6rg?= "boss@host;" "(j@host)" <box@corp.test>',
  ],
  ['From: =?utf-8?q?J=C3=B6rg?= j@host', 'From: =?utf-8?q?J=C3=B6rg?= "j@host" <box@corp.test>'],
  ['From: A <a@corp.test>', undefined],
  ['From: a@corp.test, b@corp.test', undefined],
  ['Sender: root@host', undefined],
  ['From: a@host\r\nFrom: b@host', undefined],
];

for (const [from, expected] of cases) {
  test(`rewrites ${JSON.stringify(from)} and nothing beside it`, () => {
    const around = (middle: string): string =>
      `Received: by x;\r\n\tone\r\n${middle}\r\nX-Odd:\xff\x80 \r\n \r\nSubject: From: x\r\nno field\r\n`;
    assert.equal(run(around(from), foreign), expected === undefined ? undefined : around(expected));
  });
}

test('a Reply-To that is there stays, an own address is left alone', () => {
  assert.equal(
    run('Reply-To: x@y\r\nFrom: root@host\r\n', foreign),
    'Reply-To: x@y\r\nFrom: "root@host" <box@corp.test>\r\n',
  );
  assert.equal(run(`From: Box <${OWN}>\r\n`, always), undefined);
  assert.equal(
    run('From: A <a@corp.test>\r\n', always),
    'From: "A (a@corp.test)" <box@corp.test>\r\nReply-To: A <a@corp.test>\r\n',
  );
});

test('long names are folded', () => {
  const out = run(`From: ${'long name '.repeat(20)}<root@host>\r\n`, foreign) ?? '';
  const from = out.slice(0, out.indexOf('Reply-To'));
  for (const line of from.split('\r\n')) assert.ok(line.length <= 78, line);
  assert.match(from.replace(/\r\n /g, ' '), /^From: "(?:long name ){20}\(root@host\)" <box@corp\.test>\r\n$/);
});

test('Date and Message-ID are added where they are missing', () => {
  const missing = { date: 'Sat, 21 Nov 2026 01:02:03 +0000', messageId: '<1@corp.test>' };
  assert.equal(
    run('Subject: scan\r\n', { missing }),
    `Date: ${missing.date}\r\nMessage-ID: <1@corp.test>\r\nSubject: scan\r\n`,
  );
  assert.equal(run('DATE: x\r\nA: b\r\n', { missing }), 'Message-ID: <1@corp.test>\r\nDATE: x\r\nA: b\r\n');
  assert.equal(run('', { missing }), `Date: ${missing.date}\r\nMessage-ID: <1@corp.test>\r\n`);
  assert.equal(run('Date: x\r\nMessage-Id: y\r\n', { missing }), undefined);
  // It would become part of what is put before it.
  assert.equal(run(' x\r\nA: b\r\n', { missing }), undefined);
});

test('whatever stands in From:, other octets stay and the result has one From: with the own address', () => {
  const word = fc.constantFrom(
    'a',
    ' ',
    '"',
    '\\',
    '(',
    ')',
    '<',
    '>',
    '@',
    ',',
    ';',
    ':',
    '\xe4',
    '=?',
    '?=',
    '\r\n ',
    'host',
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 20 }), (words) => {
      const value = words.join('').replace(/\r\n (?=\r\n )/g, '');
      const out = run(`A: 1\r\nFrom: ${value}\r\nB: 2\r\n`, foreign);
      if (out === undefined) return;
      assert.ok(out.startsWith('A: 1\r\nFrom: ') && out.endsWith('B: 2\r\n'), out);
      assert.match(
        out,
        /^A: 1\r\nFrom:(?:\s+(?:[^\s"(),:;<>@[\\\].]+|"(?:[^"\\]|\\.)*"))*\s+<box@corp\.test>\r\n(?:Reply-To|B:)/,
      );
      assert.doesNotMatch(out, /\r(?!\n)|(?<!\r)\n/);
      assert.equal(out.match(/^From:/gm)?.length, 1);
    }),
    { seed: 5322, numRuns: 3000 },
  );
});

test('a name folded at tabs is folded again', () => {
  const word = `=?utf-8?q?${'x'.repeat(60)}?=`;
  const changed = run(`From: ${Array(20).fill(word).join('\r\n\t')}\r\n <a@host>\r\n`, foreign) ?? '';
  assert.equal(changed.split(word).length, 41, 'in From: and in Reply-To:');
  for (const line of changed.split('\r\n')) assert.ok(line.length <= 100, line);
});

test('a From: that is too long or not closed is replaced without a look at what it may mean', () => {
  for (const value of [
    '('.repeat(40_000),
    '(\\'.repeat(10_000),
    '"\\'.repeat(10_000),
    '"never closed <a@host>',
  ])
    assert.equal(run(`From: ${value}\r\n`, foreign), 'From: <box@corp.test>\r\n', value.slice(0, 5));
});
