import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeted, sendMail, transact } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';
import type { Action, Stage } from '../support/smtp-script.ts';
import type { TokenAnswer } from '../support/token-answers.ts';
import { tokenAnswers } from '../support/token-answers.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@gmail.example';
const BOB = 'bob@gmail.example';

async function start(
  defer: Defer,
  args: readonly string[] = [],
): Promise<{ provider: Provider; relay: RelayProcess }> {
  const provider = await startProvider({ users: [ANN] });
  defer(() => provider.close());
  const relay = await startRelay({ accounts: [provider.entry(ANN)], caFile: provider.caFile, args });
  defer(() => relay.stop());
  return { provider, relay };
}

/** The relay still does its work, on the connections and memory it had. */
async function stillWell(relay: RelayProcess, provider: Provider): Promise<void> {
  const before = provider.messages.length;
  assert.equal((await sendMail(relay.smtpPort, { from: ANN })).code, 250);
  assert.equal(provider.messages.length, before + 1);
  assert.doesNotMatch(relay.output(), /UnhandledPromise|uncaughtException|ERR_|at .*\.js:\d+/);
}

test(
  'malformed SMTP is answered line by line and the session goes on',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    const client = await smtpClient(relay.smtpPort);
    defer(() => client.reset());
    await client.expect(undefined, 220);
    for (const [line, code] of [
      ['MAIL FROM:<ann@gmail.example>', 503],
      ['FROB', 5],
      ['', 5],
      ['\x00\xff\x01', 5],
      ['EHLO client.example', 250],
      ['MAIL', 5],
      ['MAIL FROM:', 501],
      ['MAIL FROM:<ann@gmail.example', 501],
      ['MAIL FROM:<ann@gmail.example> SIZE=x', 501],
      ['MAIL FROM:<ann@gmail.example> FOO=1', 555],
      ['RCPT TO:<b@example.net>', 503],
      ['DATA', 503],
      ['AUTH', 501],
      ['AUTH FROBNICATE', 504],
      ['AUTH PLAIN !!!', 5],
      ['MAIL FROM:<ann@gmail.example>', 250],
      ['MAIL FROM:<ann@gmail.example>', 503],
      ['RCPT TO:', 501],
      ['DATA', 5],
      ['RSET', 250],
    ] as const) {
      await client.expect(line, code);
    }
    assert.equal((await transact(client, { from: ANN })).code, 250);
    await stillWell(relay, provider);
  }),
);

test(
  'an over-long command is refused, an endless one ends the connection, neither the process',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    const client = await greeted(relay.smtpPort);
    defer(() => client.reset());
    await client.expect(`NOOP ${'x'.repeat(20_000)}`, 500);
    await client.expect('NOOP', 250);
    const endless = await greeted(relay.smtpPort);
    defer(() => endless.reset());
    for (let i = 0; i < 64 && endless.socket.writable; i++) await endless.raw('y'.repeat(65_536));
    await stillWell(relay, provider);
  }),
);

test(
  'a client that hangs up at any point leaves nothing behind and delivers nothing',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    const steps = [
      'EHLO client.example\r\n',
      `MAIL FROM:<${ANN}>\r\n`,
      'RCPT TO:<b@example.net>\r\n',
      'RCPT TO:<c@example.net>\r\n',
      'DATA\r\n',
      `Subject: x\r\n\r\n${'line\r\n'.repeat(1000)}`,
      `${'more\r\n'.repeat(100_000)}.`,
    ];
    for (let upTo = 0; upTo <= steps.length; upTo++) {
      for (const how of ['end', 'reset'] as const) {
        const client = await smtpClient(relay.smtpPort);
        await client.expect(undefined, 220);
        for (const step of steps.slice(0, upTo)) {
          await client.raw(step);
          if (!/^(Subject|more)/.test(step)) await client.reply();
        }
        client[how]();
        await client.closed().catch(() => client.reset());
      }
    }
    await waitFor(() => provider.submissions.every((s) => s.outcome === 'cut'), {
      what: 'nothing delivered',
    });
    await waitFor(
      async () =>
        (await relay.admin<{ accounts: { pool: { busy: number } }[] }>('/admin/accounts')).accounts[0]?.pool
          .busy === 0,
      { what: 'no connection in use' },
    );
    assert.equal(provider.messages.length, 0);
    await stillWell(relay, provider);
  }),
);

const upstreamFaults: Record<string, [Stage, Action]> = {
  'garbage at MAIL': ['MAIL', { raw: '\x00\x01 what?\r\n' }],
  'a code out of range at MAIL': ['MAIL', { raw: '999 9.9.9 nine\r\n' }],
  'half a reply, then the end': ['MAIL', { raw: '250-2.1.0 half', after: 'close' }],
  'an endless reply line': ['RCPT', { raw: `250 ${'x'.repeat(200_000)}`, after: 'close' }],
  'more replies than commands': [
    'RCPT',
    { reply: ['250 2.1.5 OK'], raw: '250 2.1.5 OK\r\n250 2.1.5 OK\r\n' },
  ],
  'a reset at the end of the body': ['end-of-data', { after: 'reset' }],
  'the end after the body, no reply': ['end-of-data', { after: 'close' }],
  'garbage at the end of the body': ['end-of-data', { raw: 'OK!\r\n' }],
};
test(
  'a provider that answers garbage: 4xx to the client, never a false 250, and the next message goes through',
  leakless(async (_t, defer) => {
    const { provider, relay } = await start(defer);
    for (const [name, [stage, action]] of Object.entries(upstreamFaults)) {
      provider.smtp.clearScripts();
      // Twice, so that the silent replay on a fresh connection meets it as well.
      provider.smtp.script(stage, { times: 2 }, action);
      const before = provider.messages.length;
      const reply = await sendMail(relay.smtpPort, { from: ANN });
      const delivered = provider.messages.length - before;
      if (reply.code === 250) assert.equal(delivered, 1, `${name}: 250 without a delivery`);
      else assert.match(reply.text, /^4\d\d 4\.\d+\.\d+ /, name);
      provider.smtp.clearScripts();
      await stillWell(relay, provider);
    }
  }),
);

const tokenFaults: Record<string, TokenAnswer> = {
  HTML: tokenAnswers.okHtml,
  'HTML and 503': tokenAnswers.unavailableHtml,
  'truncated JSON': tokenAnswers.truncated,
  reset: tokenAnswers.reset,
  redirect: tokenAnswers.redirect('http://127.0.0.1:9/elsewhere'),
  '10 MB': tokenAnswers.tenMegabytes,
  'no access_token': { patch: { access_token: undefined } },
  'an access_token that would break the SASL string': { patch: { access_token: 'a\x01b\r\nc' } },
  'negative expires_in': { patch: { expires_in: -5 } },
};
for (const [name, answer] of Object.entries(tokenFaults)) {
  test(
    `a token endpoint that answers ${name}: 4xx at MAIL, a log line, and recovery`,
    leakless((_t, defer) => endures(defer, { [ANN]: answer })),
  );
}

test(
  'a token endpoint that is silent, or answers an octet at a time without end: 4xx at MAIL, a log line, and recovery',
  leakless((_t, defer) => endures(defer, { [ANN]: tokenAnswers.silence, [BOB]: tokenAnswers.drip })),
);

/** Each account's endpoint answers as told, and then as it should. */
async function endures(defer: Defer, answers: Readonly<Record<string, TokenAnswer>>): Promise<void> {
  const users = Object.keys(answers);
  const provider = await startProvider({ users });
  defer(() => provider.close());
  for (const [user, answer] of Object.entries(answers)) provider.token.always(answer, user);
  const relay = await startRelay({
    accounts: users.map((user) => provider.entry(user)),
    caFile: provider.caFile,
    env: { XOAUTH2_RELAY_TOKEN_TIMEOUT_MS: '1000' },
  });
  defer(() => relay.stop());
  for (const from of users)
    assert.match((await sendMail(relay.smtpPort, { from })).text, /^45\d 4\.\d+\.\d+ /);
  await relay.event('token_refresh_failed');
  assert.equal(provider.messages.length, 0);
  for (const user of users) {
    provider.token.always(undefined, user);
    await fetch(`${relay.adminUrl}/admin/accounts/${user}/refresh`, {
      method: 'POST',
      headers: { connection: 'close' },
    }).then((response) => response.arrayBuffer());
  }
  for (const from of users)
    await waitFor(async () => (await sendMail(relay.smtpPort, { from })).code === 250, {
      timeoutMs: 60_000,
      everyMs: 500,
      what: 'recovery',
    });
}
