/** Worlds that press on one place: a plan with something always in the way there. Pure. */
import type { Fault, Plan } from './plan.ts';

export type Focus = 'waiters' | 'slow tokens' | 'extra replies' | 'reloads' | 'grants without Redis';

export const FOCUSES: readonly Focus[] = [
  'waiters',
  'slow tokens',
  'extra replies',
  'reloads',
  'grants without Redis',
];

export function focusOn(plan: Plan, focus: Focus): Plan {
  const window = { from: 0, to: plan.activeMs };
  switch (focus) {
    case 'waiters':
      // More clients than connections, all at once, and nothing goes wrong.
      return {
        ...plan,
        accounts: plan.accounts.map((a) => ({
          ...a,
          maxConnections: 1,
          minConnections: 1,
          messagesPerMinute: 0,
        })),
        messages: plan.messages.map((m) => ({ ...m, account: 0, at: m.at % 300 })),
        faults: [],
      };
    case 'slow tokens': {
      // Relays that all need a token while the endpoint takes longer than their lock lives.
      const slow: Fault = {
        kind: 'token',
        mood: { delayMs: 15_000, trouble: undefined },
        chance: 1,
        ...window,
      };
      return { ...plan, relays: 3, tokenLifeMs: 900_000, faults: [slow] };
    }
    case 'extra replies': {
      const extra: Fault = {
        kind: 'mood',
        stage: 'end',
        mood: { kind: 'extra', ms: 5 },
        chance: 0.5,
        ...window,
      };
      const refusal: Fault = {
        kind: 'mood',
        stage: 'end',
        mood: { kind: 'reply', code: 554, text: '5.7.1 message rejected as spam' },
        chance: 0.3,
        ...window,
      };
      return { ...plan, flavour: 'chunking', isTagged: false, faults: [extra, refusal] };
    }
    case 'reloads': {
      const late: Fault = {
        kind: 'mood',
        stage: 'end',
        mood: { kind: 'late', ms: 2_000 },
        chance: 1,
        ...window,
      };
      const reloads = plan.messages
        .slice(0, 6)
        .map(({ at }): Fault => ({ kind: 'reload', relay: 0, at: at + 1_000, edit: 'alias' }));
      return {
        ...plan,
        accounts: plan.accounts.map((a) => ({ ...a, byGraph: false })),
        messages: plan.messages.map((m) => ({ ...m, account: 0 })),
        faults: [late, ...reloads],
      };
    }
    case 'grants without Redis': {
      // Each relay needs a token while none can hear of what another has rotated.
      const away: Fault = { kind: 'redis', state: 'gone', loses: false, from: 500_000, to: 1_150_000 };
      return {
        ...plan,
        relays: 3,
        withoutStore: 'ask',
        tokenLifeMs: 900_000,
        activeMs: 1_200_000,
        messages: plan.messages.map((m) => ({ ...m, at: 890_000 + (m.at % 250_000) })),
        faults: [away],
      };
    }
    default:
      return focus satisfies never;
  }
}
