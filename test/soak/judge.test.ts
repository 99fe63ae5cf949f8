import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Attempt, judge, type Taken } from './judge.ts';

const attempt = (more: Partial<Attempt> = {}): Attempt => ({
  mark: 'm.1',
  promised: ['a@x', 'b@x'],
  final: { code: 250, text: '250 OK' },
  bounce: undefined,
  sha256: 'f00',
  ...more,
});
const taken = (more: Partial<Taken> = {}): Taken => ({
  mark: 'm.1',
  recipients: ['b@x', 'a@x'],
  sha256: 'f00',
  ...more,
});
const deferral = { code: 451, text: '451 4.4.2 upstream went away' };
const doubt = { code: 451, text: '451 4.4.2 delivery status unknown: upstream went away' };

const CASES: readonly [string, Attempt[], Taken[], object][] = [
  ['as promised', [attempt()], [taken()], { acknowledged: 1 }],
  ['acknowledged and nowhere', [attempt()], [], { acknowledged: 1, lost: 1 }],
  ['a recipient missing', [attempt()], [taken({ recipients: ['a@x'] })], { acknowledged: 1, lost: 1 }],
  ['a recipient too many', [attempt({ promised: ['a@x'] })], [taken()], { acknowledged: 1, lost: 1 }],
  ['other octets', [attempt()], [taken({ sha256: 'bad' })], { acknowledged: 1, lost: 1 }],
  ['twice', [attempt()], [taken(), taken()], { acknowledged: 1, twice: 1 }],
  ['deferred', [attempt({ final: deferral })], [], { deferred: 1 }],
  [
    'deferred and delivered',
    [attempt({ final: deferral })],
    [taken()],
    { deferred: 1, unknown: 1, twice: 1 },
  ],
  ['in doubt, and said so', [attempt({ final: doubt })], [taken()], { deferred: 1, unknown: 1 }],
  ['broken off, and delivered', [attempt({ final: undefined })], [taken()], { unknown: 1 }],
  ['bounced', [attempt({ final: deferral, bounce: '550 no' })], [], { deferred: 1, bounced: 1 }],
  ['from nowhere', [], [taken()], { twice: 1 }],
];

test('what clients heard is held against what the provider took', () => {
  for (const [name, attempts, deliveries, expected] of CASES) {
    const { lost, twice, bounced, ...rest } = judge(attempts, deliveries);
    assert.deepEqual(
      { ...rest, lost: lost.length, twice: twice.length, bounced: bounced.length },
      {
        ...{ sent: attempts.length, acknowledged: 0, deferred: 0, lost: 0, twice: 0, bounced: 0, unknown: 0 },
        ...expected,
      },
      name,
    );
  }
});
