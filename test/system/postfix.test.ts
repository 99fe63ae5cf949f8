// needs: postfix
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Postfix, type PostfixOptions, startPostfix } from '../support/postfix.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type RelayOptions, type RelayProcess, startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const GMAIL = 'ann@gmail.example';
const OUTLOOK = 'olaf@outlook.example';

interface Chain {
  readonly google: Provider;
  readonly microsoft: Provider;
  readonly relay: RelayProcess;
  readonly postfix: Postfix;
}

async function start(
  defer: Defer,
  options: {
    before?: (google: Provider) => Promise<void>;
    relay?: Partial<RelayOptions>;
    postfix?: Partial<PostfixOptions>;
  } = {},
): Promise<Chain> {
  const google = await startProvider({ users: [GMAIL] });
  defer(() => google.close());
  const microsoft = await startProvider({ flavour: 'microsoft', users: [OUTLOOK] });
  defer(() => microsoft.close());
  await options.before?.(google);
  const relay = await startRelay({
    accounts: [google.entry(GMAIL), microsoft.entry(OUTLOOK)],
    caFile: google.caFile,
    ...options.relay,
  });
  defer(() => relay.stop());
  const postfix = await startPostfix({
    relayPort: relay.smtpPort,
    localDomains: ['gmail.example', 'outlook.example'],
    ...options.postfix,
  });
  defer(() => postfix.stop());
  return { google, microsoft, relay, postfix };
}

async function inject(
  postfix: Postfix,
  message: { from: string; to: readonly string[]; body: string | Buffer; parameters?: string },
): Promise<void> {
  const client = await smtpClient(postfix.port);
  try {
    await client.expect(undefined, 220);
    await client.expect('EHLO app.example', 250);
    await client.expect(`MAIL FROM:<${message.from}>${message.parameters ?? ''}`, 250);
    for (const to of message.to) await client.expect(`RCPT TO:<${to}>`, 250);
    await client.expect('DATA', 354);
    assert.equal((await client.body(message.body)).code, 250);
  } finally {
    client.end();
  }
}

/** What the client handed to Postfix, without the header lines that Postfix puts before it. */
const endsWith = (whole: Buffer, part: Buffer): boolean => whole.subarray(-part.length).equals(part);

const message = (from: string, body: string | Buffer): Buffer =>
  Buffer.concat([
    Buffer.from(
      `From: ${from}\r\nTo: b@example.net\r\nSubject: test\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <${randomBytes(6).toString('hex')}@app.example>\r\n\r\n`,
    ),
    Buffer.from(body),
  ]);

test(
  'Postfix delivers through the relay, octet for octet',
  leakless(async (_t, defer) => {
    const { google, microsoft, postfix } = await start(defer);
    const lines = Buffer.from(`${randomBytes(7_500_000).toString('base64').replace(/.{76}/g, '$&\r\n')}\r\n`);
    const bodies = {
      dots: '.\r\n..\r\n.x\r\n\r\n.\r\n',
      eight: Buffer.from('Gr\xfc\xdfe \x80\xff\r\n', 'latin1'),
      empty: '',
      big: lines,
    };
    for (const [name, body] of Object.entries(bodies)) {
      const before = google.messages.length;
      const sent = message(GMAIL, body);
      await inject(postfix, { from: GMAIL, to: ['b@example.net'], body: sent });
      const arrived = (await google.received(before + 1, 30_000))[before];
      assert.ok(arrived !== undefined && endsWith(arrived.body, sent), name);
      assert.equal(arrived.sender, GMAIL);
      assert.equal(arrived.user, GMAIL);
    }
    const sent = message(OUTLOOK, 'to three\r\n');
    const to = ['a@example.net', 'jörg@bücher.example', 'c@example.net'];
    await inject(postfix, { from: OUTLOOK, to, body: sent, parameters: ' SMTPUTF8' });
    await waitFor(() => microsoft.messages.flatMap((m) => m.recipients).length === 3, {
      what: 'three recipients',
    });
    assert.deepEqual(
      microsoft.messages.flatMap((m) => m.recipients.map((r) => r.address)).sort(),
      [...to].sort(),
    );
    for (const m of microsoft.messages) assert.ok(endsWith(m.body, sent));
    await waitFor(async () => (await postfix.queue()).length === 0, { what: 'an empty queue' });
    assert.deepEqual(postfix.mailbox(), []);
  }),
);

test(
  'Postfix holds the mail while the token endpoint is down and delivers it when it is back',
  leakless(async (_t, defer) => {
    const { google, postfix } = await start(defer, { before: (provider) => provider.token.down() });
    const sent = message(GMAIL, 'patience\r\n');
    await inject(postfix, { from: GMAIL, to: ['b@example.net'], body: sent });
    const reason = await waitFor(async () => (await postfix.queue())[0]?.recipients[0]?.delay_reason, {
      timeoutMs: 30_000,
      what: 'a deferred message',
    });
    assert.match(reason, /451 4\.\d\.\d/);
    assert.equal(google.messages.length, 0);
    await google.token.up();
    await waitFor(
      async () => {
        await postfix.flush();
        return google.messages.length > 0;
      },
      { timeoutMs: 90_000, everyMs: 500, what: 'delivery after the endpoint is back' },
    );
    await waitFor(async () => (await postfix.queue()).length === 0, { what: 'an empty queue' });
    assert.equal(google.messages.length, 1);
    assert.ok(google.messages[0] !== undefined && endsWith(google.messages[0].body, sent));
    assert.deepEqual(postfix.mailbox(), []);
  }),
);

test(
  "Postfix bounces with the provider's own text, and only the recipient that was refused",
  leakless(async (_t, defer) => {
    const { google, postfix } = await start(defer);
    const text = '550 5.1.1 no-such-user here, says the provider. x1sm2 - gsmtp';
    const refusal = { times: Number.POSITIVE_INFINITY, line: /nobody@/ };
    google.smtp.script('RCPT', refusal, { reply: text });
    await inject(postfix, { from: GMAIL, to: ['nobody@example.net'], body: message(GMAIL, 'x\r\n') });
    const [bounce] = await waitFor(() => postfix.mailbox().length > 0 && postfix.mailbox(), {
      what: 'the bounce',
    });
    assert.match(bounce ?? '', /no-such-user\s+here,\s+says\s+the\s+provider/);
    assert.match(bounce ?? '', /^Status: 5\.1\.1$/m);
    assert.equal(google.messages.length, 0);

    const to = ['good@example.net', 'nobody@example.net', 'fine@example.net'];
    await inject(postfix, { from: GMAIL, to, body: message(GMAIL, 'y\r\n') });
    await waitFor(() => postfix.mailbox().length === 2, { what: 'the second bounce' });
    await waitFor(async () => (await postfix.queue()).length === 0, { what: 'an empty queue' });
    assert.deepEqual(google.messages.flatMap((m) => m.recipients.map((r) => r.address)).sort(), [
      'fine@example.net',
      'good@example.net',
    ]);
    const second = postfix.mailbox().find((mail) => mail !== bounce) ?? '';
    assert.match(second, /Final-Recipient: rfc822; nobody@example\.net/);
    assert.doesNotMatch(second, /Final-Recipient: rfc822; (good|fine)@/);
  }),
);
