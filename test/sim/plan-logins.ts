/** Logins in a plan: who needs AUTH, how TLS begins, and what goes wrong with either. Dice of their own, so that the rest is what it was. Pure. */
import type { Sasl } from './client-login.ts';
import { type Fault, type Plan, planMoment } from './plan.ts';
import type { Mood, Stage } from './provider.ts';
import { createRandom, type Random } from './random.ts';
import { SECRET_MARK } from './token-endpoint.ts';

const SASLS: readonly Sasl[] = ['PLAIN', 'PLAIN in two steps', 'LOGIN', 'LOGIN with user'];

/** What real providers say to a login, and where. */
const REFUSALS: readonly (readonly [Stage, number, string])[] = [
  ['auth', 535, '5.7.8 Username and Password not accepted'],
  ['auth', 535, '5.7.3 Authentication unsuccessful'],
  ['auth', 535, '5.7.139 Authentication unsuccessful, the request did not meet the criteria'],
  ['auth', 534, '5.7.14 Please log in through your web browser'],
  ['auth', 550, '5.7.1 this account may not send'],
  ['auth', 454, '4.7.0 Too many login attempts, please try again later'],
  ['auth', 454, '4.7.0 Temporary authentication failure'],
  ['auth', 451, '4.7.0 Temporary server error. Please try again later. PRX4'],
  ['auth', 421, '4.7.0 Temporary System Problem'],
  ['auth line', 421, '4.7.0 Temporary System Problem'],
  ['auth line', 454, '4.7.0 Temporary authentication failure'],
  ['auth line', 504, '5.7.4 Unrecognized authentication type'],
  ['auth line', 535, '5.7.8 Username and Password not accepted'],
  ['auth line', 503, '5.5.1 not now'],
  ['starttls', 454, '4.7.0 TLS not available due to temporary reason'],
  ['starttls', 421, '4.3.2 service not available'],
  ['starttls', 500, '5.5.1 unknown command'],
];

export function withLogins(plan: Plan): Plan {
  const dice = createRandom(plan.seed).branch('logins');
  const tls = dice.chance(0.4) ? 'starttls' : 'implicit';
  const needsAuth = dice.chance(0.4);
  const accounts = plan.accounts.map((account) => ({
    ...account,
    password: needsAuth && dice.chance(0.7) ? `${SECRET_MARK}-password-${account.email}` : undefined,
  }));
  const clients = plan.clients.map((client) => ({ ...client, sasl: dice.pick(SASLS) }));
  const challenges = dice.chance(0.5);
  const faults = [...plan.faults];
  if (faults.length > 0 && dice.chance(0.35)) faults.push(planUpstream(dice, plan, tls));
  if (faults.length > 0 && needsAuth && dice.chance(0.5)) faults.push(planClient(dice, plan));
  return { ...plan, tls, challenges, accounts, clients, faults };
}

function planWindow(dice: Random, plan: Plan): { readonly from: number; readonly to: number } {
  const { activeMs } = plan;
  const from = planMoment(dice, activeMs, plan.messages);
  return { from, to: Math.min(activeMs, from + dice.pick([5_000, 60_000, activeMs])) };
}

function planUpstream(dice: Random, plan: Plan, tls: Plan['tls']): Fault {
  const chance = dice.pick([0.1, 0.3, 1]);
  const window = planWindow(dice, plan);
  const stages: readonly Stage[] =
    tls === 'starttls' ? ['starttls', 'auth line', 'auth'] : ['auth line', 'auth'];
  const how = dice.between(0, 9);
  if (tls === 'starttls' && how === 0)
    return { kind: 'mood', stage: 'ehlo', mood: { kind: 'strip' }, chance, ...window };
  if (how < 6) {
    const [stage, code, text] = dice.pick(REFUSALS.filter(([at]) => stages.includes(at)));
    return {
      kind: 'mood',
      stage,
      mood: { kind: 'reply', code, text, closes: code === 421 },
      chance,
      ...window,
    };
  }
  const moods: readonly Mood[] = [
    { kind: 'drop', how: 'fin', acts: false },
    { kind: 'drop', how: 'reset', acts: true },
    { kind: 'silence' },
    { kind: 'late', ms: 10_000 },
    { kind: 'drip', stepMs: 250 },
  ];
  return { kind: 'mood', stage: dice.pick(stages), mood: dice.pick(moods), chance, ...window };
}

function planClient(dice: Random, plan: Plan): Fault {
  const window = planWindow(dice, plan);
  const chance = dice.pick([0.1, 0.5]);
  if (dice.chance(0.25))
    return { kind: 'hang up', point: 'auth', how: dice.pick(['close', 'abort', 'half']), chance, ...window };
  return { kind: 'client login', how: dice.pick(['wrong password', 'cancel', 'none']), chance, ...window };
}
