// needs: swaks
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { type ProgramResult, runProgram } from '../support/program.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';

const OPEN = 'ann@gmail.example';
const CLOSED = 'carl@gmail.example';
const PASSWORD = 'correct horse battery staple';

test(
  'swaks sends without AUTH, with AUTH PLAIN and LOGIN, and is refused with a wrong password',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [OPEN, CLOSED] });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [
        provider.entry(OPEN),
        provider.entry(CLOSED, { password: { env: 'CARLS_PASSWORD' }, senders: ['*@carl.example'] }),
      ],
      caFile: provider.caFile,
      env: { CARLS_PASSWORD: PASSWORD },
    });
    defer(() => relay.stop());
    const swaks = (...args: string[]): Promise<ProgramResult> =>
      runProgram('swaks', [
        '--server',
        '127.0.0.1',
        '--port',
        String(relay.smtpPort),
        '--to',
        'b@example.net',
        ...args,
      ]);
    const auth = (mechanism: string, password: string): string[] => [
      ...['--auth', mechanism, '--auth-user', CLOSED, '--auth-password', password],
    ];

    const plain = await swaks('--from', OPEN, '--header', 'Subject: no AUTH');
    assert.equal(plain.code, 0, plain.output);
    for (const mechanism of ['PLAIN', 'LOGIN']) {
      const sent = await swaks('--from', 'news@carl.example', ...auth(mechanism, PASSWORD));
      assert.equal(sent.code, 0, sent.output);
    }
    const wrong = await swaks('--from', CLOSED, ...auth('PLAIN', 'wrong'));
    assert.notEqual(wrong.code, 0);
    assert.match(wrong.output, /^<\*\* 535 5\.7\.8/m);
    const without = await swaks('--from', CLOSED);
    assert.notEqual(without.code, 0);
    assert.match(without.output, /^<\*\* 530 5\.7\.0/m);
    const foreign = await swaks('--from', OPEN, ...auth('PLAIN', PASSWORD));
    assert.match(foreign.output, /^<\*\* 550 5\.7\.1/m);
    const stranger = await swaks('--from', 'who@example.org');
    assert.match(stranger.output, /^<\*\* 550 5\.7\.1.*who@example\.org/m);
    // Nobody may use the null sender without saying who they are; with AUTH it is that account's.
    assert.match((await swaks('--from', '<>')).output, /^<\*\* 550 5\.7\.1/m);
    const bounce = await swaks('--from', '<>', ...auth('PLAIN', PASSWORD));
    assert.equal(bounce.code, 0, bounce.output);

    assert.deepEqual(
      provider.messages.map((m) => [m.user, m.sender]),
      [
        [OPEN, OPEN],
        [CLOSED, 'news@carl.example'],
        [CLOSED, 'news@carl.example'],
        [CLOSED, ''],
      ],
    );
    assert.doesNotMatch(relay.output(), new RegExp(PASSWORD));
  }),
);
