/**
 * The transaction rule: defer until it matters. In: one client transaction, command by command. Out: a
 * reply each, and the message upstream at most once. With one recipient nothing is sent before the body
 * is there; recipients that come together, and from the second on, hear the provider where the way can
 * ask it. 250 only after the provider's 250. Owns the octets it has not sent yet; which states there are
 * and what leads to which stands in transaction-states.ts.
 */
import { fitParameters, type Mail, type Recipient } from '../protocol/esmtp.ts';
import { withoutSize } from '../protocol/esmtp-parameters.ts';
import { isPositive, type Reply, reply } from '../protocol/reply.ts';
import { type Soon, whenKnown } from '../soon.ts';
import {
  type BodyStream,
  type Delivery,
  type Ending,
  heardFor,
  type Way,
  type WayFacts,
} from '../upstream/way.ts';
import { outcomeOf, type RecordDraft } from './record.ts';
import type { BodyWriter, FirstRecipient, MailCommand, Transaction } from './relay.ts';
import { type Event, next, START, type State } from './transaction-states.ts';

export const MAIL_OK = reply(250, '2.1.0', 'sender ok');
const RCPT_OK = reply(250, '2.1.5', 'recipient ok');
/** The first recipient was refused after we had said 250 for it: the others go in a transaction of their own. */
const SEND_SEPARATELY = reply(452, '4.5.3', 'send this recipient in another transaction');
/** `RCPT TO:<Postmaster>` (RFC 5321 §4.5.1) is mail for whoever runs this host. */
const NO_DOMAIN = reply(
  550,
  '5.1.3',
  'mail of this account leaves by whole addresses only: say postmaster with a domain, postmaster@example.org',
);
const OUT_OF_ORDER = reply(503, '5.5.1', 'not now');
const isReply = (fit: Recipient | Reply): fit is Reply => 'code' in fit;
const OVER = reply(451, '4.3.0', 'transaction is over');

/** 421 is the reply to any command of a service that closes (RFC 5321 §3.8); a verdict on the message stays one. */
const closing = (answer: Reply): Reply => (answer.code === 451 ? { ...answer, code: 421 } : answer);

export interface TransactionOptions {
  /** Bodies up to this many octets are held whole and can be replayed. */
  readonly replayBytes: number;
}

export interface TransactionDeps {
  readonly command: MailCommand;
  readonly way: Way;
  /** Filled as the transaction goes. */
  readonly record: RecordDraft;
  /** Called once, at the end, when the record is complete. */
  readonly onEnd: () => void;
}

const ofAnySize = (mail: Mail): Mail => ({
  ...mail,
  parameters: withoutSize(mail.parameters),
});

const mostHeldOf = ({ facts }: Way, { replayBytes }: TransactionOptions): number =>
  facts.body === 'streams' ? Math.max(replayBytes, facts.heldAtLeast ?? 0) : facts.maxBytes;

/** What the first recipient hears where it comes alone. */
const firstRecipientOf = ({ account, firstRecipient }: MailCommand): FirstRecipient | undefined =>
  account.firstRecipient ?? (account.completeHeader === true ? 'live' : firstRecipient);

function mailOf({ sender, parameters, clientSender, session }: MailCommand): Mail {
  const { confinedTo, mayBeGone, heard } = session;
  return {
    sender,
    parameters,
    ...(clientSender === undefined ? {} : { clientSender }),
    ...(confinedTo === undefined ? {} : { confinedTo }),
    ...(mayBeGone === undefined ? {} : { mayBeGone }),
    ...(heard === undefined ? {} : { heard }),
  };
}

/** A class: closures of each message would cost more than it does. */
export class ClientTransaction implements Transaction, BodyWriter {
  readonly id: string;
  readonly mostHeld: number;
  readonly #deps: TransactionDeps;
  readonly #facts: WayFacts;
  readonly #delivery: Delivery;
  #mail: Mail;
  /** Those that heard 250. */
  readonly #told: Recipient[] = [];
  #state: State = START;
  /** Nobody waits for the provider any longer: the relay stops. */
  #isGivenUp = false;

  constructor(deps: TransactionDeps, options: TransactionOptions) {
    const { command, way, record } = deps;
    this.id = record.id;
    this.mostHeld = mostHeldOf(way, options);
    this.#deps = deps;
    this.#facts = way.facts;
    this.#mail = mailOf(command);
    this.#delivery = way.begin(record);
  }

  rcpt(recipients: readonly Recipient[]): Soon<readonly Reply[]> {
    let place = this.#told.length;
    const fits = recipients.map((recipient) => {
      const fit = this.#fitted(recipient, place);
      if (!isReply(fit)) place++;
      return fit;
    });
    const answers = this.#answersTo(fits.filter((fit): fit is Recipient => !isReply(fit)));
    return whenKnown(answers, (of) => {
      const left = of.values();
      return fits.map((fit) => (isReply(fit) ? fit : (left.next().value ?? OUT_OF_ORDER)));
    });
  }

  refusalAtData(): Reply | undefined {
    const state = this.#state;
    if (state.at !== 'refused') return undefined;
    const { answer } = state.verdict;
    this.#step({ on: 'data' });
    this.#finish(outcomeOf(answer), answer);
    return answer;
  }

  body(): BodyWriter {
    this.#step({ on: 'data' });
    return this;
  }

  abort(): void {
    if (this.#state.at === 'ended') return;
    if (this.#step({ on: 'left' }).at === 'ended') this.#finish('aborted', undefined);
    else this.#delivery.close();
  }

  write(chunk: Buffer): Promise<void> | undefined {
    const state = this.#state;
    const { record } = this.#deps;
    if (state.at === 'ended') return undefined;
    record.bytes += chunk.length;
    if (state.at === 'streaming') return state.stream.push(chunk);
    if (state.at !== 'holding') return undefined;
    state.chunks.push(chunk);
    const now = this.#step({ on: 'octets', overflows: record.bytes > this.mostHeld });
    return now.at === 'opening' ? this.#openStream(now.chunks) : undefined;
  }

  sizeChanged(): void {
    this.#mail = ofAnySize(this.#mail);
  }

  headerChanged(clientHeader: Buffer): void {
    this.#mail = { ...this.#mail, clientHeader };
  }

  async end(): Promise<Reply> {
    const before = this.#state;
    if (this.#step({ on: 'end' }) === before) return OVER;
    switch (before.at) {
      case 'holding':
        return this.#decide(
          await this.#delivery.send(this.#mail, this.#told, before.chunks, this.#deps.record.bytes),
        );
      case 'streaming':
        return this.#decide(await before.stream.finish());
      case 'dropping': {
        const { answer } = before.verdict;
        this.#finish(outcomeOf(answer), answer);
        return answer;
      }
      default:
        return OVER;
    }
  }

  giveUp(): void {
    this.abort();
    this.#isGivenUp = true;
    this.#delivery.giveUp();
  }

  #step(event: Event): State {
    this.#state = next(this.#state, event);
    return this.#state;
  }

  #finish(outcome: RecordDraft['outcome'], answer: Reply | undefined): void {
    const { record, onEnd } = this.#deps;
    record.outcome = outcome;
    record.reply = answer;
    this.#delivery.close();
    onEnd();
  }

  #tell(recipient: Recipient): void {
    this.#told.push(recipient);
    this.#deps.record.recipients.push(recipient.address);
  }

  /** The recipient as the upstream gets it, or why it cannot have it. */
  #fitted(recipient: Recipient, place: number): Recipient | Reply {
    const { maxRecipients } = this.#deps.command.account.limits;
    const facts = this.#facts;
    if (place >= maxRecipients) return reply(452, '4.5.3', `at most ${maxRecipients} recipients a message`);
    if (facts.withoutDomain === 'refused' && !recipient.address.includes('@'))
      return heardFor(NO_DOMAIN, facts);
    if (facts.capabilities === undefined || recipient.parameters.length === 0) return recipient;
    const fit = fitParameters(recipient.parameters, facts.capabilities);
    return 'refusal' in fit ? heardFor(fit.refusal, facts) : { ...recipient, parameters: fit.parameters };
  }

  /** A reply for each, in order. */
  async #ask(recipients: readonly Recipient[]): Promise<readonly Reply[]> {
    const asked = await this.#delivery.ask(
      this.#deps.command.isSizeUnsure === true ? ofAnySize(this.#mail) : this.#mail,
      this.#told,
      recipients,
    );
    switch (asked.kind) {
      case 'heard':
        for (const [i, recipient] of recipients.entries()) {
          const answer = asked.replies[i];
          if (answer !== undefined && isPositive(answer)) this.#tell(recipient);
        }
        this.#step({ on: 'heard' });
        return asked.replies;
      case 'failed':
        this.#step({ on: 'heard' });
        return recipients.map(() => asked.verdict.answer);
      case 'refused': {
        const { verdict } = asked;
        const toRecipients = asked.concerns === 'everybody' ? verdict.answer : SEND_SEPARATELY;
        this.#step({ on: 'heard', refusal: { verdict, toRecipients } });
        return recipients.map(() => toRecipients);
      }
      default:
        return asked satisfies never;
    }
  }

  #answersTo(recipients: readonly Recipient[]): Soon<readonly Reply[]> {
    if (recipients.length === 0) return [];
    const isAlone = this.#told.length + recipients.length === 1;
    const isDeferred = isAlone && firstRecipientOf(this.#deps.command) !== 'live';
    const asks = this.#facts.recipients === 'live' && !isDeferred;
    const before = this.#state;
    const now = before.at === 'asking' ? before : this.#step({ on: 'rcpt', asks });
    if (now.at === 'refused') return recipients.map(() => now.toRecipients);
    if (now.at === 'asking' && before.at !== 'asking') return this.#ask(recipients);
    if (now.at !== 'envelope') return recipients.map(() => OUT_OF_ORDER);
    for (const recipient of recipients) this.#tell(recipient);
    return recipients.map(() => RCPT_OK);
  }

  #decide(ending: Ending): Reply {
    const isHeard = this.#state.at === 'deciding';
    this.#step({ on: 'decided' });
    if ('taken' in ending) {
      this.#finish('relayed', isHeard ? ending.taken : undefined);
      return ending.taken;
    }
    const { class: cls } = ending.verdict;
    const answer = this.#isGivenUp ? closing(ending.verdict.answer) : ending.verdict.answer;
    if (cls === 'unknown') this.#finish('unknown', answer);
    else if (!isHeard) this.#finish('aborted', undefined);
    else this.#finish(outcomeOf(answer), answer);
    return answer;
  }

  /** Too large to hold: the envelope goes out, and what is held starts the stream. */
  async #openStream(chunks: readonly Buffer[]): Promise<void> {
    const opened = await this.#delivery.open(this.#mail, this.#told);
    if ('verdict' in opened) {
      this.#step({ on: 'not_opened', verdict: opened.verdict });
      return;
    }
    this.#step({ on: 'opened', stream: opened.stream });
    for (const chunk of chunks) if (this.#isStreaming(opened.stream)) await opened.stream.push(chunk);
  }

  #isStreaming(stream: BodyStream): boolean {
    return this.#state.at === 'streaming' && this.#state.stream === stream;
  }
}
