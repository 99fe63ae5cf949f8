/** What devices and old clients send, and how a listener that trusts them takes it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { account, bodyOf, stage } from './stage.ts';

const b64 = (text: string): string => Buffer.from(text).toString('base64');

test(
  'a device is understood: its HELO, its blanks, its TABs, its SASL answers',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { received: true } });
    for (const hello of ['HELO', 'EHLO', 'EHLO ', 'HELO HP LaserJet 400', 'EHLO \t printer']) {
      const client = await s.connect();
      await client.expect(undefined, 220);
      await client.expect(hello, 250);
      await client.expect('MAIL FROM:< a@x.test >  \t', 250);
      await client.expect('RCPT TO: <b@y.test > ', 250);
      await client.expect('DATA \t ', 354);
      await client.body('x');
      await client.expect('AUTH LOGIN  ', 334);
      await client.expect(`${b64('a@x.test')}  `, 334);
      await client.expect(`${b64('x')}\t`, 235);
      await client.expect('QUIT ', 221);
    }
    assert.deepEqual(
      s.relay.taken().map((one) => one.command.sender),
      Array(5).fill('a@x.test'),
    );
    assert.match(bodyOf(s.relay.taken()[3]), /^Received: from HP /);
  }),
);

test(
  'others are held to the letter',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { allow: ['10.0.0.0/8'], proxyProtocol: true } });
    const client = await s.connect();
    await client.raw('PROXY UNKNOWN\r\n');
    await client.expect(undefined, 220);
    await client.expect('EHLO', '501 5.5.4');
    await client.expect('HELO two words', '501 5.5.4');
    await client.expect('EHLO\tx', '500 5.5.2');
    await client.expect('EHLO x', 250);
    await client.expect('MAIL FROM:< a@x.test >', '501 5.1.7');
  }),
);

test(
  'a name before the address is told how it should be',
  leakless(async (_t, defer) => {
    const s = await stage(defer);
    const client = await s.greeted();
    await client.expect(
      'MAIL FROM:Alice <a@x.test>',
      '501 5.1.7 Write the address alone, without a name: MAIL FROM:<address>',
    );
    await client.expect('MAIL FROM:a@x.test', 250);
    await client.expect('RCPT TO:"Bob" <b@y.test>', '501 5.1.3 Write the address alone');
  }),
);

test(
  'AUTH=PLAIN LOGIN is offered on request',
  leakless(async (_t, defer) => {
    const s = await stage(defer, { settings: { authEqualsLine: true }, accounts: [account('a@x.test')] });
    const client = await s.connect();
    await client.expect(undefined, 220);
    const { lines } = await client.send('EHLO c');
    assert.ok(lines.includes('250-AUTH=PLAIN LOGIN') && lines.includes('250 AUTH PLAIN LOGIN'), lines.join());
  }),
);
