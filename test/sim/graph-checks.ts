/** The invariants of mail by Graph: of a message, over all its tries and all relays. Pure. */
import { type Figures, tally, type Violation } from './checks.ts';
import type { Attempt } from './client.ts';
import type { GraphDelivery, GraphEndpoint } from './graph.ts';

/** The same of a message that may go to some of its recipients by itself, by SMTP too. */
function checkEach(
  id: string,
  attempts: readonly Attempt[],
  to: readonly string[],
  evidence: Parameters<typeof checkGraph>[0],
): Violation[] {
  const violations: Violation[] = [];
  const at = attempts.at(-1)?.endedAt ?? 0;
  const blame = (rule: string, detail: string): void =>
    void violations.push({ rule, detail: `${id}: ${detail}`, at });
  const copies = evidence.delivered
    .filter((d) => d.text.includes(`X-Sim: ${id}\r\n`))
    .sort((a, b) => a.at - b.at);
  for (const recipient of to) {
    const own = copies.filter((d) => d.recipients.includes(recipient));
    const first = own.findIndex((d) => evidence.byGraph.includes(d));
    // After one by SMTP that nobody heard of another may come: such is SMTP.
    if (first >= 0 && first < own.length - 1 && !evidence.forgets)
      blame('delivered twice', `${recipient} at ${own.map((d) => Math.round(d.at)).join(', ')}`);
    const isPromised = attempts.some(
      ({ rcpts, final }) =>
        final?.code === 250 && rcpts.some((r) => r.recipient === recipient && r.reply?.code === 250),
    );
    if (isPromised && own.length === 0) blame('acknowledged and lost', recipient);
  }
  for (const { recipients } of copies)
    for (const other of recipients) if (!to.includes(other)) blame('other recipients', other);
  for (const { mail, rcpts, data, final } of attempts)
    for (const reply of [mail, data, final, ...rcpts.map((r) => r.reply)])
      if (reply !== undefined && reply.code >= 500 && !/No account for sender|No valid/.test(reply.text))
        blame('refused by nobody', `${reply.code} ${reply.text}`);
  return violations;
}

/** Drafts of which nothing is noted: nobody will ever delete them. `journals`: what the relays have noted, a line each. */
export function checkDrafts(
  drafts: GraphEndpoint['drafts'],
  journals: readonly string[],
  at: number,
): Violation[] {
  const noted = journals.flatMap((text) => {
    const rows = new Map(text.split('\n').map((line) => [line.slice(0, 32), line.slice(33)]));
    return [...rows.values()];
  });
  return drafts
    .filter(
      ({ id, messageId }) =>
        !noted.some(
          (row) =>
            row.includes(`"${id}"`) ||
            (/"state":"creating"|"leftovers/.test(row) && row.includes(`"${messageId}"`)),
        ),
    )
    .map(({ id, messageId }) => ({ rule: 'a draft that nobody knows', detail: `${id} ${messageId}`, at }));
}

export function checkGraph(evidence: {
  /** Of messages by Graph. */
  readonly attempts: readonly Attempt[];
  readonly delivered: readonly GraphDelivery[];
  /** The relays lost what they knew: then a second copy is nobody's fault. */
  readonly forgets: boolean;
  /** Of `delivered`: by Graph itself, not by SMTP. */
  readonly byGraph: readonly GraphDelivery[];
}): { readonly violations: Violation[]; readonly figures: Figures } {
  const violations: Violation[] = [];
  const blame = (rule: string, id: string, detail: string, at: number): void =>
    void violations.push({ rule, detail: `${id}: ${detail}`, at });
  const byMessage = new Map<string, Attempt[]>();
  for (const attempt of evidence.attempts) {
    const { id } = attempt.message;
    byMessage.set(id, [...(byMessage.get(id) ?? []), attempt]);
  }
  for (const delivery of evidence.delivered) {
    const id = /^X-Sim: (\S+)/m.exec(delivery.text)?.[1] ?? '?';
    if (!byMessage.has(id)) blame('delivered from nowhere', id, 'by Graph', delivery.at);
  }
  for (const [id, attempts] of byMessage) {
    if (attempts[0]?.message.to !== undefined) {
      violations.push(...checkEach(id, attempts, attempts[0].message.to, evidence));
      continue;
    }
    const copies = evidence.delivered.filter((d) => d.text.startsWith(`X-Sim: ${id}\r\n`));
    const [copy] = copies;
    const at = attempts.at(-1)?.endedAt ?? 0;
    if (copies.length > 1 && !evidence.forgets) blame('delivered twice', id, `${copies.length} by Graph`, at);
    const heard = attempts.filter((a) => a.final?.code === 250);
    if (heard.length > 0 && copy === undefined) blame('acknowledged and lost', id, 'by Graph', at);
    if (copy !== undefined) {
      if (copy.text !== attempts[0]?.body.toString('latin1')) blame('body changed', id, 'by Graph', copy.at);
      if (copy.recipients.join() !== attempts[0]?.message.recipients.join())
        blame('other recipients', id, copy.recipients.join(' '), copy.at);
      if (attempts.every((a) => a.dotAt === undefined))
        blame('delivered unfinished', id, 'by Graph', copy.at);
    }
    for (const { message, loggedInTo, mail, rcpts, data, final } of attempts)
      for (const reply of [mail, data, final, ...rcpts.map((r) => r.reply)])
        if (
          reply !== undefined &&
          reply.code >= 500 &&
          !(reply.code === 530 && message.password !== undefined && loggedInTo === undefined) &&
          !/No account for sender|No valid recipients/.test(reply.text)
        )
          blame('refused by nobody', id, `${reply.code} ${reply.text}`, reply.at);
  }
  // The body of all tries is one: what came of it is known of the last.
  const figures = tally(evidence.attempts, (attempt) => {
    const { id } = attempt.message;
    const tries = byMessage.get(id) ?? [];
    return (
      attempt === tries.at(-1) &&
      tries.every((a) => a.final?.code !== 250) &&
      evidence.delivered.some((d) => d.text.includes(`X-Sim: ${id}\r\n`))
    );
  });
  return { violations, figures };
}
