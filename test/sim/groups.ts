/**
 * Accounts that may all send as all senders, and an operator who changes their ways, permissions, names and order, and
 * takes some away, while messages are under way; SMTP AUTH is switched off and on. In: a plan. Out: such a plan, its
 * entries of the accounts file, and the person who decides what waits for one.
 */
import type { Client } from './client.ts';
import type { GraphEndpoint } from './graph.ts';
import type { Edit, Fault, Plan } from './plan.ts';
import { createRandom, type Random } from './random.ts';
import type { RelayHost } from './relay-host.ts';
import { type Actor, EPOCH, type World } from './world.ts';

const MINUTE_MS = 60_000;
const OFF =
  '5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled';
/** What waits for a person is looked at so often, and once it is so old: by then nothing is carried out late. */
const LOOKS_MS = MINUTE_MS;
const SETTLED_MS = 1.5 * MINUTE_MS;

/** Nothing breaks on the way to SMTP: whatever is sent twice was sent by Graph first. */
export function groupsOf(plan: Plan): Plan {
  const dice = createRandom(plan.seed).branch('groups');
  const activeMs = dice.between(3, 12) * MINUTE_MS;
  const all = { from: 0, to: activeMs };
  const isToMany = dice.chance(0.5);
  const messages = plan.messages.map((m) => ({
    ...m,
    recipients: isToMany ? dice.between(1, 3) : 1,
    at: dice.between(0, Math.floor(activeMs * 0.8)),
  }));
  const moment = (): number => Math.min(activeMs - 5_000, dice.pick(messages).at + dice.between(0, 40_000));
  const times = (most: number, make: () => Fault): Fault[] =>
    Array.from({ length: dice.between(0, most) }, make);
  const relay = (): number => dice.between(0, plan.relays - 1);
  const faults: Fault[] = [
    { kind: 'graph', chance: dice.pick([0.2, 0.5, 0.8]), ...all },
    {
      kind: 'hang up',
      point: 'dot',
      how: dice.pick(['abort', 'close']),
      chance: dice.pick([0, 0.2]),
      ...all,
    },
    {
      kind: 'mood',
      stage: isToMany ? 'rcpt' : 'end',
      mood: { kind: 'reply', code: 450, text: '4.2.1 not now' },
      chance: 0.3,
      ...all,
    },
    ...times(8, () => ({
      kind: 'reload',
      relay: relay(),
      at: moment(),
      edit: `groups ${dice.between(1, 1_000)}`,
    })),
    ...times(4, () => {
      const from = moment();
      return { kind: 'kill', relay: relay(), how: 'kill', from, to: from + 2_000 };
    }),
    ...times(2, () => {
      const from = dice.between(0, activeMs - 10_000);
      return {
        kind: 'mood',
        stage: 'auth',
        mood: { kind: 'reply', code: 535, text: OFF },
        chance: 1,
        from,
        to: Math.min(activeMs, from + dice.between(10_000, 200_000)),
      };
    }),
  ];
  return {
    ...plan,
    hasGroups: true,
    activeMs,
    accounts: plan.accounts.map((a) => ({ ...a, byGraph: true, messagesPerMinute: 0, password: undefined })),
    messages,
    faults,
  };
}

/** The entries as an edit leaves them; without one nobody is missing. */
export function groupEntries(
  entries: readonly Record<string, unknown>[],
  edit: Edit,
  seed: number,
): Record<string, unknown>[] {
  const dice = createRandom(seed).branch(edit);
  const senders = entries.map(({ email }) => email);
  const missing = edit === 'nothing' ? -1 : dice.between(0, entries.length);
  return entries
    .map(({ transport: _, ...entry }, i) => ({ ...entry, senders, ...wayOf(dice, i) }))
    .filter((_, i) => entries.length === 1 || i !== missing);
}

function wayOf(dice: Random, index: number): Record<string, unknown> {
  const transport = dice.pick(['graph', 'graph', 'smtp_then_graph', 'smtp_then_graph', 'smtp'] as const);
  const graph =
    transport === 'smtp'
      ? {}
      : { graph_recipients: 'rewrite', graph_permissions: dice.chance(0.25) ? 'send' : 'read_write' };
  const name = dice.chance(0.3) ? { account_id: `name-${dice.between(1, 3)}-${index}` } : {};
  return { transport, preference: dice.between(1, 2), ...graph, ...name };
}

/** Looks in Sent Items, as a person is asked to, and decides; what has reached some of its recipients is left alone. */
export function decideUnclear(
  world: World,
  operator: Actor,
  {
    relays,
    clients,
    graph,
  }: {
    readonly relays: readonly RelayHost[];
    readonly clients: readonly Client[];
    readonly graph: GraphEndpoint;
  },
): void {
  world.after(operator, LOOKS_MS, () => decideUnclear(world, operator, { relays, clients, graph }));
  for (const { actor, backend, isStopping } of relays) {
    if (actor === undefined || backend === undefined || isStopping) continue;
    const decide = async (): Promise<void> => {
      for (const { key, clears, since, message_id } of await backend.unclear()) {
        if (clears !== 'person' || world.now + EPOCH - Date.parse(since) < SETTLED_MS) continue;
        const id = /<(m\d+)@sim>/.exec(message_id ?? '')?.[1];
        const asked = clients.flatMap((c) => c.attempts).find((a) => a.message.id === id);
        const wanted = asked?.message.to ?? [];
        const reached = new Set(
          graph.delivered.filter((d) => d.text.includes(`X-Sim: ${id}\r\n`)).flatMap((d) => d.recipients),
        );
        if (reached.size > 0 && reached.size < wanted.length) continue;
        world.note(`decides that ${id} was ${reached.size > 0 ? '' : 'not '}sent`, operator);
        await backend.decide(key, reached.size > 0 ? 'delivered' : 'again');
      }
    };
    // Where it cannot be known it is asked again.
    world.after(actor, 0, () => void decide().catch(() => undefined));
  }
}
