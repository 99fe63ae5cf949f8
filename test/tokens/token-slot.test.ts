import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { silentLog } from '../../src/log.ts';
import { AccessToken, TokenError } from '../../src/tokens/access-token.ts';
import { credentialFingerprint, grantFingerprint, tokenFingerprint } from '../../src/tokens/grant-form.ts';
import { createGrantKeeper } from '../../src/tokens/grant-keeper.ts';
import { type GrantEvent, type GrantState, nextGrantState } from '../../src/tokens/grant-state.ts';
import { createServedAccount } from '../../src/tokens/served-account.ts';
import { createMemoryStore } from '../../src/tokens/store-memory.ts';
import {
  bufferFor,
  freshUntil,
  nextState,
  refreshAheadAt,
  type Slot,
  type SlotEvent,
  type SlotState,
  usableUntil,
} from '../../src/tokens/token-slot.ts';
import { createTestClock } from '../support/clock.ts';
import { repositoryRoot } from '../support/relay-process.ts';
import { entryFor } from './support.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const token = (lifeMs: number): AccessToken => new AccessToken('t', 1_000_000 + lifeMs, 1_000_000);

test('the buffer is the whole one for long lives, a part of short ones', () => {
  assert.equal(bufferFor(HOUR, 5 * MINUTE), 5 * MINUTE);
  assert.equal(bufferFor(10 * MINUTE, 5 * MINUTE), 5 * MINUTE);
  for (const life of [1000, MINUTE, 9 * MINUTE]) {
    const buffer = bufferFor(life, 5 * MINUTE);
    assert.ok(buffer > 0 && buffer <= life / 2, `${life}: ${buffer}`);
  }
});

test('tokens are refreshed ahead near 80 % of life, never after the buffer begins, never all at once', () => {
  for (const [life, buffer] of [
    [HOUR, 5 * MINUTE],
    [HOUR, 10 * MINUTE],
    [90 * MINUTE, 10 * MINUTE],
    [15 * MINUTE, 5 * MINUTE],
    [MINUTE, 5 * MINUTE],
    [28 * HOUR, 10 * MINUTE],
  ] as const) {
    const times = [0, 0.25, 0.5, 1].map((random) => refreshAheadAt(token(life), buffer, random) - 1_000_000);
    for (const at of times) {
      assert.ok(at <= life * 0.8 && at <= freshUntil(token(life), buffer) - 1_000_000, `${life} ${at}`);
      assert.ok(at >= life * 0.5, `${life} ${at}`);
    }
    assert.equal(new Set(times).size, 4);
  }
});

test('without a new one a token is used almost to its end', () => {
  assert.ok(usableUntil(token(HOUR)) < 1_000_000 + HOUR);
  assert.ok(usableUntil(token(HOUR)) > 1_000_000 + HOUR - MINUTE);
  assert.ok(usableUntil(token(1000)) > 1_000_500);
});

const clock = createTestClock();
function slotOf(more = {}): Slot {
  const entry = entryFor('https://t/token', 'a@x', more);
  const keeper = createGrantKeeper({ store: createMemoryStore(), clock, log: silentLog, onChange: () => {} });
  const slot = createServedAccount(entry, { keeper, clock, onSlot: () => {} }).slot('smtp');
  assert.ok(slot);
  return slot;
}
const live = (text = 't', lifeMs = HOUR): AccessToken =>
  new AccessToken(text, clock.now() + lifeMs, clock.now());
const trouble = (slot: Slot, error: TokenError, blockedMs = 0) => {
  const flight = slot.nextFlight();
  slot.apply({ type: 'asked', flight: { number: flight, result: new Promise(() => {}) } });
  const blockedUntilMono = clock.monotonic() + blockedMs;
  const made = { error, at: clock.now(), count: 1, blockedUntilMono, warned: false };
  slot.apply({ type: 'refused', flight, trouble: made });
};

test('what an operator sees', () => {
  const slot = slotOf();
  assert.deepEqual(slot.describe(), { status: 'refreshing' });
  slot.bring(live(), 'store');
  assert.deepEqual(slot.describe(), { status: 'ready' });
  trouble(slot, new TokenError('provider_fault', 'down'));
  assert.equal(slot.describe().status, 'ready');
  clock.advance(HOUR);
  assert.deepEqual(slot.describe(), { status: 'unreachable', reason: 'down' });
  trouble(slot, new TokenError('needs_consent', 'revoked', { cure: 'sign in' }), 5000);
  const seen = { status: 'needs_consent', reason: 'revoked', cure: 'sign in', until: clock.now() + 5000 };
  assert.deepEqual(slot.describe(), seen);
});

test('a token that comes from elsewhere is taken where it is later and was not refused', () => {
  const slot = slotOf();
  assert.equal(slot.bring(live('first'), 'store'), true);
  assert.equal(slot.bring(live('sooner', HOUR / 2), 'store'), false);
  assert.equal(slot.bring(live('later', 2 * HOUR), 'store'), true);
  slot.reject(live('later'));
  assert.equal(slot.token, undefined);
  assert.equal(slot.bring(live('later', 2 * HOUR), 'store'), false);
  assert.equal(slot.bring(live('ended', 0), 'store'), false);
  slot.apply({ type: 'retired' });
  assert.equal(slot.bring(live(), 'store'), false);
});

test('a step of the wall clock lets no token live longer', () => {
  for (const step of [-HOUR, HOUR]) {
    const slot = slotOf();
    slot.bring(live(), 'store');
    assert.ok(slot.handOut());
    clock.step(step);
    clock.advance(step < 0 ? HOUR : 0);
    assert.equal(slot.handOut(), undefined, `${step}`);
  }
});

test('a token brought along with less than the safety buffer left is renewed, and used while no other is had', () => {
  const initial = (leftMs: number) => ({
    initial: { accessToken: new Secret('brought'), expiresAt: clock.now() + leftMs },
  });
  assert.equal(slotOf(initial(HOUR)).handOut()?.reveal(), 'brought');
  const slot = slotOf(initial(4 * MINUTE));
  assert.equal(slot.handOut(), undefined);
  assert.equal(slot.isUsable(), true);
  assert.equal(slotOf(initial(0)).token, undefined);
});

test('fingerprints follow the content of a credential, not the object', () => {
  const { credential } = entryFor('https://t/token', 'a@x');
  const like = (more: object) => ({ ...credential, ...more });
  const same = like({ refreshToken: new Secret(credential.refreshToken.reveal()) });
  assert.equal(credentialFingerprint(same), credentialFingerprint(credential));
  for (const more of [
    { refreshToken: new Secret('x') },
    { clientSecret: new Secret('x') },
    { clientId: 'x' },
    { scope: 'x' },
    { scopes: { graph: 'x' } },
    { ahead: ['graph'] },
    { tokenUrl: 'https://x/' },
    { safetyBufferMs: 1 },
    { initial: { accessToken: new Secret('x'), expiresAt: 1 } },
  ])
    assert.notEqual(
      credentialFingerprint(like(more)),
      credentialFingerprint(credential),
      Object.keys(more).join(),
    );
  assert.equal(grantFingerprint(like({ clientSecret: new Secret('x') })), grantFingerprint(credential));
  assert.notEqual(tokenFingerprint(credential, 'graph'), tokenFingerprint(credential, credential.scope));
});

/** The rows of the markdown table below `heading`, without its head. */
function tableBelow(heading: string): string[][] {
  const text = readFileSync(join(repositoryRoot, 'docs/tokens.md'), 'utf8');
  const lines = text.slice(text.indexOf(heading)).split('\n');
  const first = lines.findIndex((line) => line.startsWith('|'));
  const end = lines.findIndex((line, i) => i > first && !line.startsWith('|'));
  return lines
    .slice(first, end)
    .filter((_line, i) => i !== 1)
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim().replaceAll('`', '')),
    );
}

test('docs/tokens.md tells what each event makes of each state of a token', () => {
  const held = { token: live(), origin: 'store', endsMono: 1 } as const;
  const other = { ...held };
  const made = {
    error: new TokenError('provider_fault', 'x'),
    at: 0,
    count: 1,
    blockedUntilMono: 0,
    warned: false,
  };
  const flight = { number: 1, result: new Promise<AccessToken>(() => {}) };
  const states: Record<string, SlotState> = {
    empty: { name: 'empty' },
    asking: { name: 'asking', flight, held: undefined, trouble: undefined },
    'asking, token held': { name: 'asking', flight, held, trouble: undefined },
    holding: { name: 'holding', held },
    failing: { name: 'failing', trouble: made, held: undefined },
    'failing, token held': { name: 'failing', trouble: made, held },
    retired: { name: 'retired' },
  };
  const events: Record<SlotEvent['type'], SlotEvent> = {
    asked: { type: 'asked', flight },
    answered: { type: 'answered', flight: 1, held: other },
    refused: { type: 'refused', flight: 1, trouble: made },
    brought: { type: 'brought', held: other },
    rejected: { type: 'rejected' },
    forgotten: { type: 'forgotten' },
    retired: { type: 'retired' },
  };
  const nameOf = (state: SlotState): string =>
    `${state.name}${(state.name === 'asking' || state.name === 'failing') && state.held !== undefined ? ', token held' : ''}`;
  const [head = [], ...rows] = tableBelow('## States of a token');
  assert.deepEqual(head.slice(1), Object.keys(events));
  assert.deepEqual(
    rows.map((row) => row[0]),
    Object.keys(states),
  );
  for (const [name = '', ...cells] of rows)
    for (const [i, event] of Object.values(events).entries()) {
      const before = states[name] as SlotState;
      const after = nextState(before, event);
      assert.equal(cells[i], after === before ? '–' : nameOf(after), `${name}, ${event.type}`);
    }
});

test('docs/tokens.md tells what each event makes of each state of a grant', () => {
  const events: GrantEvent[] = ['rotated', 'saved', 'overtaken', 'save failed', 'loaded'];
  const states: GrantState[] = ['original', 'kept', 'unsaved'];
  const [head = [], ...rows] = tableBelow('## States of a grant');
  assert.deepEqual(head.slice(1), events);
  assert.deepEqual(
    rows.map((row) => row[0]),
    states,
  );
  for (const [i, state] of states.entries())
    for (const [j, event] of events.entries()) {
      assert.equal(rows[i]?.[j + 1], nextGrantState(state, event) ?? '–', `${state}, ${event}`);
    }
});

test('an answer of another flight than the one under way changes nothing', () => {
  const slot = slotOf();
  const held = slot.hold(live(), 'on-demand');
  const flight = slot.nextFlight();
  slot.apply({ type: 'asked', flight: { number: flight, result: new Promise(() => {}) } });
  slot.apply({ type: 'answered', flight: flight + 1, held });
  assert.equal(slot.state.name, 'asking');
  slot.apply({ type: 'forgotten' });
  slot.apply({ type: 'answered', flight, held });
  assert.equal(slot.state.name, 'empty');
});
