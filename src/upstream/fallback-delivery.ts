/**
 * A message on its way by the first choice, which becomes one by the second where the first turns out to
 * be switched off before anything of the message was sent. In: the delivery of the first, and how to begin
 * the second. Out: a delivery. Recipients asked for by then are promised: the second has no verdicts on them.
 */
import { fitParameters, type Mail, type Recipient } from '../protocol/esmtp.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import type { Delivery, MayBegin, Trace, Way } from './way.ts';

export interface FallbackDeliveryDeps {
  readonly first: Delivery;
  /** Of this transaction; both deliveries fill it. */
  readonly trace: Trace;
  readonly mayBegin: MayBegin | undefined;
  /** The second way, where the first is known to be switched off; `refusal` is what the first one said. */
  readonly secondFor: (refusal: Reply) => Way | undefined;
}

const PROMISED = reply(250, '2.1.5', 'OK');

export function createFallbackDelivery({
  first,
  trace,
  mayBegin,
  secondFor,
}: FallbackDeliveryDeps): Delivery {
  let current = first;
  let isClosed = false;

  /** True where the message goes by the second way from now on. */
  async function turned(
    refusal: Reply,
    mail: Mail,
    recipients: readonly Recipient[],
    octets: number,
  ): Promise<boolean> {
    if (current !== first || isClosed || trace.flights > 0) return false;
    const second = secondFor(refusal);
    if (second === undefined || !isFit(second, mail, recipients, octets)) return false;
    if ((await second.ready()) !== undefined || isClosed) return false;
    first.close();
    current = second.begin(trace, mayBegin);
    return true;
  }

  return {
    async ask(mail, told, asked) {
      if (current !== first) return { kind: 'heard', replies: asked.map(() => PROMISED) };
      const heard = await first.ask(mail, told, asked);
      if (heard.kind !== 'failed' || !(await turned(heard.verdict.answer, mail, [...told, ...asked], 0)))
        return heard;
      return { kind: 'heard', replies: asked.map(() => PROMISED) };
    },
    async send(mail, told, body, octets) {
      if (current !== first) return current.send(mail, told, body, octets);
      const ending = await first.send(mail, told, body, octets);
      if ('taken' in ending || !(await turned(ending.verdict.answer, mail, told, octets))) return ending;
      return current.send(mail, told, body, octets);
    },
    // A body that is not held whole cannot go by the second: the client's retry begins there.
    open: (mail, told) => current.open(mail, told),
    close() {
      isClosed = true;
      current.close();
    },
    giveUp() {
      isClosed = true;
      current.giveUp();
    },
  };
}

/** What the second would refuse for good waits for the first. */
function isFit(way: Way, mail: Mail, recipients: readonly Recipient[], octets: number): boolean {
  const { capabilities, maxBytes, withoutDomain } = way.facts;
  const isBare = [mail.sender, ...recipients.map((r) => r.address)].some((a) => !a.includes('@'));
  if (octets > maxBytes || (isBare && withoutDomain === 'refused')) return false;
  const offered = capabilities;
  if (offered === undefined) return true;
  return [mail, ...recipients].every(({ parameters }) => !('refusal' in fitParameters(parameters, offered)));
}
