/** Mail servers that tell in their answers what was sent to them: no part of it reaches anybody. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sendMail } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, type ProviderOptions, startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { startTunnelProxy } from '../support/tunnel-proxy.ts';

const ANN = 'ann@gmail.example';
const CLIENT_SECRET = 'GOCSPX-planted~client/secret+ann==';
const REFRESH_TOKEN = '1//0planted-refresh-token_of-ann.x';
const PROXY_PASSWORD = 'planted:password of the/proxy+%';

const spellings = (secret: string): readonly string[] => [
  secret,
  secret.toUpperCase(),
  encodeURIComponent(secret),
  Buffer.from(secret).toString('base64'),
  Buffer.from(`user=${ANN}\x01auth=Bearer ${secret}\x01\x01`).toString('base64'),
  Buffer.from(secret).toString('hex'),
  secret.slice(3, 20),
];

async function start(
  defer: Defer,
  options: ProviderOptions,
  more: Record<string, unknown>,
): Promise<{ provider: Provider; relay: RelayProcess; secrets: () => readonly string[] }> {
  const provider = await startProvider(options);
  defer(() => provider.close());
  provider.add(ANN, { clientSecret: CLIENT_SECRET, refreshToken: REFRESH_TOKEN });
  const proxy = await startTunnelProxy({ kind: 'http', user: 'relay', password: PROXY_PASSWORD });
  defer(() => proxy.close());
  const relay = await startRelay({
    accounts: [provider.entry(ANN, more)],
    caFile: provider.caFile,
    logLevel: 'debug',
    env: { XOAUTH2_RELAY_SMTP_PROXY: proxy.url, HTTP_PROXY: proxy.url, NO_PROXY: '' },
  });
  defer(() => relay.stop());
  const secrets = (): readonly string[] => [
    ...provider.token.issuedTokens(),
    CLIENT_SECRET,
    REFRESH_TOKEN,
    PROXY_PASSWORD,
  ];
  return { provider, relay, secrets };
}

async function everythingTold(relay: RelayProcess): Promise<string> {
  const told: string[] = [];
  for (const path of ['/admin/accounts', '/admin/transactions', '/admin/breakers', '/metrics', '/'])
    told.push(await (await fetch(relay.adminUrl + path, { headers: { connection: 'close' } })).text());
  await relay.stop();
  return [...told, relay.output()].join('\n');
}

/** Sixteen characters in a row of a secret, in any spelling, are too many. */
function assertSilent(told: string, secrets: readonly string[]): void {
  const folded = told.toLowerCase();
  for (const secret of secrets) {
    const inBase64 = ['', 'a', 'ab'].map((before) =>
      Buffer.from(before + secret)
        .toString('base64')
        .slice(4, -4),
    );
    const hex = Buffer.from(secret).toString('hex');
    for (const spelling of [secret, encodeURIComponent(secret), hex, ...inBase64])
      for (let at = 0; at + 16 <= spelling.length; at += 1)
        assert.ok(!folded.includes(spelling.slice(at, at + 16).toLowerCase()), `${spelling}, from ${at}`);
  }
}

test(
  'a submission server that echoes token, grant or client secret at any stage, in any spelling',
  leakless(async (_t, defer) => {
    const { provider, relay, secrets } = await start(defer, {}, { messages_per_minute: 0 });
    const heard: string[] = [];
    const send = async (): Promise<void> => {
      heard.push((await sendMail(relay.smtpPort, { from: ANN, to: ['a@b.example', 'c@d.example'] })).text);
    };
    await send();
    for (const secret of secrets())
      for (const text of spellings(secret)) {
        provider.smtp.script('RCPT', { line: /c@d/ }, { reply: `550 5.1.1 no such user (${text})` });
        await send();
        provider.smtp.script('end-of-data', {}, { reply: [`250-2.0.0 OK ${text}`, `250 2.0.0 ${text} end`] });
        await send();
        provider.smtp.script('MAIL', {}, { reply: `550 5.7.1 refused: ${text}.` });
        await send();
      }
    const all = secrets().flatMap(spellings);
    for (const stage of ['AUTH', 'EHLO', 'greeting'] as const) {
      provider.smtp.disturb('eof');
      const last = `421 4.7.0 ${all[0]}`;
      const reply = [...all.map((text) => `421-4.7.0 ${text}`), last];
      provider.smtp.script(stage, {}, { reply, after: 'close' });
      await send();
      await fetch(`${relay.adminUrl}/admin/reload`, { method: 'POST', headers: { connection: 'close' } });
    }
    assert.ok(
      heard.some((text) => text.includes('no such user ([secret]')),
      heard.slice(0, 5).join('\n'),
    );
    assertSilent(`${heard.join('\n')}\n${await everythingTold(relay)}`, secrets());
  }),
);

test(
  'Graph that echoes the token in its refusals',
  leakless(async (_t, defer) => {
    const { provider, relay, secrets } = await start(
      defer,
      { flavour: 'microsoft', graph: {} },
      { transport: 'graph' },
    );
    const heard: string[] = [];
    const body = `From: ${ANN}\r\nTo: b@example.net\r\n\r\nx\r\n`;
    assert.equal((await sendMail(relay.smtpPort, { from: ANN, body })).code, 250);
    for (const text of secrets().flatMap(spellings)) {
      provider.graph.fault('create', { answer: { status: 400, code: `Error ${text}` } });
      heard.push((await sendMail(relay.smtpPort, { from: ANN, body })).text);
    }
    assert.ok(
      heard.some((text) => text.includes('[secret]')),
      heard[0],
    );
    assertSilent(`${heard.join('\n')}\n${await everythingTold(relay)}`, secrets());
  }),
);
