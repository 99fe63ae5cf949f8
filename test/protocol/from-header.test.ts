import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFromAddresses } from '../../src/protocol/from-header.ts';

const cases: readonly [header: string, addresses: readonly string[] | undefined][] = [
  ['From: a@x.test', ['a@x.test']],
  ['from : <A@X.test>', ['a@x.test']],
  ['Subject: s\r\nFrom: Ann <a@x.test>\r\nTo: b@y.test', ['a@x.test']],
  ['From: "b@y.test" <a@x.test>', ['a@x.test']],
  ['From: b@y.test <a@x.test>', ['a@x.test']],
  ['From: "A, B" <a@x.test>, b@y.test', ['a@x.test', 'b@y.test']],
  ['From: Ann\r\n <a@x.test>', ['a@x.test']],
  ['From: (b@y.test) a@x.test (c, d)', ['a@x.test']],
  ['From: Group: a@x.test, b@y.test;', ['a@x.test', 'b@y.test']],
  ['From: =?utf-8?q?=3Cb=40y.test=3E?= <a@x.test>', ['a@x.test']],
  ['From: "odd one"@x.test', ['"odd one"@x.test']],
  ['From: a@x.test,', ['a@x.test']],
  ['X-From: a@x.test', undefined],
  ['', undefined],
  ['From: a@x.test\r\nFrom: b@y.test', undefined],
  ['From:', undefined],
  ['From: nobody', undefined],
  ['From: <a@x.test> <b@y.test>', undefined],
  ['From: <a@x.test', undefined],
  ['From: a@x.test>', undefined],
  ['From: <<a@x.test>>', undefined],
  ['From: "a@x.test', undefined],
  ['From: (a@x.test', undefined],
  ['From: a@x.test b@y.test', undefined],
  ['From: Group:;', undefined],
  // Readers differ about whose it is.
  ['From: b@y.test: a@x.test;', undefined],
  ['From: <a@x.test> b@y.test', undefined],
  ['From: Ann <a@x.test> (home), b@y.test', ['a@x.test', 'b@y.test']],
];
for (const [header, addresses] of cases) {
  test(`reads ${JSON.stringify(header)}`, () => {
    assert.deepEqual(parseFromAddresses(header), addresses);
  });
}
