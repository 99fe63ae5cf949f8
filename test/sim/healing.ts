/**
 * How long after its last fault a world may take until every message is delivered. Computed from the pauses that the
 * docs name (troubleshooting, tokens, fleet, microsoft-graph) and the time that is left to the faults. Pure.
 */
import type { Fault, Plan } from './plan.ts';

const MINUTE_MS = 60_000;
/** A probe's rest of half a minute, the wait for a connection and an answer, and what the queue then tries again. */
const BASE_MS = 4 * MINUTE_MS;
/** Minutes of an account's pauses, by how often its logins were refused in a row. */
const REJECTED = [1, 5, 15, 60];
const THROTTLED = [5, 15, 60];
const POLICY = [60];
/** The longest that a program with wrong passwords is not listened to. */
const LOCKED_OUT_MS = 15 * MINUTE_MS;
/** A token endpoint is asked again every minute; an answer takes 20 s and is awaited a minute longer. */
const TOKEN_MS = 4 * MINUTE_MS;
/** Whoever has a message by Graph in hand keeps it for 5 minutes, killed or not. */
const CLAIMED_MS = 6 * MINUTE_MS;
/** A relay that is back waits until the others have told, and has only what is left of the minute. */
const APART_MS = 3 * MINUTE_MS;
/** After the final dot a silent provider is waited for as long as a client waits (RFC 5321 §4.5.3.2.6). */
const SILENCE_MS = 10 * MINUTE_MS;
/** After a stop's deadline the operator starts the relay again. */
const START_AGAIN_MS = 30_000;

export function healMs(plan: Plan): number {
  const longest = Math.max(0, ...plan.faults.map((fault) => afterMs(fault, plan)));
  return BASE_MS + queueMs(plan) + loginMs(plan) + longest;
}

/** The queue drains as slowly as the limits of an account say; a recipient may be sent a transaction of its own. */
function queueMs({ accounts, messages }: Plan): number {
  const ofAccount = accounts.map(({ messagesPerMinute }, i) => {
    if (messagesPerMinute === 0) return 0;
    const transactions = messages.reduce((n, m) => (m.account === i ? n + Math.min(m.recipients, 2) : n), 0);
    return Math.ceil(transactions / messagesPerMinute) * MINUTE_MS;
  });
  return Math.max(...ofAccount);
}

/** The pause of logins that may stand at the end. */
function loginMs({ faults }: Plan): number {
  const refusals = faults.filter((f) => f.kind === 'mood' && stepsOf(f) !== undefined);
  const from = Math.min(...refusals.map((f) => ('from' in f ? f.from : 0)));
  const to = Math.max(...refusals.map((f) => ('to' in f ? f.to : 0)));
  const pauses = refusals.map((f) => pauseAt(stepsOf(f) ?? [], to - from));
  return Math.max(0, ...pauses);
}

function stepsOf(fault: Fault): readonly number[] | undefined {
  if (fault.kind !== 'mood' || fault.mood.kind !== 'reply') return undefined;
  const { code, text } = fault.mood;
  switch (fault.stage) {
    case 'auth':
    case 'auth line':
      if (/too many login/i.test(text)) return THROTTLED;
      if (/^5\.7\.(?:139|14|9)\b/.test(text)) return POLICY;
      return code >= 500 ? REJECTED : undefined;
    default:
      return undefined;
  }
}

/** The step that is reached where every login is refused for `windowMs`. */
function pauseAt(steps: readonly number[], windowMs: number): number {
  let passedMs = 0;
  for (let step = 0; ; step += 1) {
    const pauseMs = (steps[Math.min(step, steps.length - 1)] ?? 0) * MINUTE_MS;
    passedMs += pauseMs;
    if (passedMs > windowMs || step >= steps.length - 1) return pauseMs;
  }
}

/** What else a fault leaves behind. */
function afterMs(fault: Fault, { activeMs, store, accounts }: Plan): number {
  switch (fault.kind) {
    case 'client login':
      return fault.how === 'wrong password' ? LOCKED_OUT_MS : 0;
    case 'token':
    case 'revoke access':
    case 'clock':
      return TOKEN_MS;
    case 'graph':
      return CLAIMED_MS;
    case 'stop':
    case 'kill': {
      const startsAt = fault.kind === 'stop' ? fault.to + fault.deadlineMs + START_AGAIN_MS : fault.to;
      const isClaimed = store !== 'memory' && accounts.some((a) => a.byGraph);
      return Math.max(0, startsAt - activeMs) + (isClaimed ? CLAIMED_MS : MINUTE_MS);
    }
    case 'redis':
      return APART_MS + (accounts.some((a) => a.byGraph) ? CLAIMED_MS : 0);
    case 'admin':
    case 'disk':
    case 'reload':
      return MINUTE_MS;
    case 'black':
      return SILENCE_MS;
    case 'mood':
      return fault.mood.kind === 'silence' || fault.mood.kind === 'drip' ? SILENCE_MS : 0;
    case 'provider down':
    case 'hang up':
    case 'break':
    case 'slow path':
      return 0;
    default:
      return fault satisfies never;
  }
}
