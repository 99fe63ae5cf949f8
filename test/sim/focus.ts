/** Worlds that press on one place: a plan with something always in the way there. Pure. */
import type { ClientHabits } from './client.ts';
import { groupsOf } from './groups.ts';
import { type Fault, type Plan, RESETS } from './plan.ts';

export const FOCUSES = [
  'recipients',
  'resets',
  'waiters',
  'slow tokens',
  'extra replies',
  'reloads',
  'renames',
  'grants without Redis',
  'graph',
  'graph and kills',
  'graph and back',
  'graph devices',
  'graph groups',
  'graph again',
] as const;
export type Focus = (typeof FOCUSES)[number];

type MoodFault = Extract<Fault, { kind: 'mood' }>;

/** More than a mailbox takes requests at once. */
const GRAPH_CLIENTS = 8;

export function focusOn(plan: Plan, focus: Focus): Plan {
  const window = { from: 0, to: plan.activeMs };
  const mood = (stage: MoodFault['stage'], is: MoodFault['mood'], chance: number): Fault => ({
    kind: 'mood',
    stage,
    mood: is,
    chance,
    ...window,
  });
  switch (focus) {
    case 'recipients': {
      // Most of many recipients are refused, however the client's writes are cut.
      const refusal = mood('rcpt', { kind: 'reply', code: 450, text: '4.2.1 not now' }, 0.6);
      return {
        ...plan,
        clients: plan.clients.map((client) => ({ ...client, style: 'pipelining' })),
        messages: plan.messages.map((m) => ({ ...m, recipients: 5 })),
        faults: [refusal],
      };
    }
    case 'resets': {
      // Recipients are refused, so that the next message begins with RSET, and that is refused too.
      const refusal = mood('rcpt', { kind: 'reply', code: 450, text: '4.2.1 not now' }, 0.4);
      const [code, text] = RESETS[plan.seed % RESETS.length] ?? RESETS[0];
      const reset = mood('rset', { kind: 'reply', code, text, closes: code === 421 }, 0.5);
      const drop = mood('rset', { kind: 'drop', how: 'fin', acts: true }, 0.2);
      return {
        ...plan,
        accounts: plan.accounts.map((a) => ({ ...a, byGraph: false })),
        faults: [refusal, reset, drop],
      };
    }
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
      const extra = mood('end', { kind: 'extra', ms: 5 }, 0.5);
      const refusal = mood('end', { kind: 'reply', code: 554, text: '5.7.1 message rejected as spam' }, 0.3);
      return { ...plan, flavour: 'chunking', isTagged: false, faults: [extra, refusal] };
    }
    case 'reloads': {
      const late = mood('end', { kind: 'late', ms: 2_000 }, 1);
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
    case 'renames': {
      // A mailbox that is always busy and takes no connection more, whose account has another name every now and then.
      const late = mood('end', { kind: 'late', ms: 2_000 }, 0.5);
      const renames = plan.messages
        .slice(0, 4)
        .map(({ at }): Fault => ({ kind: 'reload', relay: 0, at: at + 1_000, edit: 'rename' }));
      return {
        ...plan,
        accounts: plan.accounts.map((a) => ({ ...a, byGraph: false })),
        messages: plan.messages.map((m) => ({ ...m, account: 0 })),
        faults: [late, ...renames],
      };
    }
    case 'grants without Redis': {
      // Each relay needs a token while none can hear of what another has rotated.
      const away: Fault = { kind: 'redis', state: 'gone', loses: false, from: 500_000, to: 1_150_000 };
      return {
        ...plan,
        store: 'redis',
        relays: 3,
        withoutStore: 'ask',
        tokenLifeMs: 900_000,
        activeMs: 1_200_000,
        messages: plan.messages.map((m) => ({ ...m, at: 890_000 + (m.at % 250_000) })),
        faults: [away],
      };
    }
    case 'graph': {
      // One mailbox and more clients than it takes requests; of those half go wrong.
      const faulty: Fault = { kind: 'graph', chance: 0.5, ...window };
      return {
        ...plan,
        accounts: plan.accounts.map((a) => ({ ...a, byGraph: true, messagesPerMinute: 0 })),
        clients: Array.from({ length: GRAPH_CLIENTS }, (_, i) => ({
          ...(plan.clients[i % plan.clients.length] as ClientHabits),
          perConnection: 3,
        })),
        messages: plan.messages.map((m, i) => ({
          ...m,
          client: i % GRAPH_CLIENTS,
          account: 0,
          at: m.at % 10_000,
        })),
        faults: [faulty],
      };
    }
    case 'graph and back': {
      // Accounts are taken off Graph and put back while its answers are lost and clients leave.
      const faulty: Fault = { kind: 'graph', chance: 0.5, ...window };
      const leaving: Fault = { kind: 'hang up', point: 'dot', how: 'abort', chance: 0.3, ...window };
      const reloads = plan.messages.slice(0, 6).map(({ at }, i): Fault => {
        return { kind: 'reload', relay: i % plan.relays, at: at + 700 * (i + 1), edit: 'off graph' };
      });
      return {
        ...plan,
        accounts: plan.accounts.map((a) => ({ ...a, byGraph: true })),
        activeMs: Math.max(
          plan.activeMs,
          ...reloads.map((reload) => ('at' in reload ? reload.at + 25_000 : 0)),
        ),
        faults: [faulty, leaving, ...reloads],
      };
    }
    case 'graph and kills': {
      // The process ends at every moment of a message's way: what it has not noted it does not know again.
      const slow: Fault = { kind: 'graph', chance: 1, ...window };
      const kills = plan.messages.slice(0, 6).map(({ at }, i): Fault => {
        const from = at + 700 * (i + 1);
        return {
          kind: 'kill',
          relay: i % plan.relays,
          how: plan.store === 'file' && i % 2 === 0 ? 'power' : 'kill',
          from,
          to: from + 2_000,
        };
      });
      return {
        ...plan,
        accounts: plan.accounts.map((a) => ({ ...a, byGraph: true })),
        activeMs: Math.max(plan.activeMs, ...kills.map((kill) => ('to' in kill ? kill.to : 0))),
        faults: [slow, ...kills],
      };
    }
    case 'graph devices':
      return { ...focusOn(plan, plan.seed % 2 === 0 ? 'graph' : 'graph and kills'), isDevice: true };
    case 'graph again': {
      const devices = focusOn(plan, 'graph devices');
      const messages = devices.messages.map((m) => ({ ...m, account: 0, recipients: 1 }));
      return { ...devices, messages, saysAgain: true };
    }
    case 'graph groups':
      return groupsOf(plan);
    default:
      return focus satisfies never;
  }
}
