/**
 * The transaction rule: defer until it matters. In: one client transaction, command by command. Out: a
 * reply each, and the message upstream at most once. With one recipient nothing is sent before the body
 * is there; recipients that come together, and from the second on, hear the provider where the way can
 * ask it. 250 only after the provider's 250. Owns the octets it has not sent yet; which states there are
 * and what leads to which stands in transaction-states.ts.
 */
import { fitParameters, type Mail, type Recipient } from '../protocol/esmtp.ts';
import { isPositive, type Reply, reply } from '../protocol/reply.ts';
import type { Soon } from '../soon.ts';
import { type BodyStream, type Ending, heardFor, type Way } from '../upstream/way.ts';
import type { RecordDraft } from './record.ts';
import type { BodyWriter, MailCommand, Transaction } from './relay.ts';
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

const withoutSize = (mail: Mail): Mail => ({
  ...mail,
  parameters: mail.parameters.filter((p) => !/^SIZE=/i.test(p)),
});

export function createTransaction(deps: TransactionDeps, options: TransactionOptions): Transaction {
  const { command, way, record } = deps;
  const { account } = command;
  const { facts } = way;
  const mostHeld =
    facts.body === 'streams' ? Math.max(options.replayBytes, facts.heldAtLeast ?? 0) : facts.maxBytes;
  const isAskedAtOnce =
    (account.firstRecipient ?? (account.completeHeader === true ? 'live' : command.firstRecipient)) ===
    'live';
  const { confinedTo, mayBeGone, heard } = command.session;
  let mail: Mail = {
    sender: command.sender,
    parameters: command.parameters,
    ...(command.clientSender === undefined ? {} : { clientSender: command.clientSender }),
    ...(confinedTo === undefined ? {} : { confinedTo }),
    ...(mayBeGone === undefined ? {} : { mayBeGone }),
    ...(heard === undefined ? {} : { heard }),
  };
  /** Those that heard 250. */
  const told: Recipient[] = [];
  const delivery = way.begin(record);
  let state: State = START;
  /** Nobody waits for the provider any longer: the relay stops. */
  let isGivenUp = false;

  function step(event: Event): State {
    state = next(state, event);
    return state;
  }

  function finish(outcome: RecordDraft['outcome'], answer: Reply | undefined): void {
    record.outcome = outcome;
    record.reply = answer;
    delivery.close();
    deps.onEnd();
  }

  function tell(recipient: Recipient): void {
    told.push(recipient);
    record.recipients.push(recipient.address);
  }

  /** The recipient as the upstream gets it, or why it cannot have it. */
  function fitted(recipient: Recipient, place: number): Recipient | Reply {
    if (place >= account.limits.maxRecipients)
      return reply(452, '4.5.3', `at most ${account.limits.maxRecipients} recipients a message`);
    if (facts.withoutDomain === 'refused' && !recipient.address.includes('@'))
      return heardFor(NO_DOMAIN, facts);
    if (facts.capabilities === undefined || recipient.parameters.length === 0) return recipient;
    const fit = fitParameters(recipient.parameters, facts.capabilities);
    return 'refusal' in fit ? heardFor(fit.refusal, facts) : { ...recipient, parameters: fit.parameters };
  }

  /** A reply for each, in order. */
  async function ask(recipients: readonly Recipient[]): Promise<readonly Reply[]> {
    const asked = await delivery.ask(
      command.isSizeUnsure === true ? withoutSize(mail) : mail,
      told,
      recipients,
    );
    switch (asked.kind) {
      case 'heard':
        for (const [i, recipient] of recipients.entries()) {
          const answer = asked.replies[i];
          if (answer !== undefined && isPositive(answer)) tell(recipient);
        }
        step({ on: 'heard' });
        return asked.replies;
      case 'failed':
        step({ on: 'heard' });
        return recipients.map(() => asked.verdict.answer);
      case 'refused': {
        const { verdict } = asked;
        const toRecipients = asked.concerns === 'everybody' ? verdict.answer : SEND_SEPARATELY;
        step({ on: 'heard', refusal: { verdict, toRecipients } });
        return recipients.map(() => toRecipients);
      }
      default:
        return asked satisfies never;
    }
  }

  function answersTo(recipients: readonly Recipient[]): Soon<readonly Reply[]> {
    if (recipients.length === 0) return [];
    const asks = facts.recipients === 'live' && (isAskedAtOnce || told.length + recipients.length > 1);
    const before = state;
    const now = before.at === 'asking' ? before : step({ on: 'rcpt', asks });
    if (now.at === 'refused') return recipients.map(() => now.toRecipients);
    if (now.at === 'asking' && before.at !== 'asking') return ask(recipients);
    if (now.at !== 'envelope') return recipients.map(() => OUT_OF_ORDER);
    for (const recipient of recipients) tell(recipient);
    return recipients.map(() => RCPT_OK);
  }

  function decide(ending: Ending): Reply {
    const isHeard = state.at === 'deciding';
    step({ on: 'decided' });
    if ('taken' in ending) {
      finish('relayed', isHeard ? ending.taken : undefined);
      return ending.taken;
    }
    const { class: cls } = ending.verdict;
    const answer = isGivenUp ? closing(ending.verdict.answer) : ending.verdict.answer;
    if (cls === 'unknown') finish('unknown', answer);
    else if (!isHeard) finish('aborted', undefined);
    else finish(answer.code >= 500 ? 'rejected' : 'deferred', answer);
    return answer;
  }

  function leave(): void {
    if (state.at === 'ended') return;
    if (step({ on: 'left' }).at === 'ended') finish('aborted', undefined);
    else delivery.close();
  }

  /** Too large to hold: the envelope goes out, and what is held starts the stream. */
  async function openStream(chunks: readonly Buffer[]): Promise<void> {
    const opened = await delivery.open(mail, told);
    if ('verdict' in opened) {
      step({ on: 'not_opened', verdict: opened.verdict });
      return;
    }
    step({ on: 'opened', stream: opened.stream });
    for (const chunk of chunks) if (isStreaming(opened.stream)) await opened.stream.push(chunk);
  }

  const isStreaming = (stream: BodyStream): boolean => state.at === 'streaming' && state.stream === stream;

  const writer: BodyWriter = {
    write(chunk) {
      if (state.at === 'ended') return undefined;
      record.bytes += chunk.length;
      if (state.at === 'streaming') return state.stream.push(chunk);
      if (state.at !== 'holding') return undefined;
      state.chunks.push(chunk);
      const now = step({ on: 'octets', overflows: record.bytes > mostHeld });
      return now.at === 'opening' ? openStream(now.chunks) : undefined;
    },

    sizeChanged() {
      mail = withoutSize(mail);
    },

    headerChanged(clientHeader) {
      mail = { ...mail, clientHeader };
    },

    async end() {
      const before = state;
      if (step({ on: 'end' }) === before) return OVER;
      switch (before.at) {
        case 'holding':
          return decide(await delivery.send(mail, told, before.chunks, record.bytes));
        case 'streaming':
          return decide(await before.stream.finish());
        case 'dropping': {
          const { answer } = before.verdict;
          finish(answer.code >= 500 ? 'rejected' : 'deferred', answer);
          return answer;
        }
        default:
          return OVER;
      }
    },

    cut: leave,

    giveUp() {
      leave();
      isGivenUp = true;
      delivery.giveUp();
    },
  };

  return {
    id: record.id,
    mostHeld,

    rcpt(recipients) {
      let place = told.length;
      const fits = recipients.map((recipient) => {
        const fit = fitted(recipient, place);
        if (!isReply(fit)) place++;
        return fit;
      });
      const answers = answersTo(fits.filter((fit): fit is Recipient => !isReply(fit)));
      const inOrder = (of: readonly Reply[]): readonly Reply[] => {
        const left = of.values();
        return fits.map((fit) => (isReply(fit) ? fit : (left.next().value ?? OUT_OF_ORDER)));
      };
      return answers instanceof Promise ? answers.then(inOrder) : inOrder(answers);
    },

    refusalAtData() {
      if (state.at !== 'refused') return undefined;
      const { answer } = state.verdict;
      step({ on: 'data' });
      finish(answer.code >= 500 ? 'rejected' : 'deferred', answer);
      return answer;
    },

    body() {
      step({ on: 'data' });
      return writer;
    },

    abort: leave,
  };
}
