/** Answers that are cut, senseless or lie about where to go, at every call: each message is delivered once all the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pause } from '../../../src/clock.ts';
import { mailTo, startGraphRoom } from '../../support/graph-room.ts';
import type { GraphCallName } from '../../support/graph-server.ts';
import { leakless } from '../../support/leak-check.ts';

const BOB = 'bob@example.net';
const JSON_HEAD = 'content-type: application/json\r\n';
const TORN: Readonly<Record<string, string>> = {
  'half a status line': 'HTTP/1.1 20',
  'no HTTP': 'garbage\r\n\r\n',
  'half a body': `HTTP/1.1 201 Created\r\n${JSON_HEAD}content-length: 500\r\n\r\n{"id":"I-`,
  'an empty object': `HTTP/1.1 201 Created\r\n${JSON_HEAD}content-length: 2\r\n\r\n{}`,
  'no JSON': `HTTP/1.1 200 OK\r\n${JSON_HEAD}content-length: 6\r\n\r\n<html>`,
  'a 202 that is cut': 'HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\nabc',
  'a redirect':
    'HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n',
  'a 502 of a gateway': 'HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nsorry',
};
/** What a client does: it retries what hears 4xx, after a while. */
const MOST_RETRIES = 8;
const RETRY_MS = 10_000;

for (const permissions of ['read_write', 'send'] as const)
  for (const [name, torn] of Object.entries(TORN)) {
    const calls: readonly GraphCallName[] =
      permissions === 'send' ? ['send_mail'] : ['create', 'send', 'look', 'search', 'delete'];
    test(
      `${permissions}: ${name} to ${calls.join(', ')}`,
      leakless(async (_t, defer) => {
        const room = await startGraphRoom(defer, { permissions, speed: 500 });
        for (const call of calls)
          for (const carriedOut of [true, false])
            for (const times of [1, 3]) {
              const id = `${call}-${carriedOut}-${times}`;
              // These only come where a send, or a create, was unclear before.
              if (call === 'look' || call === 'delete')
                room.server.fault('send', { carriedOut, answer: 'reset' });
              if (call === 'search') room.server.fault('create', { carriedOut, answer: 'reset' });
              room.server.fault(call, { carriedOut, answer: { torn } }, times);
              let taken = false;
              for (let retries = 0; retries < MOST_RETRIES && !taken; retries++) {
                const ending = await room.send(mailTo(BOB, id), [BOB]);
                taken = ending.kind === 'taken';
                if (!taken) await pause(room.clock, RETRY_MS);
                if (ending.kind === 'refused')
                  assert.ok(ending.verdict.answer.code < 500, `${id}: ${ending.verdict.answer.text}`);
              }
              room.server.clearFaults();
              const copies = room.server.delivered.filter(
                (d) => d.messageId === `<${id}@client.test>`,
              ).length;
              assert.ok(copies <= 1, `${id}: ${copies} copies`);
              if (taken) assert.equal(copies, 1, `${id}: 250 and lost`);
              // In one call a person decides.
              else assert.equal(permissions, 'send', `${id}: not taken`);
            }
        assert.equal(room.tokens.renewed, 0);
      }),
    );
  }
