import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMailParameters, refusalOfRcptParameters } from '../../src/protocol/esmtp-parameters.ts';

test('passes on what the client wrote and reads what the relay must know', () => {
  const parameters = ['size=20', 'BODY=8bitmime', 'SMTPUTF8', 'RET=FULL', 'ENVID=a+2Bb', 'AUTH=<>'];
  assert.deepEqual(parseMailParameters(parameters), {
    size: 20,
    smtpUtf8: true,
    passed: ['size=20', 'BODY=8bitmime', 'SMTPUTF8', 'RET=FULL', 'ENVID=a+2Bb'],
  });
  assert.deepEqual(parseMailParameters([]), { size: undefined, smtpUtf8: false, passed: [] });
  const rcpt = ['NOTIFY=SUCCESS,failure,DELAY', 'ORCPT=rfc822;a+2Bb@x.test'];
  assert.equal(refusalOfRcptParameters(rcpt), undefined);
  assert.equal(refusalOfRcptParameters(['NOTIFY=NEVER', 'ORCPT=utf-8;ü@x.test']), undefined);
});

const refused: readonly [code: number, parameters: string[]][] = [
  [555, ['HOLDFOR=10']],
  [555, ['toString']],
  [555, ['__proto__=1']],
  [555, ['NOTIFY=NEVER']],
  [501, ['SIZE']],
  [501, ['SIZE=-1']],
  [501, ['SIZE=123456789012345678901']],
  [501, ['SIZE=1', 'Size=1']],
  [501, ['BODY=BINARYMIME']],
  [501, ['SMTPUTF8=yes']],
  [501, ['RET=SOME']],
  [501, ['ENVID=a+2b']],
  [501, [`ENVID=${'a'.repeat(101)}`]],
];
for (const [code, parameters] of refused) {
  test(`MAIL refuses ${parameters.join(' ').slice(0, 30)}`, () => {
    const result = parseMailParameters(parameters);
    assert.ok('code' in result && result.code === code, JSON.stringify(result));
    assert.equal(result.enhanced, '5.5.4');
  });
}

const refusedAtRcpt: readonly [code: number, parameters: string[]][] = [
  [555, ['SIZE=1']],
  [501, ['NOTIFY=NEVER,DELAY']],
  [501, ['NOTIFY=']],
  [501, ['NOTIFY']],
  [501, ['ORCPT=rfc822']],
  [501, ['ORCPT=;a@x.test']],
  [501, ['ORCPT=rfc822;a', 'ORCPT=rfc822;a']],
];
for (const [code, parameters] of refusedAtRcpt) {
  test(`RCPT refuses ${parameters.join(' ')}`, () => {
    assert.equal(refusalOfRcptParameters(parameters)?.code, code);
  });
}
