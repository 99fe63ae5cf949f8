import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Hearing } from '../../src/listener/hearing.ts';

const CASES: readonly (readonly [string, (hearing: Hearing) => void, string])[] = [
  ['the client goes on after the reply', (h) => [h.written(10), h.came(11)], 'yes'],
  [
    'what came before the reply says nothing',
    (h) => [h.written(10), h.came(10), h.ended('orderly')],
    'perhaps',
  ],
  ['octets before anything was written', (h) => [h.came(11), h.ended('orderly')], 'no'],
  ['it leaves without a word', (h) => [h.written(10), h.ended('orderly')], 'perhaps'],
  ['its connection breaks', (h) => [h.written(10), h.ended('broken')], 'no'],
  ['nothing shows that it is gone', (h) => [h.written(10), h.presume(), h.ended('broken')], 'perhaps'],
  ['nothing was written yet', (h) => [h.presume(), h.ended('broken')], 'no'],
  ['it leaves before the reply', (h) => h.ended('orderly'), 'no'],
  ['the reply counts, not what is said after it', (h) => [h.written(10), h.written(20), h.came(15)], 'yes'],
];

for (const [what, happens, heard] of CASES)
  test(`${what}: ${heard}`, async () => {
    const hearing = new Hearing();
    const answer = hearing.heard();
    happens(hearing);
    assert.equal(await answer, heard);
  });

test('whoever asks after the end hears no; each reply has its own answer', async () => {
  const hearing = new Hearing();
  const first = hearing.heard();
  hearing.written(1);
  const second = hearing.heard();
  hearing.came(2);
  assert.equal(await first, 'yes');
  hearing.ended('orderly');
  assert.equal(await second, 'no');
  assert.equal(await hearing.heard(), 'no');
});
