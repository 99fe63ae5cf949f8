import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { createLogFormat } from '../../src/commands/log-format.ts';
import { createTerminal } from '../../src/commands/terminal.ts';
import { publicClaims } from '../../src/enrol/probe.ts';

const STEERS = '\u001b[2J\u009b31m\u202e';

const plain = createTerminal({
  stdin: new PassThrough(),
  stdout: new PassThrough(),
  stderr: new PassThrough(),
  env: {},
}).paint;

test('logs: what a peer wrote into a line does not steer the terminal', () => {
  const format = createLogFormat({ paint: plain, withDate: true });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  const steers = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/;
  for (const line of [
    JSON.stringify({
      level: 30,
      msg: `said ${STEERS}`,
      nested: { text: STEERS, [STEERS]: 1 },
      [STEERS]: 'x',
      cure: STEERS,
    }),
    JSON.stringify({ level: STEERS, time: STEERS, msg: 'm' }),
    JSON.stringify({
      level: 30,
      event: 'transaction',
      sender: STEERS,
      recipients: [STEERS],
      reply: { code: STEERS, text: STEERS },
    }),
    `no JSON ${STEERS}`,
    JSON.stringify([STEERS]),
  ])
    assert.doesNotMatch(format(line), steers, JSON.stringify(format(line)));
});

test('check: nor does what stands in a token', () => {
  const payload = Buffer.from(JSON.stringify({ aud: `x${STEERS}`, scp: 'SMTP.Send' })).toString('base64url');
  assert.equal(publicClaims(`h.${payload}.s`), 'aud x [2J 31m , scp SMTP.Send');
});
