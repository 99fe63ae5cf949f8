import assert from 'node:assert/strict';
import { test } from 'node:test';
import { texts } from './flavour.ts';
import { type Defer, leakless } from './leak-check.ts';
import { type Provider, type ProviderOptions, startProvider } from './provider.ts';
import { type SmtpClient, smtpClient, xoauth2Blob } from './smtp-client.ts';

const USER = 'ann@example.com';

const start = async (defer: Defer, options: ProviderOptions = {}): Promise<Provider> => {
  const provider = await startProvider({ users: [USER], ...options });
  defer(() => provider.close());
  return provider;
};
/** Connected, TLS, EHLO. */
const greeted = async (defer: Defer, provider: Provider): Promise<SmtpClient> => {
  const client = await smtpClient(provider.smtp.port);
  defer(() => client.reset());
  await client.expect(undefined, 220);
  await client.expect('EHLO test', 250);
  await client.startTls(provider.caPem);
  await client.expect('EHLO test', 250);
  return client;
};
const authenticated = async (defer: Defer, provider: Provider): Promise<SmtpClient> => {
  const client = await greeted(defer, provider);
  const reply = await client.xoauth2(USER, provider.token.issue(USER).accessToken);
  assert.equal(reply.code, 235);
  return client;
};

for (const flavour of ['gmail', 'microsoft'] as const) {
  test(
    `${flavour}: a message over STARTTLS with DATA arrives byte for byte`,
    leakless(async (_t, defer) => {
      const provider = await start(defer, { flavour });
      const client = await authenticated(defer, provider);
      await client.expect(`MAIL FROM:<${USER}> SIZE=20`, '250 2.1.0');
      await client.expect('RCPT TO:<bob@example.net>', '250 2.1.5');
      await client.expect('DATA', 354);
      const body = Buffer.from('.\r\n..two\r\n\xff\n.\n\r.\r\r\n.x\r\n', 'latin1');
      assert.equal((await client.body(body)).code, 250);
      const [message] = provider.messages;
      assert.deepEqual(message?.body, body);
      assert.equal(message?.sender, USER);
      assert.deepEqual(message?.mailParameters, ['SIZE=20']);
      assert.deepEqual(message?.recipients, [{ address: 'bob@example.net', parameters: [] }]);
      assert.equal(message?.flights, 4);
      await client.expect('QUIT', 221);
      assert.equal(await client.closed(), 'end');
    }),
  );
}

test(
  'implicit TLS shows AUTH and SNI, and no STARTTLS',
  leakless(async (_t, defer) => {
    const provider = await start(defer);
    const client = await smtpClient(provider.smtp.tlsPort, { tls: true, ca: provider.caPem });
    defer(() => client.reset());
    await client.expect(undefined, '220 smtp.gmail.com');
    const ehlo = await client.expect('EHLO test', 250);
    assert.match(ehlo.text, /AUTH .*XOAUTH2/);
    assert.doesNotMatch(ehlo.text, /STARTTLS/);
    assert.equal(provider.smtp.sessions[0]?.servername, 'localhost');
  }),
);

test(
  'a whole transaction in one write with BDAT is one flight, with DATA two',
  leakless(async (_t, defer) => {
    const provider = await start(defer);
    const client = await authenticated(defer, provider);
    const before = provider.smtp.sessions[0]?.flights ?? 0;
    await client.raw(`MAIL FROM:<${USER}>\r\nRCPT TO:<b@example.net>\r\nBDAT 7 LAST\r\na\r\n.\r\nb`);
    assert.deepEqual([(await client.reply()).code, (await client.reply()).code], [250, 250]);
    assert.equal((await client.reply()).code, 250);
    assert.equal(provider.messages[0]?.body.toString(), 'a\r\n.\r\nb');
    assert.equal(provider.messages[0]?.via, 'BDAT');
    assert.equal(provider.messages[0]?.flights, 1);
    assert.equal((provider.smtp.sessions[0]?.flights ?? 0) - before, 1);
    await client.raw(`MAIL FROM:<${USER}>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n`);
    for (const code of [250, 250, 354]) assert.equal((await client.reply()).code, code);
    assert.equal((await client.body('')).code, 250);
    assert.equal(provider.messages[1]?.bytes, 0);
    assert.equal(provider.messages[1]?.flights, 2);
  }),
);

test(
  'a bad token: Gmail challenges first, Microsoft refuses at once',
  leakless(async (_t, defer) => {
    const google = await greeted(defer, await start(defer));
    await google.expect('AUTH XOAUTH2', 334);
    const challenge = await google.expect(xoauth2Blob(USER, 'stale'), 334);
    assert.equal(JSON.parse(Buffer.from(challenge.text.slice(4), 'base64').toString()).status, '400');
    await google.expect('', '535-5.7.8');
    const client = await greeted(defer, await start(defer, { flavour: 'microsoft' }));
    await client.expect('AUTH XOAUTH2', 334);
    await client.expect(xoauth2Blob(USER, 'stale'), '535 5.7.3');
  }),
);

test(
  "another user's token, a forgotten one and an expired one are refused",
  leakless(async (_t, defer) => {
    const provider = await start(defer, { users: [USER, 'eve@example.com'] });
    const foreign = provider.token.issue('eve@example.com').accessToken;
    provider.token.expiresInS = -1;
    const expired = provider.token.issue(USER).accessToken;
    provider.token.expiresInS = 100;
    const good = provider.token.issue(USER).accessToken;
    assert.equal(provider.token.verify(USER, foreign), false);
    assert.equal(provider.token.verify(USER, expired), false);
    assert.equal(provider.token.verify(USER, good), true);
    provider.token.forgetAccessTokens(USER);
    assert.equal(provider.token.verify(USER, good), false);
  }),
);

test(
  'Gmail refuses an over-long AUTH line with 555; two steps carry the same token',
  leakless(async (_t, defer) => {
    const provider = await start(defer);
    provider.token.tokenOctets = 1024;
    const token = provider.token.issue(USER).accessToken;
    const client = await greeted(defer, provider);
    await client.expect(`AUTH XOAUTH2 ${xoauth2Blob(USER, token)}`, '555-5.5.2');
    assert.equal((await client.xoauth2(USER, token)).code, 235);
  }),
);

test(
  'parameters and extensions that are not offered are refused',
  leakless(async (_t, defer) => {
    const provider = await start(defer);
    const client = await authenticated(defer, provider);
    for (const parameters of ['RET=HDRS', 'BODY=BINARYMIME', 'SIZE=x', 'FOO=1']) {
      await client.expect(`MAIL FROM:<${USER}> ${parameters}`, 555);
    }
    await client.expect(`MAIL FROM:<${USER}> SIZE=99999999999`, 552);
    await client.expect('MAIL FROM:<jörg@example.com>', 555);
    await client.expect('MAIL FROM:<jörg@example.com> SMTPUTF8', 250);
    await client.expect('RCPT TO:<a@b> NOTIFY=NEVER', 555);
    await client.expect('DATA', '503 5.5.1 RCPT first');
    await client.expect('RSET', 250);
    provider.smtp.rules.withhold = ['CHUNKING', 'PIPELINING'];
    const ehlo = await client.expect('EHLO test', 250);
    assert.doesNotMatch(ehlo.text, /CHUNKING|PIPELINING/);
    await client.expect('BDAT 0 LAST', 502);
  }),
);

test(
  'scripts: reply, silence after the dot, close, reset, hang, garbage, hold',
  leakless(async (_t, defer) => {
    const provider = await start(defer);
    const { smtp } = provider;
    const mail = async (client: SmtpClient): Promise<void> => {
      await client.expect(`MAIL FROM:<${USER}>`, 250);
      await client.expect('RCPT TO:<b@example.net>', 250);
      await client.expect('DATA', 354);
    };
    const first = await authenticated(defer, provider);
    const entry = smtp.script(
      'RCPT',
      { line: /bad@/, times: 2 },
      { reply: ['550-5.1.1 no', '550 5.1.1 such'] },
    );
    await first.expect(`MAIL FROM:<${USER}>`, 250);
    assert.equal((await first.send('RCPT TO:<bad@example.net>')).text, '550-5.1.1 no\n550 5.1.1 such');
    assert.equal(entry.hits, 1);
    await first.expect('RSET', 250);
    smtp.script('MAIL', { skip: 1 }, { reply: texts.gmailServerBusy, after: 'close' });
    await mail(first);
    assert.equal((await first.body('kept')).code, 250);
    await first.expect(`MAIL FROM:<${USER}>`, 421);
    assert.equal(await first.closed(), 'end');

    const second = await authenticated(defer, provider);
    smtp.script('end-of-data', {}, { accept: true, after: 'close' });
    await mail(second);
    await assert.rejects(second.body('told nobody'), /closed/);
    assert.equal(provider.unanswered.length, 1);
    assert.equal(provider.unanswered[0]?.delivered, true);

    const third = await authenticated(defer, provider);
    smtp.script('NOOP', {}, { raw: 'xyzzy\r\n' });
    assert.equal((await third.send('NOOP')).text, 'xyzzy');
    let release = (): void => {};
    const until = new Promise<void>((resolve) => {
      release = resolve;
    });
    smtp.script('NOOP', {}, { until });
    await third.raw('NOOP\r\n');
    await assert.rejects(third.reply(50), /nothing within/);
    release();
    smtp.script('RSET', {}, { after: 'reset' });
    await third.raw('RSET\r\n');
    assert.equal(await third.closed(), 'error');

    const fourth = await authenticated(defer, provider);
    smtp.script('QUIT', {}, { after: 'hang' });
    await fourth.raw('QUIT\r\nNOOP\r\n');
    await assert.rejects(fourth.reply(50), /nothing within/);
    assert.equal(provider.messages.length, 1);
  }),
);

test(
  'a body cut in the middle is recorded as cut and never accepted',
  leakless(async (_t, defer) => {
    const provider = await start(defer);
    const client = await authenticated(defer, provider);
    await client.expect(`MAIL FROM:<${USER}>`, 250);
    await client.expect('RCPT TO:<b@example.net>', 250);
    await client.raw('BDAT 100 LAST\r\nhalf');
    client.end();
    await provider.assertDisconnected();
    assert.deepEqual(
      provider.submissions.map((s) => [s.outcome, s.delivered, s.bytes]),
      [['cut', false, 4]],
    );
    assert.equal(provider.messages.length, 0);
  }),
);

test(
  'limits: concurrent submissions, logins, rate, day, size, recipients',
  leakless(async (_t, defer) => {
    const provider = await start(defer, { flavour: 'microsoft' });
    const { rules } = provider.smtp;
    const transaction = async (client: SmtpClient, body = 'x'): Promise<string> => {
      const mail = await client.send(`MAIL FROM:<${USER}>`);
      if (mail.code !== 250) return mail.text;
      await client.expect('RCPT TO:<b@example.net>', 250);
      await client.expect('DATA', 354);
      return (await client.body(body)).text;
    };
    const [a, b] = [await authenticated(defer, provider), await authenticated(defer, provider)];
    rules.maxConcurrentSubmissions = 1;
    await a.expect(`MAIL FROM:<${USER}>`, 250);
    await a.expect('RCPT TO:<b@example.net>', 250);
    await a.expect('DATA', 354);
    assert.match(await transaction(b), /^432 4\.3\.2 Concurrent/);
    assert.equal((await a.body('first')).code, 250);
    assert.match(await transaction(b), /^250 /);
    rules.maxBytes = 100;
    assert.match(await transaction(b, 'x'.repeat(200)), /^552 /);
    rules.maxRecipients = 1;
    await b.expect(`MAIL FROM:<${USER}>`, 250);
    await b.expect('RCPT TO:<b@example.net>', 250);
    await b.expect('RCPT TO:<c@example.net>', '452 4.5.3');
    await b.expect('RSET', 250);
    rules.messagesPerDay = 2;
    assert.match(await transaction(b), /^554 5\.2\.0 .*SubmissionQuotaExceeded/);
    rules.messagesPerDay = undefined;
    rules.messagesPerMinute = 0;
    assert.match(await transaction(b), /^421 4\.4\.2 /);
    assert.equal(await b.closed(), 'end');
    rules.loginsPerMinute = 1;
    const c = await greeted(defer, provider);
    assert.equal((await c.xoauth2(USER, provider.token.issue(USER).accessToken)).code, 235);
    const d = await greeted(defer, provider);
    assert.match((await d.xoauth2(USER, provider.token.issue(USER).accessToken)).text, /^454 4\.7\.0/);
    assert.equal(provider.smtp.logins(USER), 3);
    assert.equal(provider.smtp.maxOpenOf(USER), 2);
  }),
);

test(
  'idle connections end as a line nobody asked for, or at the next command, by clock and by hand',
  leakless(async (_t, defer) => {
    const provider = await start(defer);
    const client = await authenticated(defer, provider);
    assert.equal(provider.smtp.disturb('next-command'), 1);
    await client.expect('NOOP', '451 4.4.2 Timeout');
    assert.equal(await client.closed(), 'end');
    const other = await authenticated(defer, provider);
    provider.smtp.rules.idleMs = 20;
    await other.expect('NOOP', 250);
    assert.match((await other.reply()).text, /^451 4\.4\.2/);
    assert.equal(await other.closed(), 'end');
    provider.smtp.rules.idleMs = undefined;
    const third = await authenticated(defer, provider);
    provider.smtp.rules.maxAgeMs = -1;
    await third.expect('NOOP', '421 4.7.0 Connection expired');
  }),
);

test(
  'replies octet by octet still read the same, and latency makes flights exact',
  leakless(async (_t, defer) => {
    const provider = await start(defer, { flavour: 'microsoft' });
    const client = await authenticated(defer, provider);
    provider.smtp.timing.splitReplies = true;
    await client.expect('NOOP', '250 2.0.0 OK');
    provider.smtp.timing.splitReplies = false;
    provider.smtp.timing.latencyMs = 30;
    const body = Buffer.alloc(300_000, 'x');
    await client.raw(`MAIL FROM:<${USER}>\r\nRCPT TO:<b@example.net>\r\nBDAT ${body.length}\r\n`);
    await client.raw(body);
    await client.raw('BDAT 0 LAST\r\n');
    for (let i = 0; i < 4; i++) assert.equal((await client.reply()).code, 250);
    assert.equal(provider.messages[0]?.flights, 1);
    assert.equal(provider.messages[0]?.chunks, 2);
    assert.equal(provider.messages[0]?.bytes, body.length);
  }),
);

test(
  'down refuses connections and up takes them again on the same ports',
  leakless(async (_t, defer) => {
    const provider = await start(defer);
    const client = await authenticated(defer, provider);
    await provider.smtp.down();
    await client.closed();
    await assert.rejects(smtpClient(provider.smtp.port), /ECONNREFUSED/);
    await provider.smtp.up();
    await authenticated(defer, provider);
  }),
);

test('leakless fails a test that leaves a socket open', async (t) => {
  const provider = await startProvider();
  let forgotten: SmtpClient | undefined;
  const leaky = leakless(async () => {
    forgotten = await smtpClient(provider.smtp.port);
  });
  await assert.rejects(leaky(t), /left open/);
  forgotten?.reset();
  await provider.close();
});
