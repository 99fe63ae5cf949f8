import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  accountEntries,
  appendAccount,
  EMPTY_ACCOUNTS_TEXT,
  removeAccount,
  updateAccount,
} from '../../src/accounts/accounts-edit.ts';

const FILE = `{
    "$schema": "./s.json",
    "providers": {"mine":   {"smtp": "smtps://x"} },
    "accounts": [
        {
            "email": "a@x", "comment": "kept   as is",
            "senders": [ "b@x" ]
        },
        { "email": "c@x" }
    ]
}
`;

test('appending keeps every character that was there and indents alike', () => {
  const text = appendAccount(FILE, { email: 'new@x', senders: ['n@x'] });
  assert.equal(
    text,
    FILE.replace(
      '{ "email": "c@x" }',
      `{ "email": "c@x" },
        {
            "email": "new@x",
            "senders": [
                "n@x"
            ]
        }`,
    ),
  );
});

test('the first account of a file', () => {
  assert.equal(
    appendAccount(EMPTY_ACCOUNTS_TEXT, { email: 'a@x' }),
    '{\n  "accounts": [\n    {\n      "email": "a@x"\n    }\n  ]\n}\n',
  );
  assert.equal(appendAccount('[]', { email: 'a@x' }), '[\n  {\n    "email": "a@x"\n  }\n]');
});

test('a file on one line stays on one line', () => {
  assert.equal(appendAccount('[{"email":"a@x"}]', { email: 'b@x' }), '[{"email":"a@x"}, {"email":"b@x"}]');
});

test('line ends and byte order mark stay', () => {
  const text = `\ufeff${FILE.replaceAll('\n', '\r\n')}`;
  const changed = appendAccount(text, { email: 'new@x' });
  assert(changed.startsWith('\ufeff{\r\n'));
  assert.doesNotMatch(changed, /[^\r]\n/);
});

test('updating touches only the named keys', () => {
  const text = updateAccount(FILE, 0, { email: 'z@x', refresh_token: 'r', senders: undefined });
  assert.equal(
    text,
    FILE.replace('"a@x"', '"z@x"').replace(
      `,
            "senders": [ "b@x" ]`,
      `,
            "refresh_token": "r"`,
    ),
  );
  assert.equal(
    updateAccount(FILE, 1, { refresh_token: 'r' }),
    FILE.replace('{ "email": "c@x" }', '{ "email": "c@x", "refresh_token": "r" }'),
  );
});

test('removing leaves the neighbours alone', () => {
  assert.deepEqual(
    accountEntries(removeAccount(FILE, 0)).map((e) => e.email),
    ['c@x'],
  );
  const last = removeAccount(FILE, 1);
  assert.deepEqual(
    accountEntries(last).map((e) => e.email),
    ['a@x'],
  );
  assert.match(last, /kept {3}as is/);
  assert.deepEqual(accountEntries(removeAccount(last, 0)), []);
  assert.throws(() => removeAccount(FILE, 5), RangeError);
});

const entry = fc.record(
  {
    email: fc.string(),
    senders: fc.array(fc.string()),
    note: fc.option(fc.string()),
    nested: fc.object({ maxDepth: 2 }),
  },
  { requiredKeys: ['email'] },
);
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

test('whatever the layout, the values are those of the same edit on the parsed file', () => {
  fc.assert(
    fc.property(
      fc.array(entry, { maxLength: 4 }),
      entry,
      fc.constantFrom(undefined, 1, 2, '\t'),
      fc.boolean(),
      fc.nat(3),
      (entries, added, indent, bare, pick) => {
        const list = entries.map(plain) as Record<string, unknown>[];
        const text = JSON.stringify(bare ? list : { accounts: list }, null, indent);
        const read = (t: string): unknown => plain(accountEntries(t));
        assert.deepEqual(read(appendAccount(text, plain(added) as object as Record<string, unknown>)), [
          ...list,
          plain(added),
        ]);
        const index = pick % Math.max(1, list.length);
        if (list.length === 0) return;
        assert.deepEqual(
          read(removeAccount(text, index)),
          list.filter((_, i) => i !== index),
        );
        const { email: _gone, ...rest } = list[index] ?? {};
        const updated = updateAccount(text, index, { email: undefined, refresh_token: 'r', note: 'n' });
        assert.deepEqual(
          (read(updated) as unknown[])[index],
          plain({ ...rest, refresh_token: 'r', note: 'n' }),
        );
      },
    ),
    { seed: 20261121, numRuns: 300 },
  );
});
