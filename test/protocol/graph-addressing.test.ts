/** Envelope and header for a way without envelope: exactly the transaction's recipients, or a refusal. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { normalAddress, parseAddressList } from '../../src/protocol/address-list.ts';
import { type Addressed, addressMessage } from '../../src/protocol/graph-addressing.ts';
import { parseHeader } from '../../src/protocol/message-header.ts';
import { assertLinear } from '../support/cost.ts';

const body = '\r\nTo: nobody@body.test\r\n\r\nhello\r\n';
const message = (...lines: string[]): Buffer =>
  Buffer.from(`${lines.map((l) => `${l}\r\n`).join('')}${body}`);

function shown(result: Addressed): string {
  if (result.kind === 'foreign') return `foreign ${result.addresses.join(' ')}`;
  if (result.kind === 'unreadable') return `unreadable ${result.reason}`;
  return result.changed ? result.message.toString() : 'unchanged';
}

const UNCHANGED: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['one', ['From: a@b.c', 'To: x@y.z'], ['x@y.z']],
  ['name and comment', ['To: "Last, First" <x@y.z> (a comment, with a comma)'], ['x@y.z']],
  ['a quoted address as a name', ['To: "other@y.z" <x@y.z>'], ['x@y.z']],
  ['its own address as a name', ['To: x@y.z <x@y.z>'], ['x@y.z']],
  ['group', ['To: Team: x@y.z, "B; C" <b@y.z>;, c@y.z'], ['x@y.z', 'b@y.z', 'c@y.z']],
  ['folded', ['To: x@y.z,', '\tb@y.z', 'Cc:', ' c@y.z'], ['x@y.z', 'b@y.z', 'c@y.z']],
  ['encoded word with a comma', ['To: =?utf-8?q?a=2C_b=40c=2Ed?= <x@y.z>'], ['x@y.z']],
  ['domain in other case', ['To: x@Y.Z'], ['x@y.z']],
  ['international domain', ['To: x@exämple.de'], ['x@xn--exmple-cua.de']],
  ['quoted local part', ['To: "a b"@y.z, "plain"@y.z'], ['"a b"@y.z', 'plain@y.z']],
  ['raw UTF-8 name', ['To: Jörg <x@y.z>'], ['x@y.z']],
  ['Bcc left in', ['To: x@y.z', 'Bcc: b@y.z'], ['x@y.z', 'b@y.z']],
  ['empty fields', ['To: x@y.z', 'Cc:', 'Bcc: '], ['x@y.z']],
];
for (const [name, lines, recipients] of UNCHANGED)
  test(`as it is: ${name}`, () => {
    assert.equal(shown(addressMessage(message(...lines), recipients, 'refuse')), 'unchanged');
  });

test('recipients no header names get a Bcc line, in front and folded', () => {
  const text = shown(
    addressMessage(message('Subject: s', 'To: x@y.z'), ['x@y.z', 'b@y.z', 'c@y.z'], 'refuse'),
  );
  assert.equal(text, `Bcc: <b@y.z>,\r\n <c@y.z>\r\nSubject: s\r\nTo: x@y.z\r\n${body}`);
});

test('of To, Cc and Bcc one each leaves: of two fields a reader may see one', () => {
  const rows: readonly (readonly [readonly string[], readonly string[], 'refuse' | 'rewrite', string])[] = [
    [
      ['To: X <x@y.z>', 'Subject: s', 'to : b@y.z', 'CC: c@y.z'],
      ['x@y.z', 'b@y.z', 'c@y.z'],
      'refuse',
      'To: X <x@y.z>,\r\n b@y.z\r\nSubject: s\r\nCC: c@y.z\r\n',
    ],
    [
      ['To: x@y.z', 'Bcc: b@y.z'],
      ['x@y.z', 'b@y.z', 'c@y.z'],
      'refuse',
      'Bcc: <c@y.z>,\r\n b@y.z\r\nTo: x@y.z\r\n',
    ],
    [['To:', 'To:x@y.z'], ['x@y.z'], 'refuse', 'To: x@y.z\r\n'],
    [
      ['To: x@y.z, eve@e.e', 'To: b@y.z', 'Bcc: eve@e.e, d@y.z'],
      ['x@y.z', 'b@y.z', 'c@y.z', 'd@y.z'],
      'rewrite',
      'Bcc: <c@y.z>,\r\n <d@y.z>\r\nTo: <x@y.z>,\r\n b@y.z\r\nX-Original-To: x@y.z, eve@e.e\r\n',
    ],
  ];
  for (const [lines, recipients, foreign, expected] of rows)
    assert.equal(shown(addressMessage(message(...lines), recipients, foreign)), expected + body);
});

const LOOSE: readonly string[] = [
  '"x@y.z"',
  'Some One x@y.z',
  '<x@y.z> Some One',
  'x@y.z "Some One"',
  'x(home)@y.z',
  ': x@y.z',
  'A: B: x@y.z;',
  'x@y.z;',
  '<> x@y.z',
  // For whoever drops comments, blanks or backslashes these are addresses of their own.
  'eve(home)@e.e <x@y.z>',
  'eve @e.e <x@y.z>',
  '"eve"@e.e <x@y.z>',
  'eve (home)@e.e: x@y.z;',
  'E\\eve <x@y.z>',
  '[<x@y.z>',
  'eve@<x@y.z>',
  '"eve@e.e"x@y.z<x@y.z>',
  'x@y.z eve <x@y.z>',
  // Some look for the comma behind a group.
  'group:;x@y.z',
  // A no-break space is a blank for some, and a letter of the address for others.
  'x@y.z\u00a0',
  '\u00a0x@y.z',
];
for (const list of LOOSE)
  test(`written loosely, and put as a strict reader finds it: ${list}`, () => {
    const text = shown(addressMessage(message('Subject: s', `To: ${list}`), ['x@y.z'], 'refuse'));
    assert.equal(text, `Subject: s\r\nTo: <x@y.z>\r\nX-Original-To: ${list}\r\n${body}`);
  });

test('no field leaves with a blank before its colon: some readers see none, or the end of the header', () => {
  const text = shown(addressMessage(message('Subject : s', 'To : x@y.z'), ['x@y.z'], 'refuse'));
  assert.equal(text, `Subject: s\r\nTo: x@y.z\r\n${body}`);
  const others = shown(addressMessage(message('To\t: eve@e.e', 'X-A : 1'), ['x@y.z'], 'rewrite'));
  assert.equal(others, `Bcc: <x@y.z>\r\nX-Original-To: eve@e.e\r\nX-A: 1\r\n${body}`);
});

test('undisclosed recipients: all of them in Bcc', () => {
  const text = shown(addressMessage(message('To: undisclosed-recipients:;'), ['b@y.z'], 'refuse'));
  assert.equal(text, `Bcc: <b@y.z>\r\nTo: undisclosed-recipients:;\r\n${body}`);
});

test('a local part is compared exactly', () => {
  assert.equal(shown(addressMessage(message('To: Bob@y.z'), ['bob@y.z'], 'refuse')), 'foreign Bob@y.z');
});

const FOREIGN: readonly (readonly [string, readonly string[], string])[] = [
  ['in To', ['To: x@y.z, eve@e.e'], 'foreign eve@e.e'],
  ['in Cc', ['To: x@y.z', 'Cc: E <eve@e.e>, eve@e.e'], 'foreign eve@e.e'],
  ['in a group', ['To: G: x@y.z, eve@e.e;'], 'foreign eve@e.e'],
  ['in Bcc', ['To: x@y.z', 'Bcc: eve@e.e'], 'foreign eve@e.e'],
  ['in a field after the body of another', ['To: x@y.z', 'Subject: s', 'To: eve@e.e'], 'foreign eve@e.e'],
  ['in a Resent field', ['To: x@y.z', 'Resent-To: eve@e.e'], 'foreign eve@e.e'],
];
for (const [name, lines, expected] of FOREIGN)
  test(`somebody outside the transaction is refused: ${name}`, () => {
    assert.equal(shown(addressMessage(message(...lines), ['x@y.z'], 'refuse')), expected);
  });

const UNREADABLE: readonly (readonly [string, string])[] = [
  ['two addresses without a comma', 'To: x@y.z eve@e.e\r\n'],
  ['an address outside quotes as a name', 'To: eve@e.e <x@y.z>\r\n'],
  ['two angle addresses', 'To: A <x@y.z> B <eve@e.e>\r\n'],
  ['an open quote', 'To: "x <x@y.z>\r\n'],
  ['an open comment', 'To: (x@y.z\r\n'],
  ['a comment that never ends', 'To: x@y.z (eve\r\n'],
  ['an angle that never ends', 'To: <x@y.z\r\n'],
  ['an address as the name of a group', 'To: x@y.z, eve@e.e:;\r\n'],
  ['no domain', 'To: root\r\n'],
  ['a bare CR', 'Subject: a\rTo: eve@e.e\r\nTo: x@y.z\r\n'],
  ['a bare LF', 'Subject: a\nTo: eve@e.e\r\nTo: x@y.z\r\n'],
  ['a line that is no field', 'To: x@y.z\r\nnonsense\r\nCc: x@y.z\r\n'],
  ['a line of white space', 'To: x@y.z\r\n \r\nCc: eve@e.e\r\n'],
  ['NUL', 'Subject: \0\r\nTo: x@y.z\r\n'],
];
for (const [name, header] of UNREADABLE)
  test(`doubt is refused: ${name}`, () => {
    const result = addressMessage(Buffer.from(header + body), ['x@y.z'], 'refuse');
    assert.equal(result.kind, 'unreadable', shown(result));
  });

test('rewrite: fields that name others are replaced, the originals stay to be read', () => {
  const text = shown(
    addressMessage(
      message('To: X <x@y.z>, eve@e.e', 'Cc: c@y.z', 'Bcc: mal@e.e', 'Subject: s'),
      ['x@y.z', 'c@y.z', 'b@y.z'],
      'rewrite',
    ),
  );
  assert.equal(
    text,
    `Bcc: <b@y.z>\r\nTo: <x@y.z>\r\nX-Original-To: X <x@y.z>, eve@e.e\r\nCc: c@y.z\r\nSubject: s\r\n${body}`,
  );
});

test('rewrite: what cannot be read is replaced too; a header that is none is still refused', () => {
  assert.equal(
    shown(addressMessage(message('To: root'), ['x@y.z'], 'rewrite')),
    `Bcc: <x@y.z>\r\nX-Original-To: root\r\n${body}`,
  );
  assert.equal(addressMessage(Buffer.from(`To: a@b\n${body}`), ['x@y.z'], 'rewrite').kind, 'unreadable');
});

test('whatever is left names exactly the recipients', () => {
  const headers = [
    'To: a@x.y',
    'To: eve@e.e',
    'Cc: root, a@x.y',
    'Cc: G: b@x.y;',
    'Bcc: c@x.y',
    'Resent-To: b@x.y',
  ];
  for (let bits = 0; bits < 1 << headers.length; bits++) {
    const lines = headers.filter((_, i) => bits & (1 << i));
    const result = addressMessage(message('Subject: s', ...lines), ['a@x.y', 'b@x.y'], 'rewrite');
    assert.equal(result.kind, 'ready');
    if (result.kind !== 'ready') continue;
    const named = parseHeader(result.message)
      .fields.filter((f) => /^(to|cc|bcc)$/.test(f.name))
      .flatMap((f) => parseAddressList(f.value.trim()).addresses);
    assert.deepEqual([...new Set(named)].sort(), ['a@x.y', 'b@x.y'], lines.join(' | '));
    assert.ok(result.message.toString().endsWith(body));
  }
});

test('hostile lists and headers cost what their octets cost', async () => {
  for (const unit of ['(', '"', 'a@b.c, ', ' <', 'a:'])
    await assertLinear(unit, (size) => parseAddressList(unit.repeat(size / unit.length)), 50_000);
  for (const unit of ['A: b\r\n ', '\n', '\r'])
    await assertLinear(
      JSON.stringify(unit),
      (size) => parseHeader(Buffer.from(unit.repeat(size / unit.length))),
      200_000,
    );
});

test('addresses are compared without quotes they do not need', () => {
  assert.equal(normalAddress('"x"@Y.Z'), 'x@y.z');
  assert.equal(normalAddress('"x y"@y.z'), '"x y"@y.z');
  assert.equal(normalAddress('"a@b"@y.z'), '"a@b"@y.z');
});

test('1,000 recipients with their names are read; a header made to cost time is not', () => {
  const people = Array.from({ length: 1000 }, (_, at) => `"Doe, Jane ${at}" <jane.${at}@example.test>`);
  const addresses = people.map((_, at) => `jane.${at}@example.test`);
  assert.equal(
    shown(addressMessage(message(`To: ${people.join(',\r\n ')}`), addresses, 'refuse')),
    'unchanged',
  );
  for (const hostile of [
    [`To: ${'a@b.test,\r\n '.repeat(4000)}a@b.test`],
    [`To: ${'"'.repeat(10_000)}`],
    [`To: ${'<'.repeat(70_000)}`],
    Array<string>(60).fill('To: a@b.test'),
  ])
    for (const foreign of ['refuse', 'rewrite'] as const)
      assert.match(shown(addressMessage(message(...hostile), ['a@b.test'], foreign)), /^unreadable .* 1,000/);
  assert.match(
    shown(
      addressMessage(message(...Array<string>(10_001).fill('X:'), 'To: a@b.test'), ['a@b.test'], 'refuse'),
    ),
    /^unreadable /,
  );
});

test('a section of very many fields keeps all its octets', () => {
  const whole = message(...Array<string>(20_000).fill('X: y'));
  const header = parseHeader(whole);
  assert.equal(header.fields.length, 10_001);
  assert.equal(header.fields.map((f) => f.raw).join(''), whole.toString('latin1', 0, header.end));
});

test('a recipient without domain is refused: in a header it is no address, and nobody would hear of it', () => {
  assert.equal(
    shown(addressMessage(message('To: x@y.z'), ['x@y.z', 'Postmaster'], 'rewrite')),
    'unreadable recipient Postmaster has no domain',
  );
});
