/** Every row of the verdict table through real sockets: what the client hears, and what state remains. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatReply, type Reply } from '../../src/protocol/reply.ts';
import { leakless } from '../support/leak-check.ts';
import { ANN, type Heard, startRoom } from '../support/relay-room.ts';
import type { Stage as ScriptStage } from '../support/smtp-script.ts';
import { type TokenAnswer, tokenAnswers } from '../support/token-answers.ts';
import { rows } from '../support/verdict-rows.ts';

const SCRIPT_STAGE: Readonly<Record<string, ScriptStage>> = {
  greeting: 'greeting',
  ehlo: 'EHLO',
  auth: 'AUTH',
  mail: 'MAIL',
  rcpt: 'RCPT',
  body: 'DATA',
  end: 'end-of-data',
};

const lastHeard = (heard: Heard): Reply => heard.final ?? heard.data ?? heard.mail;

for (const row of rows) {
  test(
    `at ${row.stage}: ${row.wire.slice(0, 80).replace(/\n/g, ' ')}`,
    leakless(async (_t, defer) => {
      const whileOpening = row.stage === 'greeting' || row.stage === 'ehlo' || row.stage === 'auth';
      const room = await startRoom(defer, {
        users: [ANN, 'ben@example.com'],
        warm: !whileOpening,
        // DATA is only said where BDAT is not.
        provider: row.stage === 'body' ? { rules: { withhold: ['CHUNKING'] } } : {},
        relay: { busyWaitMs: 0 },
      });
      const { provider, upstreams } = room;
      const script = provider.smtp.script(
        SCRIPT_STAGE[row.stage] ?? 'MAIL',
        {
          user: row.stage === 'greeting' || row.stage === 'ehlo' ? undefined : ANN,
          times: Number.POSITIVE_INFINITY,
        } as never,
        { reply: row.wire.split('\n'), ...(row.wire.startsWith('421') ? { after: 'close' as const } : {}) },
      );
      const from = 'ann@example.com';
      const heard = lastHeard(await room.send({ from }));
      const answer = formatReply(heard).replace('boss@example.com', from);
      assert.ok(answer.startsWith(row.answer.replace('boss@example.com', from)), answer);
      assert.equal(provider.messages.length, 0);
      assert.equal(room.records.length, 1);
      // Trouble while opening is told at MAIL, before any body.
      assert.equal(room.records[0]?.bytes === 0, whileOpening);
      // One message of one account opens no breaker.
      assert.equal(upstreams.breakers()[0]?.state, 'closed');
      assert.equal(provider.token.count(ANN), row.renewToken ? 2 : 1);
      const status = upstreams.status(ANN)?.state.status;
      if (row.pause !== undefined) {
        assert.equal(status, row.pause[1]);
        // Paused: the next message is answered at MAIL and the provider is left alone.
        const hits = script.hits;
        if (row.pause[0] === 'sending') assert.equal((await room.send({ from })).mail.code, heard.code);
        assert.equal(script.hits, row.pause[0] === 'sending' ? hits : script.hits);
      }
      // Nobody else is concerned, and when the trouble is over the message goes.
      script.remove();
      assert.equal(lastHeard(await room.send({ from: 'ben@example.com' })).code, 250);
      if (row.pause === undefined) assert.equal(lastHeard(await room.send({ from })).code, 250);
      assert.ok(provider.messages.every((m) => m.user !== ANN || row.pause === undefined));
    }),
  );
}

const tokenRows: readonly [what: string, answer: TokenAnswer, reply: string, status: string][] = [
  ['5xx', tokenAnswers.googleInternalFailure, '451 4.4.3', 'unreachable'],
  ['temporarily_unavailable', tokenAnswers.temporarilyUnavailable, '451 4.4.3', 'unreachable'],
  ['a reset', { after: 'reset' }, '451 4.4.3', 'unreachable'],
  [
    'HTML with 200',
    { headers: { 'content-type': 'text/html' }, body: '<html>hi</html>' },
    '451 4.4.3',
    'unreachable',
  ],
  [
    '429',
    { status: 429, headers: { 'retry-after': '60' }, body: 'Too Many Requests' },
    '451 4.4.3',
    'throttled',
  ],
  ['AADSTS50196', tokenAnswers.microsoftLoop, '451 4.4.3', 'throttled'],
  ['invalid_grant', tokenAnswers.googleRevoked, '451 4.7.0', 'needs_consent'],
  ['interaction_required', tokenAnswers.microsoftMfa, '451 4.7.0', 'needs_consent'],
  ['invalid_client', tokenAnswers.googleClientNotFound, '451 4.7.0', 'misconfigured'],
  ['a bad secret', tokenAnswers.microsoftBadSecret, '451 4.7.0', 'misconfigured'],
  ['delegation missing', tokenAnswers.googleDelegationMissing, '451 4.7.0', 'misconfigured'],
  ['invalid_scope', tokenAnswers.invalidScope, '451 4.3.5', 'misconfigured'],
];
for (const [what, answer, reply, status] of tokenRows) {
  test(
    `token endpoint: ${what}`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, { users: [ANN, 'ben@example.com'], warm: false });
      room.provider.token.always(answer, ANN);
      const heard = await room.send();
      assert.ok(formatReply(heard.mail).startsWith(reply), formatReply(heard.mail));
      // The connection may have been opened ahead, as far as EHLO.
      assert.equal(room.provider.smtp.logins(), 0);
      assert.equal(room.tokens.statusOf(ANN)?.state.status, status);
      assert.equal((await room.send({ from: 'ben@example.com' })).final?.code, 250);
    }),
  );
}

test(
  'while the token endpoint fails, a live connection goes on being used',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    room.provider.token.always(tokenAnswers.googleRevoked);
    room.tokens.forget(ANN);
    assert.equal((await room.send()).final?.code, 250);
    assert.equal((await room.send()).final?.code, 250);
  }),
);
