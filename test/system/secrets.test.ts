import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeted, sendMail } from '../support/dialogue.ts';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { xoauth2Blob } from '../support/smtp-client.ts';
import { tokenAnswers } from '../support/token-answers.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@gmail.example';
const BOB = 'bob@gmail.example';
const PASSWORD = 'a-planted-client-password';

test(
  'no secret appears in the log of a debug-level run or in any answer, in any encoding',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [] });
    defer(() => provider.close());
    provider.add(ANN, { clientSecret: 'planted-client-secret-ann', refreshToken: 'planted-refresh-ann' });
    provider.add(BOB, { clientSecret: 'planted-client-secret-bob', refreshToken: 'planted-refresh-bob' });
    const issued: string[] = [];
    const accounts = [provider.entry(ANN), provider.entry(BOB, { password: { env: 'BOBS_PASSWORD' } })];
    const relay = await startRelay({
      accounts,
      caFile: provider.caFile,
      env: { BOBS_PASSWORD: PASSWORD },
      logLevel: 'debug',
    });
    defer(() => relay.stop());

    const heard: string[] = [];
    const note = async (reply: Promise<{ text: string }>): Promise<void> =>
      void heard.push((await reply).text);
    await note(sendMail(relay.smtpPort, { from: ANN }));
    const plain = (password: string): string => Buffer.from(`\0${BOB}\0${password}`).toString('base64');
    for (const password of [PASSWORD, `${PASSWORD}-wrong`]) {
      const client = await greeted(relay.smtpPort);
      await note(client.send(`AUTH PLAIN ${plain(password)}`));
      await note(client.send(`MAIL FROM:<${BOB}>`));
      client.end();
    }
    // Every way an error can carry what it was about: refused token, revoked grant, bad answers, bad file.
    provider.token.forgetAccessTokens(ANN);
    provider.smtp.disturb('eof');
    await note(sendMail(relay.smtpPort, { from: ANN }));
    for (const answer of [
      tokenAnswers.truncated,
      tokenAnswers.okHtml,
      { patch: { expires_in: 'x' } },
      { patch: { access_token: 'planted bad\x01token' } },
    ]) {
      provider.token.queue(answer);
      await fetch(`${relay.adminUrl}/admin/accounts/${ANN}/refresh`, {
        method: 'POST',
        headers: { connection: 'close' },
      })
        .then((r) => r.text())
        .then((text) => heard.push(text));
    }
    provider.token.revoke(BOB);
    await fetch(`${relay.adminUrl}/admin/accounts/${BOB}/refresh`, {
      method: 'POST',
      headers: { connection: 'close' },
    })
      .then((r) => r.text())
      .then((text) => heard.push(text));
    await relay.reload([
      ...accounts,
      { ...provider.entry(ANN), email: 'x', refresh_token: 'planted-refresh-ann' },
    ]);
    await relay.reload(`{ "accounts": [ { "email": "${ANN}", "client_secret": "planted-client-secret-ann" `);
    for (const path of [
      '/admin/accounts',
      `/admin/accounts/${ANN}`,
      '/admin/tokens',
      '/admin/transactions',
      '/admin/breakers',
      '/admin/series',
      '/metrics',
      '/',
      '/healthz',
      '/readyz',
      '/admin/openapi.json',
      '/admin/nothing',
    ]) {
      const response = await fetch(relay.adminUrl + path, { headers: { connection: 'close' } });
      heard.push(await response.text());
    }
    await relay.stop();

    for (const request of provider.token.requests) {
      for (const key of ['refresh_token', 'client_secret']) issued.push(request.form.get(key) ?? '');
    }
    const secrets = [
      ...provider.token.issuedTokens(),
      ...issued,
      PASSWORD,
      plain(PASSWORD),
      plain(`${PASSWORD}-wrong`),
      'planted-client-secret-ann',
      'planted-client-secret-bob',
      'planted bad',
      ...provider.token.issuedTokens().flatMap((token) => [xoauth2Blob(ANN, token), xoauth2Blob(BOB, token)]),
    ].filter((secret) => secret !== '');
    assert.ok(provider.token.issuedTokens().length >= 3);
    assert.ok(relay.lines.length > 10);
    for (const [where, text] of [
      ['log', relay.output()],
      ['answers', heard.join('\n')],
    ] as const) {
      for (const secret of new Set(secrets)) {
        for (const form of [
          secret,
          Buffer.from(secret).toString('base64').replace(/=+$/, ''),
          encodeURIComponent(secret),
        ]) {
          // A third of a token is too much as well.
          const part = form.length > 60 ? form.slice(0, Math.ceil(form.length / 3)) : form;
          assert.ok(!text.includes(part), `${where} shows ${secret.slice(0, 12)}…`);
        }
      }
    }
    await waitFor(() => provider.smtp.open === 0, { what: 'no open connection' });
  }),
);
