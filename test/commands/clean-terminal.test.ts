import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cleanLine } from '../../src/commands/logs.ts';
import { publicClaims } from '../../src/enrol/probe.ts';

const STEERS = '\u001b[2J\u009b31m\u202e';

test('logs: what a peer wrote into a line does not steer the terminal', () => {
  const line = JSON.stringify({ level: 30, msg: `said ${STEERS}`, nested: { text: STEERS } });
  assert.deepEqual(JSON.parse(cleanLine(line)), {
    level: 30,
    msg: 'said  [2J 31m ',
    nested: { text: ' [2J 31m ' },
  });
  assert.equal(cleanLine(`no JSON ${STEERS}`), 'no JSON  [2J 31m ');
});

test('check: nor does what stands in a token', () => {
  const payload = Buffer.from(JSON.stringify({ aud: `x${STEERS}`, scp: 'SMTP.Send' })).toString('base64url');
  assert.equal(publicClaims(`h.${payload}.s`), 'aud x [2J 31m , scp SMTP.Send');
});
