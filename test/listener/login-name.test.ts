import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { createLoginNames } from '../../src/listener/login-name.ts';
import { account } from './stage.ts';

const directory = createAccountDirectory([account('ann@example.com'), account('scan@bücher.example')]);
const masking = createLoginNames((text) => text.replace(/^.*@/, '*@'));
const open = createLoginNames((text) => text);

for (const [user, told, toldWithAddresses = told] of [
  // What people get wrong.
  ['carl@example.com', 'carl@example.com'],
  ['CARL@EXAMPLE.COM ', 'CARL@EXAMPLE.COM '],
  ['x@xn--bcher-kva.example', 'x@xn--bcher-kva.example'],
  ['ann', 'ann'],
  ['Ann', 'Ann'],
  ['printers@exmaple.net', 'pr…@exmaple.net (20 characters)', 'printers@exmaple.net'],
  // What may be a password.
  ['hunter2password', 'hu… (15 characters)'],
  ['p@ssw0rd', 'p@… (8 characters)'],
  ['P@ss.word!', 'P@… (10 characters)'],
  ['a@b@example.com', 'a@… (15 characters)'],
  ['root', 'r… (4 characters)'],
  ['x', '… (1 characters)'],
  ['', ''],
] as const)
  test(`of the unknown user ${JSON.stringify(user)} the log tells ${JSON.stringify(told)}`, () => {
    assert.equal(masking(user, directory), told);
    assert.equal(open(user, directory), toldWithAddresses);
  });
