/** Positive replies in codes that RFC 5321 does not give to the command: a first digit decides, unless the code is another command's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { ANN, type RoomOptions, startRoom } from '../support/relay-room.ts';

const by = { BDAT: {}, DATA: { rules: { withhold: ['CHUNKING'] } } } satisfies Record<
  string,
  RoomOptions['provider']
>;

for (const [way, provider] of Object.entries(by))
  for (const [code, final, delivered] of [
    // Its first digit says that the server has it: anything else would bring it twice.
    ['299', 250, 'relayed'],
    ['245', 250, 'relayed'],
    ['250', 250, 'relayed'],
    // An answer to something else: nobody can tell, and it is not sent again by us.
    ['221', 451, 'unknown'],
    ['252', 451, 'unknown'],
    ['214', 451, 'unknown'],
    ['354', 451, 'unknown'],
  ] as const)
    test(
      `${way}: ${code} to the body is ${delivered}`,
      leakless(async (_t, defer) => {
        const room = await startRoom(defer, { provider });
        room.provider.smtp.script(
          'end-of-data',
          { user: ANN },
          { reply: `${code} 2.0.0 so be it`, accept: true },
        );
        const heard = await room.send();
        assert.equal(heard.final?.code, final);
        assert.equal(room.records[0]?.outcome, delivered);
        assert.equal(room.records[0]?.replayed, false);
        const first = room.provider.smtp.sessions.length;
        assert.equal((await room.send()).final?.code, 250);
        assert.equal(room.provider.messages.length, 2);
        // Whoever is out of step is not used again.
        assert.equal(room.provider.smtp.sessions.length > first, delivered === 'unknown');
      }),
    );

test(
  'at RCPT: an unknown 2xx is told as 250, 251 as it is, and the code of another command is said once more',
  leakless(async (_t, defer) => {
    const room = await startRoom(defer);
    for (const [code, told] of [
      ['299', 250],
      ['251', 251],
      ['252', 250],
      ['221', 250],
    ] as const) {
      room.provider.smtp.script('RCPT', { line: /b@/ }, { reply: `${code} 2.1.5 fine` });
      const heard = await room.send({ to: ['a@x.net', 'b@x.net'] });
      assert.deepEqual([heard.rcpts[1]?.code, heard.final?.code], [told, 250], code);
      assert.equal(room.records.at(-1)?.replayed, code === '221', code);
    }
    assert.equal(room.provider.messages.length, 4);
    for (const { recipients } of room.provider.messages) assert.equal(recipients.length, 2);
  }),
);
