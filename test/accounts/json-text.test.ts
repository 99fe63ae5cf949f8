import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatPath, JsonSyntaxError, nodeAt, parseJsonText } from '../../src/accounts/json-text.ts';

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

for (const text of [
  '{}',
  '[]',
  ' [1, -2.5e3, "x\\u00e9\\n", true, false, null] ',
  '{"a": {"b": [{"c": "d"}]}, "": ""}',
  '"just text"',
  '0',
  '\ufeff{"bom": 1}',
]) {
  test(`agrees with JSON.parse on ${JSON.stringify(text)}`, () => {
    assert.deepEqual(plain(parseJsonText(text).value), JSON.parse(text.replace(/^\ufeff/, '')));
  });
}

const SECRET = 'hunter2-secret';
for (const [text, line, column, words] of [
  [`{"a": "${SECRET}",}`, 1, 23, /comma with nothing after it: remove/],
  [`{\n  "a": "${SECRET}"\n  "b": 1\n}`, 3, 3, /expected a comma or }/],
  [`[\n1,\n]`, 2, 2, /remove the comma/],
  [`{"a": "${SECRET}`, 1, 7, /not closed/],
  [`{"a": "${SECRET}\n"}`, 1, 7, /not closed/],
  [`{"a": '${SECRET}'}`, 1, 7, /double quotes/],
  [`{a: 1}`, 1, 2, /double quotes/],
  [`{"a" 1}`, 1, 6, /colon/],
  [`{"a": 1`, 1, 1, /not closed: add a }|begins here/],
  [`{"a": 1} x`, 1, 10, /nothing more/],
  [`// ${SECRET}\n{}`, 1, 1, /no comments/],
  [`{"a": ${SECRET}}`, 1, 7, /expected a value/],
  [`{"a": "\\q"}`, 1, 7, /escape/],
  [`{"a": 1, "a": 2}`, 1, 10, /stands twice/],
  [`{"a": 01}`, 1, 8, /expected a comma/],
  [`{"a": tru}`, 1, 7, /expected a value/],
  [``, 1, 1, /ends where a value/],
  ['['.repeat(5000), 1, 102, /nested/],
] as const) {
  test(`refuses ${JSON.stringify(text.slice(0, 40))}`, () => {
    assert.throws(
      () => parseJsonText(text),
      (error) => {
        assert(error instanceof JsonSyntaxError);
        assert.match(error.message, words);
        assert.equal(
          /^line (\d+), column (\d+):/.exec(error.message)?.slice(1).join(':'),
          `${line}:${column}`,
        );
        assert.doesNotMatch(error.message, /hunter2/);
        return true;
      },
    );
  });
}

test('a key named __proto__ is data like any other', () => {
  const { value } = parseJsonText('{"__proto__": {"polluted": true}}');
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
  assert.deepEqual(Object.keys(value as object), ['__proto__']);
});

test('nodes know where they stand', () => {
  const text = '{"accounts": [{"email": "a@b"}, {"email": "c@d"}]}';
  const node = nodeAt(parseJsonText(text), ['accounts', 1, 'email']);
  assert.equal(text.slice(node?.start, node?.end), '"c@d"');
  assert.equal(nodeAt(parseJsonText(text), ['accounts', 7, 'email']), undefined);
});

test('paths read as in JavaScript', () => {
  assert.equal(formatPath(['accounts', 3, 'client_id']), 'accounts[3].client_id');
  assert.equal(formatPath([]), '');
});
