/** Who hears what of the recipients, and in how many round trips; what happens when an envelope is repeated. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { type Heard, type RoomOptions, startRoom } from '../support/relay-room.ts';

const LOST = { after: 'reset' } as const;
const codes = (heard: Heard): number[] => heard.rcpts.map((r) => r.code);

const servers: readonly [string, RoomOptions, number][] = [
  ['BDAT', {}, 2],
  ['DATA', { provider: { rules: { withhold: ['CHUNKING'] } } }, 3],
  ['Microsoft', { provider: { flavour: 'microsoft' } }, 3],
];
for (const [name, options, flights] of servers) {
  test(
    `50 recipients that come together take ${flights} flights (${name})`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, options);
      const to = Array.from({ length: 50 }, (_, i) => `r${i}@example.net`);
      room.provider.smtp.script('RCPT', { line: /r7@/ }, { reply: '550 5.1.1 no such user' });
      const heard = await room.send({ to, together: true });
      assert.deepEqual(
        codes(heard),
        to.map((_, i) => (i === 7 ? 550 : 250)),
      );
      assert.equal(heard.final?.code, 250);
      assert.equal(room.provider.messages[0]?.recipients.length, 49);
      assert.equal(room.provider.messages[0]?.flights, flights);
      assert.equal(room.records[0]?.flights, flights);
    }),
  );
}

test(
  'a bad first recipient that comes with good ones does not take them with it',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    room.provider.smtp.script('RCPT', { line: /bad@/ }, { reply: '550 5.1.1 no such user' });
    const heard = await room.send({ to: ['bad@x.net', 'a@x.net', 'b@x.net'], together: true });
    assert.deepEqual(codes(heard), [550, 250, 250]);
    assert.equal(heard.final?.code, 250);
    assert.deepEqual(
      room.provider.messages[0]?.recipients.map((r) => r.address),
      ['a@x.net', 'b@x.net'],
    );
  }),
);

test(
  'whoever comes after the provider has refused all it was asked for is asked for too, and gets the message',
  leakless(async (_t, defer) => {
    for (const octets of [10, 2_000_000]) {
      const room = await startRoom(defer);
      room.provider.smtp.script('RCPT', { line: /bad/, times: 9 }, { reply: '450 4.2.1 not now' });
      room.provider.smtp.script('RCPT', { line: /c@/ }, { reply: '550 5.1.1 no such user' });
      const body = `Subject: hi\r\n\r\n${'x'
        .repeat(60)
        .concat('\r\n')
        .repeat(octets / 60)}`;
      const to = ['bad1@x.net', 'bad2@x.net', 'a@x.net', 'c@x.net', 'b@x.net'];
      const heard = await room.send({ to, together: 2, body });
      assert.deepEqual(codes(heard), [450, 450, 250, 550, 250]);
      assert.equal(heard.final?.code, 250);
      const alone = await room.send({ to: to.slice(0, 3), together: 2, body });
      assert.deepEqual([...codes(alone), alone.final?.code], [450, 450, 250, 250]);
      assert.deepEqual(
        room.provider.messages.map((m) => m.recipients.map((r) => r.address)),
        [['a@x.net', 'b@x.net'], ['a@x.net']],
      );
    }
  }),
);

test(
  'first_recipient live: the provider is asked for the first recipient too, one round trip more',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer, { account: { first_recipient: 'live' } });
    room.provider.smtp.script('RCPT', { line: /bad@/, times: 2 }, { reply: '550 5.1.1 no such user' });
    const heard = await room.send({ to: ['bad@x.net', 'a@x.net', 'b@x.net'] });
    assert.deepEqual(codes(heard), [550, 250, 250]);
    assert.equal(heard.final?.code, 250);
    assert.equal(heard.rcpts[0]?.text, 'no such user');
    assert.deepEqual(codes(await room.send({ to: ['bad@x.net'] })), [550]);
    assert.equal((await room.send()).final?.code, 250);
    assert.equal(room.provider.messages[1]?.flights, 2);
  }),
);

test(
  'an envelope that is repeated must be accepted by all who heard 250, or nobody gets the message',
  leakless(async (_t, defer) => {
    for (const [refused, reply] of [
      ['b@', '450 4.2.1 not now'],
      ['b@', '550 5.1.1 no such user'],
      ['a@', '550 5.1.1 no such user'],
    ] as const) {
      const room = await startRoom(defer);
      const { smtp } = room.provider;
      // The connection dies at C; when A and B are named again, one of them is refused.
      smtp.script('RCPT', { line: /c@/ }, LOST);
      smtp.script('RCPT', { line: new RegExp(refused), skip: 1, times: 9 }, { reply });
      const heard = await room.send({ to: ['a@x.net', 'b@x.net', 'c@x.net', 'd@x.net'] });
      assert.deepEqual(codes(heard), [250, 250, 451, 451], `${refused} ${reply}`);
      const last = heard.data ?? heard.final;
      assert.deepEqual([last?.code, last?.enhanced], [451, '4.5.0']);
      assert.equal(room.provider.messages.length, 0);
      assert.equal(room.records[0]?.outcome, 'deferred');
    }
  }),
);

test(
  'the same where the connection dies twice, and where it dies before the body',
  leakless(async (_t, defer) => {
    const twice = await startRoom(defer);
    twice.provider.smtp.script('RCPT', { line: /c@/, times: 2 }, LOST);
    twice.provider.smtp.script('RCPT', { line: /b@/, skip: 2 }, { reply: '550 5.1.1 no such user' });
    const heard = await twice.send({ to: ['a@x.net', 'b@x.net', 'c@x.net', 'd@x.net'] });
    assert.deepEqual(codes(heard), [250, 250, 451, 451]);
    assert.equal((heard.data ?? heard.final)?.enhanced, '4.5.0');
    assert.equal(twice.provider.messages.length, 0);

    const before = await startRoom(defer, { provider: { rules: { withhold: ['CHUNKING'] } } });
    before.provider.smtp.script('DATA', {}, LOST);
    before.provider.smtp.script('RCPT', { line: /b@/, skip: 1 }, { reply: '450 4.2.1 not now' });
    const body = await before.send({ to: ['a@x.net', 'b@x.net'] });
    assert.deepEqual(codes(body), [250, 250]);
    assert.deepEqual([body.final?.code, body.final?.enhanced], [451, '4.5.0']);
    assert.equal(before.provider.messages.length, 0);

    const mail = await startRoom(defer, { provider: { rules: { withhold: ['CHUNKING'] } } });
    mail.provider.smtp.script('DATA', {}, LOST);
    mail.provider.smtp.script('MAIL', { skip: 1 }, { reply: '550 5.7.1 not from you' });
    const sender = await mail.send({ to: ['a@x.net', 'b@x.net'] });
    assert.deepEqual([sender.final?.code, sender.final?.enhanced], [451, '4.5.0']);
  }),
);

for (const [stage, action] of [
  ['MAIL', { after: 'reset' }],
  ['MAIL', { reply: '421 4.3.2 going away', after: 'close' }],
  ['RCPT', { after: 'close' }],
  ['RCPT', { reply: '421 4.7.0 Temporary System Problem.  Try again later (10).', after: 'close' }],
  ['DATA', { after: 'close' }],
  ['DATA', { reply: '421 4.3.0 Temporary System Problem.', after: 'close' }],
] as const) {
  test(
    `a connection that never served before and is lost at ${stage} (${JSON.stringify(action)}) costs one replay`,
    leakless(async (_t, defer) => {
      const room = await startRoom(defer, {
        provider: { rules: { withhold: ['CHUNKING'] } },
        account: { min_connections: 3, max_connections: 3 },
      });
      const { smtp } = room.provider;
      smtp.script(stage, {}, action);
      const heard = await room.send();
      assert.equal(heard.final?.code, 250);
      assert.equal(room.provider.messages.length, 1);
      assert.equal(room.records[0]?.replayed, true);
      // The others were not thrown away.
      assert.equal(smtp.sessions.filter((s) => s.closed).length, 1);
      smtp.script(stage, { times: 2 }, action);
      const twice = await room.send();
      assert.equal(twice.final?.code, 451);
      assert.equal(room.provider.messages.length, 1);
    }),
  );
}
