/** The table of docs/transaction.md is what the code does. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { reply } from '../../src/protocol/reply.ts';
import { judge } from '../../src/protocol/verdict.ts';
import { type Event, next, type State } from '../../src/relay/transaction-states.ts';
import { repositoryRoot } from '../support/relay-process.ts';

const verdict = judge({ kind: 'local', cause: 'internal' });
const toRecipients = reply(452, '4.5.3', 'send this recipient in another transaction');
const stream = { push: () => undefined, finish: () => Promise.resolve({ verdict }) };

/** One of each; the type makes sure that none is missing. */
const states: { readonly [At in State['at']]: Extract<State, { at: At }> } = {
  envelope: { at: 'envelope' },
  live: { at: 'live' },
  asking: { at: 'asking' },
  refused: { at: 'refused', verdict, toRecipients },
  holding: { at: 'holding', chunks: [] },
  opening: { at: 'opening', chunks: [] },
  streaming: { at: 'streaming', stream },
  dropping: { at: 'dropping', verdict },
  deciding: { at: 'deciding' },
  deserted: { at: 'deserted' },
  ended: { at: 'ended' },
};

/** Every event with each of its variants. */
const events: { readonly [On in Event['on']]: readonly Extract<Event, { on: On }>[] } = {
  rcpt: [
    { on: 'rcpt', asks: false },
    { on: 'rcpt', asks: true },
  ],
  heard: [{ on: 'heard' }, { on: 'heard', refusal: { verdict, toRecipients } }],
  data: [{ on: 'data' }],
  octets: [
    { on: 'octets', overflows: false },
    { on: 'octets', overflows: true },
  ],
  opened: [{ on: 'opened', stream }],
  not_opened: [{ on: 'not_opened', verdict }],
  end: [{ on: 'end' }],
  decided: [{ on: 'decided' }],
  left: [{ on: 'left' }],
};

/** Where a state goes; `·` stands for staying as it is. */
function cell(state: State, variants: readonly Event[]): string {
  const after = new Set(variants.map((event) => next(state, event)));
  const names = [...after].map((s) => (s === state || s.at === state.at ? '·' : s.at));
  return [...new Set(names)].join(', ');
}

function table(): string {
  const names = Object.keys(events) as Event['on'][];
  const rows = Object.values(states).map((state) => [
    `**${state.at}**`,
    ...names.map((on) => cell(state, events[on])),
  ]);
  return [
    ['state', ...names.map((on) => `\`${on}\``)],
    Array.from({ length: names.length + 1 }, () => '---'),
    ...rows,
  ]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
}

test('docs/transaction.md has the table of states and events as the code has it', () => {
  const docs = readFileSync(join(repositoryRoot, 'docs/transaction.md'), 'utf8');
  const squeezed = docs.replace(/ +/g, ' ').replace(/-{3,}/g, '---');
  assert.ok(squeezed.includes(table()), table());
});

test('whatever happens, a client that leaves ends the transaction, at the latest with the verdict', () => {
  for (const state of Object.values(states)) {
    const left = next(state, { on: 'left' });
    const end = left.at === 'deserted' ? next(left, { on: 'decided' }) : left;
    assert.equal(end.at, 'ended', state.at);
    for (const variants of Object.values(events))
      for (const event of variants) assert.equal(next(end, event).at, 'ended');
  }
});
