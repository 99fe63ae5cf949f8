/** The same alarm without Message-ID to groups that overlap: each recipient is mailed as often as clients have heard a 250 for him. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../src/log.ts';
import type { Heard } from '../../../src/protocol/esmtp.ts';
import type { Ledger } from '../../../src/upstream/graph/ledger.ts';
import { createLocalLedger } from '../../../src/upstream/graph/ledger-local.ts';
import { createRandom } from '../../sim/random.ts';
import { ANN, type GraphRoom, startGraphRoom } from '../../support/graph-room.ts';
import { leakless } from '../../support/leak-check.ts';

const ALARM = `From: ${ANN}\r\nTo: a@example.net\r\nSubject: alarm\r\n\r\non battery\r\n`;
const addressesOf = (group: string): string[] => [...group].map((name) => `${name}@example.net`);

/** How a client waits for the reply, and whether it has heard. */
type Manner = { readonly saidAhead: boolean; readonly heard: Heard };
const WAITS: Manner = { saidAhead: false, heard: 'yes' };
const AHEAD: Manner = { saidAhead: true, heard: 'perhaps' };
const BREAKS: Manner = { saidAhead: false, heard: 'no' };
const MANNERS = [WAITS, AHEAD, BREAKS, { saidAhead: true, heard: 'no' }] as const;

async function says(room: GraphRoom, group: string, manner: Manner): Promise<boolean> {
  return (await room.send(ALARM, addressesOf(group), manner)).kind === 'taken' && manner.heard !== 'no';
}

/** `ab` for a@ and b@, who were mailed with the alarm. */
const mailed = (room: GraphRoom): string[] =>
  room.server.delivered.map((d) => d.recipients.map((address) => address[0]).join('')).sort();

/** What was said before and nobody heard; what is said then, again and again. */
const CASES: readonly (readonly [readonly string[], string])[] = [
  [['ab'], 'b'],
  [['ab'], 'bc'],
  [['ab'], 'abc'],
  [['b', 'bc'], 'bc'],
  [['ab', 'bc', 'cd'], 'abcd'],
];

for (const [unheard, group] of CASES)
  for (const [how, manner] of Object.entries({ waits: WAITS, 'says QUIT ahead': AHEAD }))
    test(
      `nobody heard of ${unheard.join(', ')}: of ${group} by a client that ${how} the first alone counts as its retry`,
      leakless(async (_t, defer) => {
        const room = await startGraphRoom(defer, { recipients: 'rewrite' });
        for (const first of unheard) await says(room, first, BREAKS);
        await says(room, group, manner);
        const before = mailed(room);
        for (const times of [1, 2]) {
          assert.ok(await says(room, group, manner));
          assert.deepEqual(mailed(room), [...before, ...Array<string>(times).fill(group)].sort());
        }
      }),
    );

test(
  'whoever of the whole has heard in a retry to him alone is mailed with the next to all',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { recipients: 'rewrite' });
    await says(room, 'ab', BREAKS);
    await says(room, 'b', WAITS);
    await says(room, 'ab', WAITS);
    assert.deepEqual(mailed(room), ['ab', 'b']);
  }),
);

test(
  'the rest is refused: those who have it are not closed by what the client did not hear',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { recipients: 'rewrite' });
    await says(room, 'ab', BREAKS);
    room.server.fault('create', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    assert.equal((await room.send(ALARM, addressesOf('abc'))).kind, 'refused');
    assert.ok(await says(room, 'abc', WAITS));
    assert.deepEqual(mailed(room), ['ab', 'c']);
  }),
);

test(
  'a client has said QUIT ahead: what looks the same waits the moment until that is known, and is mailed',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const first = await room.send(ALARM, addressesOf('a'), { saidAhead: true, heard: 'later' });
    const next = says(room, 'a', WAITS);
    await first.whenHeard?.('perhaps');
    assert.ok(await next);
    assert.equal(room.server.delivered.length, 2);
  }),
);

test(
  'the retry comes to each recipient alone, all at once, QUIT ahead: nobody waits until the others have heard',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { recipients: 'rewrite' });
    await says(room, 'abcd', BREAKS);
    const later = { saidAhead: true, heard: 'later' } as const;
    const [a, ...others] = await Promise.all(
      [...'abcd'].map((name) => room.send(ALARM, addressesOf(name), later)),
    );
    for (const one of [a, ...others]) assert.equal(one?.kind, 'taken');
    for (const group of ['a', 'ae', 'abcd'])
      assert.equal((await room.send(ALARM, addressesOf(group))).kind, 'refused', 'of a it is not known yet');
    await Promise.all([a?.whenHeard?.('no'), ...others.map((one) => one.whenHeard?.('perhaps'))]);
    assert.deepEqual(mailed(room), ['abcd']);
    for (const name of 'abcd') assert.ok(await says(room, name, WAITS));
    assert.deepEqual(mailed(room), ['abcd', 'b', 'c', 'd'], 'his retry is one, theirs were');
  }),
);

test(
  'relays share the places, and the retry comes in groups while one of them is about to be told: one waits for that, the others hear 451 soon',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, {
      recipients: 'rewrite',
      speed: 1,
      ledger: () => ({ ...createLocalLedger({ log: silentLog }), isOfMany: true }),
    });
    await says(room, 'abcdefgh', BREAKS);
    const first = await room.send(ALARM, addressesOf('ab'), { saidAhead: true, heard: 'later' });
    const refused: string[] = [];
    let others: Promise<boolean>[] = [];
    await new Promise<void>((resolve) => {
      others = ['cd', 'ef', 'gh'].map(async (group) => {
        const isTaken = await says(room, group, WAITS);
        if (!isTaken) refused.push(group);
        if (refused.length === 2) resolve();
        return isTaken;
      });
    });
    for (const group of refused) assert.equal(await says(room, group, WAITS), false, 'one waits still');
    await first.whenHeard?.('perhaps');
    assert.equal((await Promise.all(others)).filter((isTaken) => isTaken).length, 1);
    assert.deepEqual(mailed(room), ['abcdefgh']);
  }),
);

/** A ledger in Redis, which is away for so many questions from the one that `isLast` picks. */
function awayAfter(isLast: (question: 'claim' | 'forget') => boolean, times: number): () => Ledger {
  let left = 0;
  const away = (question: 'claim' | 'forget' | 'note'): boolean => {
    if (left === 0 && times > 0 && question !== 'note' && isLast(question)) [left, times] = [times, 0];
    return left > 0 && left-- > 0;
  };
  return () => {
    const ledger = createLocalLedger({ log: silentLog });
    return {
      ...ledger,
      async claim(key) {
        if (away('claim')) throw new Error('away');
        const claim = await ledger.claim(key);
        if (claim === 'busy') return claim;
        return {
          ...claim,
          close: async (hearing) => !away('forget') && claim.close(hearing),
          note: async (entry, hearing) => {
            if (away('note')) throw new Error('away');
            await claim.note(entry, hearing);
          },
        };
      },
    };
  };
}

for (const [how, manner] of Object.entries({ waits: WAITS, 'says QUIT ahead': AHEAD }))
  test(
    `Redis is away when it has to be forgotten, by a client that ${how}: what looks the same then is another`,
    leakless(async (_t, defer) => {
      const room = await startGraphRoom(defer, { ledger: awayAfter((question) => question === 'forget', 6) });
      for (const times of [1, 2, 3]) {
        assert.ok(await says(room, 'a', manner));
        assert.equal(room.server.delivered.length, times);
      }
    }),
  );

test(
  'Redis is away when the connection breaks: that nobody has heard is noted when it is back',
  leakless(async (_t, defer) => {
    let claims = 0;
    const ledger = awayAfter((question) => question === 'claim' && ++claims === 2, 3);
    const room = await startGraphRoom(defer, { ledger });
    await says(room, 'a', BREAKS);
    assert.ok(await says(room, 'a', WAITS));
    assert.equal(room.server.delivered.length, 1);
    assert.ok(await says(room, 'a', WAITS));
    assert.equal(room.server.delivered.length, 2);
  }),
);

test(
  'by one call: that the first was not heard says nothing of another that is unclear',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { permissions: 'send' });
    const first = await room.send(ALARM, addressesOf('a'), { heard: 'later' });
    assert.equal(first.kind, 'taken');
    room.server.fault('send_mail', { answer: { status: 504 } });
    assert.equal((await room.send(ALARM, addressesOf('a'))).kind, 'refused');
    await first.whenHeard?.('no');
    assert.equal((await room.send(ALARM, addressesOf('a'))).kind, 'refused');
  }),
);

test(
  'its retry was sent and heard before the connection is known to have broken: what looks the same then is another',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer);
    const first = await room.send(ALARM, addressesOf('a'), { heard: 'later' });
    assert.ok(await says(room, 'a', WAITS));
    await first.whenHeard?.('no');
    for (const times of [3, 4]) {
      assert.ok(await says(room, 'a', WAITS));
      assert.equal(room.server.delivered.length, times);
    }
  }),
);

test(
  'the retry to one breaks and the relay learns of it late: that the other has heard meanwhile says nothing of him',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { recipients: 'rewrite' });
    await says(room, 'ab', BREAKS);
    const toB = await room.send(ALARM, addressesOf('b'), { heard: 'later' });
    assert.ok(await says(room, 'a', WAITS));
    await toB.whenHeard?.('no');
    assert.ok(await says(room, 'b', WAITS));
    assert.deepEqual(mailed(room), ['ab'], 'his retry is one');
    assert.ok(await says(room, 'b', WAITS));
    assert.deepEqual(mailed(room), ['ab', 'b']);
  }),
);

test(
  'the retry to one breaks while that to the others waits to be told: it is noted after that',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { recipients: 'rewrite' });
    await says(room, 'abc', BREAKS);
    const toB = await room.send(ALARM, addressesOf('b'), { heard: 'later' });
    const others = await room.send(ALARM, addressesOf('ac'), { saidAhead: true, heard: 'later' });
    const noted = toB.whenHeard?.('no');
    await others.whenHeard?.('perhaps');
    await noted;
    assert.ok(await says(room, 'b', WAITS));
    assert.deepEqual(mailed(room), ['abc'], 'his retry is one');
  }),
);

for (const next of ['b', 'bc'])
  test(
    `he has heard by another connection before the first is known to have broken: the next to ${next} is mailed`,
    leakless(async (_t, defer) => {
      const room = await startGraphRoom(defer, { recipients: 'rewrite' });
      await says(room, 'ab', BREAKS);
      const toB = await room.send(ALARM, addressesOf('b'), { heard: 'later' });
      assert.ok(await says(room, 'b', WAITS));
      await toB.whenHeard?.('no');
      assert.ok(await says(room, next, WAITS));
      assert.deepEqual(mailed(room), ['ab', 'b', next]);
      assert.ok(await says(room, 'a', WAITS));
      assert.deepEqual(mailed(room), ['ab', 'b', next], 'the other has not heard yet');
    }),
  );

test(
  'the first is known to have broken while another to him is on its way: what is heard of that counts',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { recipients: 'rewrite' });
    await says(room, 'ab', BREAKS);
    const toB = await room.send(ALARM, addressesOf('b'), { heard: 'later' });
    let noted: Promise<void> | undefined;
    room.server.rules.chaos = () => {
      noted ??= toB.whenHeard?.('no');
      return undefined;
    };
    assert.ok(await says(room, 'b', WAITS));
    await noted;
    assert.ok(await says(room, 'b', WAITS));
    assert.deepEqual(mailed(room), ['ab', 'b', 'b']);
    assert.ok(await says(room, 'a', WAITS));
    assert.deepEqual(mailed(room), ['ab', 'b', 'b'], 'the other has not heard yet');
  }),
);

test(
  'the whole is retried to one before it is known to have broken: it stays open for the other alone',
  leakless(async (_t, defer) => {
    const room = await startGraphRoom(defer, { recipients: 'rewrite' });
    const whole = await room.send(ALARM, addressesOf('ab'), { heard: 'later' });
    assert.ok(await says(room, 'b', WAITS));
    await whole.whenHeard?.('no');
    assert.ok(await says(room, 'a', WAITS));
    assert.deepEqual(mailed(room), ['ab', 'b']);
    assert.ok(await says(room, 'b', WAITS));
    assert.deepEqual(mailed(room), ['ab', 'b', 'b']);
  }),
);

for (const seed of [1, 2, 3, 4])
  test(
    `groups as they come, connections that break as they like: seed ${seed}`,
    leakless(async (_t, defer) => {
      const random = createRandom(seed);
      const room = await startGraphRoom(defer, { recipients: 'rewrite' });
      const wanted = new Map<string, number>();
      const waiting: string[] = [];
      for (let said = 0; said < 60; ) {
        let group = waiting.length > 2 || random.chance(0.4) ? waiting.shift() : undefined;
        if (group === undefined) {
          group = random.pick(['a', 'b', 'ab', 'bc', 'abc', 'ac', 'bcd']);
          said++;
          for (const name of group) wanted.set(name, (wanted.get(name) ?? 0) + 1);
        }
        if (!(await says(room, group, random.pick(MANNERS)))) waiting.push(group);
      }
      for (const group of waiting) assert.ok(await says(room, group, WAITS));
      const got = mailed(room).join('');
      for (const [name, count] of wanted) assert.equal(got.split(name).length - 1, count, name);
    }),
  );
