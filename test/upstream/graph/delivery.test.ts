/** Delivery by Graph: at most once, whatever the answers, and a clear verdict. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '../../../src/log.ts';
import { formatReply } from '../../../src/protocol/reply.ts';
import { type Claim, ledgerKey } from '../../../src/upstream/graph/ledger.ts';
import { createLocalLedger } from '../../../src/upstream/graph/ledger-local.ts';
import type { GraphEnding } from '../../../src/upstream/graph/outcome.ts';
import { ANN, GOOD, mailTo, startGraphRoom } from '../../support/graph-room.ts';
import type { GraphFault } from '../../support/graph-server.ts';
import { leakless } from '../../support/leak-check.ts';
import { waitFor } from '../../support/wait-for.ts';

const BOB = 'bob@example.net';
const [CAL, DAN, EVE] = ['cal@example.net', 'dan@example.net', 'eve@example.net'];
const heard = (d: GraphEnding): string => formatReply(d.kind === 'taken' ? d.reply : d.verdict.answer);

test(
  'a draft is created and sent: two requests as Graph wants them',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const result = await room.send(mailTo(BOB, 'plain'), [BOB]);
    assert.equal(heard(result), '250 2.0.0 OK <plain@client.test> [graph]');
    assert.deepEqual(
      room.server.requests.map((r) => [r.call, r.status]),
      [
        ['create', 201],
        ['send', 202],
      ],
    );
    const [create, send] = room.server.requests;
    assert.equal(create?.headers['content-type'], 'text/plain');
    assert.equal(create?.headers.prefer, 'IdType="ImmutableId"');
    assert.match(String(create?.headers['client-request-id']), /^[0-9a-f-]{36}$/);
    assert.notEqual(create?.headers['client-request-id'], send?.headers['client-request-id']);
    assert.equal(send?.headers['content-length'], '0');
    assert.equal(room.server.delivered[0]?.text, mailTo(BOB, 'plain'));
    assert.deepEqual(room.server.drafts, []);
  }),
);

const ANSWERS: readonly GraphFault['answer'][] = [
  { status: 504 },
  { status: 503, code: 'ErrorServerBusy' },
  { status: 500, code: 'UnknownError' },
  { status: 429, code: 'ApplicationThrottled', retryAfter: '1' },
  { status: 200 },
  'reset',
  'silence',
];

for (const answer of ANSWERS) {
  const name = typeof answer === 'string' ? answer : 'status' in answer ? String(answer.status) : answer.torn;
  test(
    `${name} to the send although it was sent: 250, not sent again`,
    leakless(async (_t, defer) => {
      const room = await startGraphRoom(defer);
      room.server.fault('send', { carriedOut: true, answer });
      assert.match(heard(await room.send(mailTo(BOB, 'once'), [BOB])), /^250 2\.0\.0 OK <once@client\.test>/);
      assert.equal(room.server.delivered.length, 1);
    }),
  );

  test(
    `${name} to the send and not sent: the same draft is sent again`,
    leakless(async (_t, defer) => {
      const room = await startGraphRoom(defer);
      room.server.fault('send', { answer });
      assert.match(heard(await room.send(mailTo(BOB, 'again'), [BOB])), /^250 /);
      assert.equal(room.server.delivered.length, 1);
      assert.equal(room.server.count('create'), 1);
      assert.equal(room.server.count('send'), 2);
    }),
  );

  test(
    `${name} to the create although the draft was made: that draft is sent`,
    leakless(async (_t, defer) => {
      const room = await startGraphRoom(defer);
      room.server.fault('create', { carriedOut: true, answer });
      let last = heard(await room.send(mailTo(BOB, 'draft'), [BOB]));
      if (!last.startsWith('250')) last = heard(await room.send(mailTo(BOB, 'draft'), [BOB]));
      assert.match(last, /^250 /);
      assert.equal(room.server.delivered.length, 1);
      await room.restart();
      assert.deepEqual(room.server.drafts, [], 'no draft is left over');
    }),
  );

  test(
    `${name} to the create and no draft: the message waits, its retry is sent`,
    leakless(async (_t, defer) => {
      const room = await startGraphRoom(defer);
      room.server.fault('create', { answer });
      const first = heard(await room.send(mailTo(BOB, 'none'), [BOB]));
      if (name === '429') assert.match(first, /^250 /);
      else {
        assert.match(first, /^451 4\./);
        assert.match(heard(await room.send(mailTo(BOB, 'none'), [BOB])), /^250 /);
      }
      assert.equal(room.server.delivered.length, 1);
    }),
  );
}

test(
  'a 504 whose message is sent while we look: 250 once it is seen',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('send', { carriedOut: true, lateMs: 30, answer: { status: 504 } });
    assert.match(heard(await room.send(mailTo(BOB, 'late'), [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'sent and not to be found for a while: 250 once it is',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { rules: { hiddenMs: 100 } });
    room.server.fault('send', { carriedOut: true, answer: 'reset' });
    assert.match(heard(await room.send(mailTo(BOB, 'hidden'), [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'sent and not to be found for long: unknown, remembered, and 250 at the retry after a restart',
  leakless(async (t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'graph-ledger-'));
    t.after(() => rm(directory, { recursive: true }));
    const room = await startGraphRoom(defer, { rules: { hiddenMs: 1_500 }, directory });
    room.server.fault('send', { carriedOut: true, answer: { status: 504 } });
    const first = await room.send(mailTo(BOB, 'long'), [BOB]);
    assert.match(heard(first), /^451 4\.4\.2 delivery status unknown/);
    assert.equal(first.kind === 'refused' && first.verdict.class, 'unknown');
    await room.restart();
    let last = '';
    for (let i = 0; i < 5 && !last.startsWith('250'); i++)
      last = heard(await room.send(mailTo(BOB, 'long'), [BOB]));
    assert.match(last, /^250 /);
    assert.equal(room.server.delivered.length, 1);
    assert.equal(room.server.count('create'), 1);
  }),
);

test(
  'the process ends before the send is answered: the retry sends that draft, once',
  leakless(async (t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'graph-ledger-'));
    t.after(() => rm(directory, { recursive: true }));
    const room = await startGraphRoom(defer, { directory });
    room.server.fault('send', { answer: 'silence' });
    room.server.rules.chaos = (call) => (call === 'look' ? { answer: { status: 503 } } : undefined);
    assert.match(heard(await room.send(mailTo(BOB, 'killed'), [BOB])), /^451 4\.4\.2/);
    room.server.rules.chaos = undefined;
    await room.restart();
    assert.match(heard(await room.send(mailTo(BOB, 'killed'), [BOB])), /^250 /);
    assert.equal(room.server.count('create'), 1);
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'the very same message again, after a restart too: 250 and nothing is sent',
  leakless(async (t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'graph-ledger-'));
    t.after(() => rm(directory, { recursive: true }));
    const room = await startGraphRoom(defer, { directory });
    await room.send(mailTo(BOB, 'same'), [BOB]);
    await room.restart();
    const again = `Received: by relay; later\r\n${mailTo(BOB, 'same')}`;
    assert.match(heard(await room.send(again, [BOB])), /^250 2\.0\.0 OK <same@client\.test>/);
    assert.equal(room.server.delivered.length, 1);
    await room.send(mailTo(BOB, 'same', 'Cc: eve@example.net\r\n'), [BOB, 'eve@example.net']);
    assert.equal(room.server.delivered.length, 2, 'other recipients are another message');
  }),
);

test(
  'without a Message-ID nothing that was sent is remembered: a device says the same thing every hour',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const alarm = `From: ${ANN}\r\nTo: ${BOB}\r\nSubject: paper jam\r\n\r\ntray 2\r\n`;
    for (let i = 1; i <= 2; i++) {
      assert.match(heard(await room.send(alarm, [BOB])), /^250 /);
      assert.equal(room.server.delivered.length, i);
    }
    room.server.fault('send', { carriedOut: true, answer: 'reset' });
    room.server.rules.hiddenMs = 1_500;
    assert.match(heard(await room.send(alarm, [BOB])), /^451 4\.4\.2/);
    let last = '';
    for (let i = 0; i < 5 && !last.startsWith('250'); i++) last = heard(await room.send(alarm, [BOB]));
    assert.match(last, /^250 /);
    assert.equal(room.server.delivered.length, 3, 'what was unclear is');
  }),
);

test(
  'two connections hand the same message in at once: it is sent once',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { rules: { latencyMs: 20 } });
    const both = await Promise.all([1, 2].map(() => room.send(mailTo(BOB, 'twin'), [BOB])));
    assert.equal(room.server.delivered.length, 1);
    assert.deepEqual(both.map((d) => heard(d).slice(0, 9)).sort(), ['250 2.0.0', '451 4.4.2']);
  }),
);

test(
  'somebody works on this very message for longer than a moment: it waits for its retry',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const message = mailTo(BOB, 'long');
    const claim = await room.ledger.claim(ledgerKey([BOB], Buffer.from(message)));
    assert.ok(claim !== 'busy');
    assert.match(heard(await room.send(message, [BOB])), /^451 4\.4\.2 .*being sent now/);
    const since = room.clock.monotonic();
    assert.match(heard(await room.send(message, [BOB], { gone: () => true })), /^451 /);
    assert.ok(room.clock.monotonic() - since < 1_000, 'nobody waits for who has left');
    await claim.release();
    assert.match(heard(await room.send(message, [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'two attempts at once, each to some of its recipients: who is in both gets it once',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { rules: { latencyMs: 20 } });
    const both = [[BOB, CAL], [CAL, DAN], [DAN], [EVE]].map((to) =>
      room.send(mailTo(BOB, 'split').replace(`To: ${BOB}\r\n`, ''), to),
    );
    const answers = (await Promise.all(both)).map((d) => heard(d).slice(0, 9));
    assert.deepEqual(answers, ['250 2.0.0', '451 4.4.2', '250 2.0.0', '250 2.0.0']);
    assert.deepEqual(room.server.delivered.map((d) => d.recipients.join()).sort(), [
      `${BOB},${CAL}`,
      DAN,
      EVE,
    ]);
  }),
);

test(
  'a client whose time was up before the draft was sent: its retry sends it at once',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const message = mailTo(BOB, 'hurried');
    assert.match(
      heard(await room.send(message, [BOB], { gone: () => room.server.drafts.length > 0 })),
      /^451 /,
    );
    const since = room.clock.monotonic();
    assert.match(heard(await room.send(message, [BOB])), /^250 /);
    assert.ok(room.clock.monotonic() - since < 5_000, 'nothing was begun that could still be under way');
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  '202 with Retry-After is a success; the next message waits',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('send', { carriedOut: true, answer: { status: 202, retryAfter: '2' } });
    assert.match(heard(await room.send(mailTo(BOB, 'slow'), [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
    assert.ok(room.pacing.pausedFor({ app: 'app-1', mailbox: ANN }) > 500);
  }),
);

test(
  'a token that Graph refuses is renewed once',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.known.set('smtp', { ...GOOD, audience: 'https://outlook.office.com' });
    room.tokens.current = 'smtp';
    const refused = await room.send(mailTo(BOB, 'audience'), [BOB]);
    assert.match(heard(refused), /^451 4\.7\.0 .*InvalidAuthenticationToken/);
    assert.equal(room.tokens.renewed, 1);
    assert.equal(room.server.count('create'), 2);
    assert.equal(refused.kind === 'refused' && refused.verdict.pause?.status, 'needs_consent');
    room.tokens.broken = true;
    assert.match(heard(await room.send(mailTo(BOB, 'audience'), [BOB])), /^451 4\.7\.0/);
  }),
);

test(
  'a missing permission is named; the draft does not stay behind',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.known.set('good', { ...GOOD, scopes: ['Mail.ReadWrite'] });
    const refused = await room.send(mailTo(BOB, 'perm'), [BOB]);
    assert.match(heard(refused), /^451 4\.7\.0 .*ErrorAccessDenied/);
    assert.equal(refused.kind === 'refused' && refused.verdict.cause, 'graph-no-send');
    assert.deepEqual(room.server.drafts, []);
    room.known.set('good', { ...GOOD, scopes: ['Mail.Send'] });
    const other = await room.send(mailTo(BOB, 'perm'), [BOB]);
    assert.equal(other.kind === 'refused' && other.verdict.cause, 'graph-no-read-write');
  }),
);

test(
  'a message without a Message-ID whose draft is answered with all of its text: 250, and no look for it',
  leakless(async (_t, defer) => {
    // Slow enough for a busy machine to pass 10 MB about in the time of a request.
    const room = await startGraphRoom(defer, { speed: 5 });
    const line = `${'"\u0001'.repeat(38)}\r\n`;
    const alarm = `From: ${ANN}\r\nTo: ${BOB}\r\nSubject: long\r\n\r\n${line.repeat(35_000)}`;
    assert.match(heard(await room.send(alarm, [BOB])), /^250 /);
    assert.deepEqual(
      room.server.requests.map((r) => r.call),
      ['create', 'send'],
    );
  }),
);

test(
  'a success that is none: what it holds of the message is told to nobody',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const torn = 'HTTP/1.1 201 Created\r\nContent-Length: 22\r\n\r\n{"body":"hello there"}';
    room.server.fault('create', { answer: { torn } });
    const said = heard(await room.send(`From: ${ANN}\r\nTo: ${BOB}\r\n\r\nhello there\r\n`, [BOB]));
    assert.match(said, /^451 4\.3\.5 /);
    assert.doesNotMatch(said, /hello/);
  }),
);

test(
  'too large: 552, and a success that is none is not taken for one',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const large = `${mailTo(BOB, 'large')}${'x'.repeat(76)}\r\n`.replace(
      /x{76}\r\n$/,
      `${'x'.repeat(76)}\r\n`.repeat(42_000),
    );
    assert.match(heard(await room.send(large, [BOB])), /^552 5\.3\.4/);
    room.server.rules.okForTooLarge = true;
    assert.match(heard(await room.send(large, [BOB])), /^451 4\.3\.5/);
    assert.equal(room.server.delivered.length, 0);
  }),
);

test(
  'the draft cannot be noted: nothing is sent and the message waits',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, {
      ledger: () => ({
        isOfMany: false,
        open: async () => undefined,
        close: async () => undefined,
        ownerOf: async () => undefined,
        isShared: async () => false,
        relatives: async () => [],
        hasAny: async () => false,
        hasOpen: async () => false,
        list: async () => [],
        claim: async () => ({
          known: undefined,
          note: () => Promise.reject(new Error('disk full')),
          forget: async () => true,
          close: async () => true,
          notHeardSince: async ({ marks }) => marks,
          release: async () => undefined,
        }),
      }),
    });
    assert.match(heard(await room.send(mailTo(BOB, 'disk'), [BOB])), /^451 4\.3\.0/);
    assert.equal(room.server.delivered.length, 0);
    assert.deepEqual(room.server.drafts, []);
  }),
);

test(
  'the draft was noted and nobody heard so: the retry finds it and sends it',
  leakless(async (_t, defer) => {
    let isSilent = true;
    const room = await startGraphRoom(defer, {
      ledger: () => {
        const ledger = createLocalLedger({ log: silentLog });
        const unheard = (claim: Claim): Claim => {
          let isDraft = false;
          return {
            ...claim,
            async note(entry) {
              await claim.note(entry);
              isDraft ||= entry.state === 'draft';
              if (isDraft) throw new Error('no answer');
            },
            forget: async () => false,
          };
        };
        return {
          ...ledger,
          claim: async (key) => {
            const claim = await ledger.claim(key);
            return claim === 'busy' || !isSilent ? claim : unheard(claim);
          },
        };
      },
    });
    assert.match(heard(await room.send(mailTo(BOB, 'silence'), [BOB])), /^451 4\.3\.0/);
    isSilent = false;
    assert.match(heard(await room.send(mailTo(BOB, 'silence'), [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
    assert.deepEqual(room.server.drafts, []);
  }),
);

test(
  'that a draft was made cannot be noted as the process began: none stays, and nothing is sent',
  leakless(async (_t, defer) => {
    const real = createLocalLedger({ log: silentLog });
    let broken = true;
    const room = await startGraphRoom(defer, {
      ledger: () => ({
        ...real,
        async claim(key) {
          const claim = await real.claim(key);
          if (claim === 'busy') return claim;
          const note: typeof claim.note = (entry) =>
            broken && entry.state === 'creating' ? Promise.reject(new Error('away')) : claim.note(entry);
          return { ...claim, note };
        },
      }),
    });
    assert.match(heard(await room.send(mailTo(BOB, 'away'), [BOB])), /^451 4\.3\.0/);
    assert.deepEqual([room.server.delivered.length, room.server.drafts], [0, []]);
    broken = false;
    assert.match(heard(await room.send(mailTo(BOB, 'away'), [BOB])), /^250 /);
    assert.deepEqual([room.server.delivered.length, room.server.drafts], [1, []]);
  }),
);

test(
  'what cannot be sent leaves nothing behind that is looked for',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('create', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    assert.match(heard(await room.send(mailTo(BOB, 'no'), [BOB])), /^451 4\.7\.0/);
    assert.deepEqual(await room.ledger.list(), []);
  }),
);

test(
  'the client left before the send: nothing is sent, the retry sends that draft',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    let asked = 0;
    const gone = (): boolean => ++asked > 1;
    await room.send(mailTo(BOB, 'gone'), [BOB], { gone });
    assert.equal(room.server.delivered.length, 0);
    assert.match(heard(await room.send(mailTo(BOB, 'gone'), [BOB])), /^250 /);
    assert.equal(room.server.count('create'), 1);
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'Graph cannot be reached: 451, and the breaker opens',
  leakless(async (_t, defer) => {
    // Nothing waits here, and the breaker must not have rested meanwhile.
    const room = await startGraphRoom(defer, { speed: 1 });
    await room.server.close();
    for (let i = 0; i < 14; i++)
      assert.match(heard(await room.send(mailTo(BOB, `down${i}`), [BOB])), /^451 4\.(4\.1|3\.2)/);
    assert.equal(room.endpoint.breaker.state, 'open');
    assert.equal(room.calls.length, 10, 'an open breaker asks no more');
  }),
);

test(
  'one message in trouble, looked at many times, opens no breaker; the next one goes',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('send', { carriedOut: true, answer: { status: 504 } });
    room.server.fault('look', { answer: { status: 503 } }, 100);
    assert.match(heard(await room.send(mailTo(BOB, 'trouble'), [BOB])), /^451 4\.4\.2/);
    assert.ok(room.server.count('look') >= 5);
    assert.equal(room.endpoint.breaker.state, 'closed');
    assert.match(heard(await room.send(mailTo(BOB, 'next'), [BOB])), /^250 /);
  }),
);

test(
  'while the breaker is open what is unclear is looked at all the same',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('send', { carriedOut: true, answer: 'reset' });
    room.server.fault('look', { answer: { status: 503 } }, 4);
    const unclear = room.send(mailTo(BOB, 'open'), [BOB]);
    await waitFor(() => room.server.count('look') > 0, { what: 'the first look' });
    room.server.fault('create', { answer: 'reset' }, 20);
    await Promise.all(Array.from({ length: 12 }, (_, i) => room.send(mailTo(BOB, `fault${i}`), [BOB])));
    assert.ok(room.endpoint.breaker.openedAt !== undefined);
    assert.match(heard(await unclear), /^250 /);
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'the token is refused between draft and send: the account’s trouble at once, and the draft goes later',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('send', { answer: { status: 401, code: 'InvalidAuthenticationToken' } }, 2);
    room.server.fault('look', { answer: { status: 401, code: 'InvalidAuthenticationToken' } }, 2);
    const ending = await room.send(mailTo(BOB, 'revoked'), [BOB]);
    assert.match(heard(ending), /^451 4\.7\.0/);
    assert.equal(ending.kind === 'refused' && ending.verdict.pause?.status, 'needs_consent');
    assert.equal(room.server.count('look'), 2, 'a refused look is not repeated for 20 s');
    assert.match(heard(await room.send(mailTo(BOB, 'revoked'), [BOB])), /^250 /);
    assert.equal(room.server.count('create'), 1);
    assert.equal(room.server.delivered.length, 1);
  }),
);

test(
  'two messages share Message-ID and recipients: neither takes the other’s draft or copy for its own',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const first = mailTo(BOB, 'same');
    const second = first.replace('hello', 'another body');
    // The first is unclear, and its draft still looks unsent.
    room.server.fault('send', { answer: 'reset' });
    room.server.fault('look', { answer: { status: 404 } }, 100);
    assert.match(heard(await room.send(first, [BOB])), /^451 4\.4\.2/);
    room.server.fault('create', { answer: 'reset' });
    assert.match(heard(await room.send(second, [BOB])), /^451 /);
    assert.match(heard(await room.send(second, [BOB])), /^250 /);
    assert.deepEqual(
      room.server.delivered.map((d) => d.text),
      [second],
      'not the draft of the first',
    );
    assert.match(
      heard(await room.send(first, [BOB])),
      /^451 4\.4\.2/,
      'the copy of the second proves nothing of the first',
    );
  }),
);

for (const answer of ANSWERS) {
  const name = typeof answer === 'string' ? answer : 'status' in answer ? String(answer.status) : answer.torn;
  test(
    `one call: after ${name} nobody knows; never sent again`,
    leakless(async (t, defer) => {
      const directory = await mkdtemp(join(tmpdir(), 'graph-ledger-'));
      t.after(() => rm(directory, { recursive: true }));
      const room = await startGraphRoom(defer, { permissions: 'send', directory });
      room.server.fault('send_mail', { carriedOut: true, answer });
      assert.match(heard(await room.send(mailTo(BOB, 'one'), [BOB])), /^451 4\.4\.2 delivery status unknown/);
      await room.restart();
      assert.match(heard(await room.send(mailTo(BOB, 'one'), [BOB])), /^451 4\.4\.2 delivery status unknown/);
      assert.equal(room.server.count('send_mail'), 1);
    }),
  );
}

test(
  'one call: sent, and again only once; a refusal leaves nothing behind',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { permissions: 'send' });
    assert.match(
      heard(await room.send(mailTo(BOB, 'only'), [BOB])),
      /^250 2\.0\.0 OK <only@client\.test> \[graph\]/,
    );
    assert.match(heard(await room.send(mailTo(BOB, 'only'), [BOB])), /^250 /);
    assert.equal(room.server.count('send_mail'), 1);
    room.server.fault('send_mail', { answer: { status: 400, code: 'ErrorInvalidRecipients' } });
    assert.match(heard(await room.send(mailTo(BOB, 'bad'), [BOB])), /^550 5\.1\.3/);
    assert.match(heard(await room.send(mailTo(BOB, 'bad'), [BOB])), /^250 /);
  }),
);

test(
  'refused, and that the draft was deleted nobody heard: the retry is sent',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    room.server.fault('send', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    room.server.fault('delete', { carriedOut: true, answer: 'reset' });
    assert.match(heard(await room.send(mailTo(BOB, 'later'), [BOB])), /^451 4\.7\.0/);
    assert.match(heard(await room.send(mailTo(BOB, 'later'), [BOB])), /^250 /);
    assert.equal(room.server.delivered.length, 1);
    assert.deepEqual(room.server.drafts, []);
  }),
);

test(
  'no more than 4 requests at once, whoever sends',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { rules: { latencyMs: 5 }, speed: 1 });
    const ids = Array.from({ length: 30 }, (_, i) => `many${i}`);
    const all = await Promise.all(ids.map((id) => room.send(mailTo(BOB, id), [BOB])));
    assert.ok(all.every((d) => d.kind === 'taken'));
    assert.equal(room.server.maxAtOnce, 4);
    assert.ok(room.server.requests.every((r) => r.status !== 429));
  }),
);

test(
  'throttled without a time, or for none at all, while the draft is made all the same: few drafts, then the client waits',
  leakless(async (_t, defer) => {
    for (const retryAfter of ['0', 'soon', 'Wed, 21 Oct 2015 07:28:00 GMT']) {
      const room = await startGraphRoom(defer);
      for (const status of [429, 403]) {
        room.server.clearFaults();
        room.server.fault(
          'create',
          { carriedOut: true, answer: { status, code: 'ApplicationThrottled', retryAfter } },
          100_000,
        );
        const before = room.server.count('create');
        assert.match(heard(await room.send(mailTo(BOB, `t${status}`), [BOB])), /^451 4\.7\.1/);
        assert.ok(room.server.count('create') - before <= 5, `${room.server.count('create')} drafts`);
      }
      assert.equal(room.server.delivered.length, 0);
      room.server.clearFaults();
      const before = room.server.count('create');
      assert.match(heard(await room.send(mailTo(BOB, 't429'), [BOB])), /^250/);
      assert.equal(room.server.delivered.length, 1);
      // What nobody noted could be another message's.
      assert.equal(room.server.count('create'), before + 1, 'none of the drafts that were made is sent');
      await waitFor(() => room.server.drafts.length <= 5, { what: 'those of the other message alone' });
    }
  }),
);
