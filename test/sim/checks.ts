/** The invariants: what clients heard, what the provider took, and what the relays left behind, held against each other. Pure. */
import { type Attempt, type Heard, keyOf } from './client.ts';
import { type Delivery, markOf, type Said, serialOf } from './provider.ts';
import type { LogLine } from './relay-host.ts';

export interface Violation {
  /** Which invariant; equal for equal faults. */
  readonly rule: string;
  readonly detail: string;
  readonly at: number;
}

export interface Evidence {
  readonly attempts: readonly Attempt[];
  readonly deliveries: readonly Delivery[];
  readonly said: ReadonlyMap<number, Said>;
  /** Transactions whose outcome a relay called unknown. */
  readonly unknown: readonly {
    readonly recipients: readonly string[];
    readonly at: number;
    readonly totalMs: number;
  }[];
  readonly log: readonly LogLine[];
  /** Texts that left a relay otherwise: answers of the admin room. */
  readonly texts: readonly string[];
  readonly secretMark: string;
  /** 5xx that the relay says for a documented reason. */
  readonly isOurs: (reply: Heard, attempt: Attempt) => boolean;
  /** Nothing went wrong in this run: nobody may be deferred but for a limit. */
  readonly isCalm: boolean;
  /** Messages a minute, by account; 0: no limit. */
  readonly perMinute: ReadonlyMap<string, number>;
  /** Recipients of transactions that were begun again on another connection: they count when they began first. */
  readonly replayed: ReadonlySet<string>;
  /** From its place in the minute to its first octet upstream a message may take so long, ms. */
  readonly beginMs: number;
  /** After so many seconds a minute's limit has room again. */
  readonly longestWaitS: number;
  /** What is larger streams. */
  readonly heldOctets: number;
  /** Nothing broke on the way to the provider: what became of a message is known. */
  readonly isCertain: boolean;
  /** The provider's replies carry enhanced codes: one too many can be told, and is nobody else's. */
  readonly isTagged: boolean;
}

export interface Figures {
  readonly attempts: number;
  readonly acknowledged: number;
  readonly deferred: number;
  readonly refused: number;
  readonly unknown: number;
}

/** Counts attempts; `isUnknown`: delivered, and the client has not heard 250. */
export function tally(attempts: readonly Attempt[], isUnknown: (attempt: Attempt) => boolean): Figures {
  const figures = { attempts: attempts.length, acknowledged: 0, deferred: 0, refused: 0, unknown: 0 };
  for (const attempt of attempts) {
    const code = attempt.final?.code;
    if (code === 250) figures.acknowledged += 1;
    else if (code !== undefined && code >= 500) figures.refused += 1;
    else figures.deferred += 1;
    if (code !== 250 && isUnknown(attempt)) figures.unknown += 1;
  }
  return figures;
}

export function check(evidence: Evidence): { readonly violations: Violation[]; readonly figures: Figures } {
  const violations: Violation[] = [];
  const taken = new Map<string, Delivery[]>();
  for (const delivery of evidence.deliveries) {
    const key = markOf(delivery.body);
    const list = taken.get(key);
    if (list === undefined) taken.set(key, [delivery]);
    else list.push(delivery);
  }
  const figures = tally(evidence.attempts, (attempt) => taken.has(keyOf(attempt)));
  for (const attempt of evidence.attempts) {
    const deliveries = taken.get(keyOf(attempt)) ?? [];
    taken.delete(keyOf(attempt));
    violations.push(...checkAttempt(attempt, deliveries, evidence));
  }
  for (const [key, deliveries] of taken)
    violations.push({ rule: 'delivered from nowhere', detail: key, at: deliveries[0]?.at ?? 0 });
  if (evidence.isCertain)
    for (const { at, recipients } of evidence.unknown)
      violations.push({ rule: 'unknown for nothing', detail: recipients.join(' '), at });
  violations.push(...checkSecrets(evidence), ...checkMinutes(evidence));
  return { violations, figures };
}

function checkAttempt(attempt: Attempt, deliveries: readonly Delivery[], evidence: Evidence): Violation[] {
  const found: Violation[] = [];
  const key = keyOf(attempt);
  const blame = (rule: string, detail: string): void => {
    found.push({ rule, detail: `${key}: ${detail}`, at: attempt.endedAt ?? attempt.begunAt });
  };
  const { final } = attempt;
  const promised = attempt.rcpts.filter((r) => r.reply?.code === 250).map((r) => r.recipient);
  const [delivery] = deliveries;
  const { password, account } = attempt.message;
  if (attempt.mail?.code === 250 && password !== undefined && attempt.loggedInTo !== account)
    blame('let in without its password', `MAIL of ${account}`);
  if (delivery !== undefined && delivery.account !== account)
    blame('sent as another', `of ${account}, by ${delivery.account}`);
  if (deliveries.length > 1) blame('delivered twice', `${deliveries.length} times`);
  if (delivery !== undefined && !delivery.body.equals(attempt.body))
    blame('body changed', `${attempt.body.length} octets became ${delivery.body.length}`);
  if (final?.code === 250) {
    if (delivery === undefined) blame('acknowledged and lost', promised.join(' '));
    else if (!isSameSet(promised, delivery.recipients))
      blame('other recipients', `promised ${promised.join(' ')}, delivered ${delivery.recipients.join(' ')}`);
    const serial = serialOf(final.text);
    // Without codes the words may be another's, the verdict never.
    if (evidence.isTagged && delivery !== undefined && serial !== undefined && serial !== delivery.serial)
      blame('answer of another', `heard #${serial}, its own is #${delivery.serial}`);
  } else if (delivery !== undefined) {
    const excuse = unacknowledged(attempt, delivery, evidence);
    if (excuse !== undefined)
      blame(excuse, `heard ${final === undefined ? 'nothing' : `${final.code} ${final.text}`}`);
  }
  for (const heard of [attempt.mail, ...attempt.rcpts.map((r) => r.reply), attempt.data, final]) {
    if (heard === undefined || heard.code < 400 || heard.code >= 500) continue;
    const seconds = Number(LIMIT_WAIT.exec(heard.text)?.[1] ?? 0);
    if (/rate limit|in a minute/i.test(heard.text) && seconds > evidence.longestWaitS)
      blame('limit beyond its window', heard.text);
    // A connection that the provider ends of itself takes a stream with it.
    const isCut = attempt.body.length > evidence.heldOctets && /connection (?:lost|expired)/.test(heard.text);
    if (evidence.isCalm && !isCut && !/limit|in a minute/i.test(heard.text))
      blame('deferred for nothing', heard.text);
  }
  for (const { reply } of attempt.rcpts) checkReply(attempt, reply, evidence, blame);
  checkReply(attempt, attempt.mail, evidence, blame);
  checkReply(attempt, final, evidence, blame);
  if (
    attempt.data !== undefined &&
    attempt.data.code >= 500 &&
    !/No valid recipients/.test(attempt.data.text)
  )
    checkReply(attempt, attempt.data, evidence, blame);
  return found;
}

/** Begun upstream within a minute, as the provider counts. */
function checkMinutes({ deliveries, perMinute, beginMs, replayed }: Evidence): Violation[] {
  const found: Violation[] = [];
  for (const [account, most] of perMinute) {
    if (most === 0) continue;
    const begun = deliveries
      .filter((d) => d.account === account && !d.recipients.some((recipient) => replayed.has(recipient)))
      .map((d) => d.begunAt);
    begun.sort((a, b) => a - b);
    for (const [i, at] of begun.entries()) {
      const later = begun[i + most];
      if (later === undefined || later - at >= MINUTE_MS - beginMs) continue;
      found.push({
        rule: 'too many in a minute',
        detail: `${account}: more than ${most} in ${later - at} ms`,
        at,
      });
      break;
    }
  }
  return found;
}

const MINUTE_MS = 60_000;
const LIMIT_WAIT = /(?:try again in|after) (\d+) s/;

/** Why this delivery, of which the client did not hear 250, is wrong; undefined: such is SMTP. */
function unacknowledged(attempt: Attempt, delivery: Delivery, evidence: Evidence): string | undefined {
  if (attempt.dotAt === undefined) return 'delivered unfinished';
  if (attempt.final === undefined) {
    const { farEnd } = attempt;
    // Whoever closed one way may still read; a reset, or a close that was answered, is certain.
    if (farEnd?.heardResetAt !== undefined && farEnd.heardResetAt < delivery.sentAt)
      return 'sent for a client that had left';
    return undefined;
  }
  const isSaid = evidence.unknown.some(
    (u) =>
      u.recipients.some((r) => attempt.message.recipients.includes(r)) && u.at + u.totalMs >= attempt.begunAt,
  );
  if (attempt.final.code >= 500) return 'refused and delivered';
  return isSaid ? undefined : 'deferred and delivered';
}

/** A reply that carries the provider's number belongs to this message; a 5xx always carries one. */
function checkReply(
  attempt: Attempt,
  reply: Heard | undefined,
  evidence: Evidence,
  blame: (rule: string, detail: string) => void,
): void {
  if (reply === undefined) return;
  const serial = serialOf(reply.text);
  const said = serial === undefined ? undefined : evidence.said.get(serial);
  const words = `${reply.code} ${reply.text}`;
  if (said === undefined) {
    if (reply.code >= 500 && !evidence.isOurs(reply, attempt)) blame('refused by nobody', words);
    return;
  }
  if (said.stage === 'rset' && reply.code >= 500) blame('answer of another', `${words}, said of RSET`);
  else if (said.account !== attempt.message.account && said.account !== '') blame('answer of another', words);
  else if (
    evidence.isTagged &&
    said.recipients.length > 0 &&
    !said.recipients.some((r) => attempt.message.recipients.includes(r))
  )
    blame('answer of another', `${words}, said of ${said.recipients.join(' ')}`);
  if (reply.code >= 500 && said.code < 500) blame('refused by nobody', words);
}

function checkSecrets({ log, texts, secretMark, attempts }: Evidence): Violation[] {
  const leaks = [
    ...log.filter((line) => line.text.includes(secretMark)).map((line) => line.text),
    ...texts.filter((text) => text.includes(secretMark)),
    ...attempts
      .flatMap((a) => [a.mail, a.data, a.final])
      .flatMap((r) => (r?.text.includes(secretMark) ? [r.text] : [])),
  ];
  return leaks.slice(0, 3).map((text) => ({ rule: 'secret shown', detail: text.slice(0, 300), at: 0 }));
}

function isSameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((x) => b.includes(x));
}
