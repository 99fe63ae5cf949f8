/**
 * The mail side of one client session, free of sockets. In: the arguments of MAIL, RCPT, DATA, and the
 * end of a transaction. Out: a reply for each, and the intake for the body. Owns the transaction in
 * progress and its share of the memory for bodies.
 */
import { type Account, mailboxOf } from '../accounts/account.ts';
import { type AccountDirectory, exactnessOf } from '../accounts/directory.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Heard, Recipient } from '../protocol/esmtp.ts';
import { parseMailParameters, refusalOfRcptParameters, withoutSize } from '../protocol/esmtp-parameters.ts';
import { hasNonAscii, parsePathArgument } from '../protocol/path.ts';
import { formatDate, formatProtocol, formatReceived } from '../protocol/received.ts';
import { formatReply, isPositive, type Reply, reply } from '../protocol/reply.ts';
import { changeHeader } from '../protocol/rewrite-header.ts';
import type { Relay, Transaction } from '../relay/relay.ts';
import { type Soon, whenKnown } from '../soon.ts';
import type { Tally } from './counts.ts';
import { createShare, type HeldBudget, type Share } from './held-budget.ts';
import { Intake, type IntakeOptions, NO_MEMORY, SESSION_ENDED } from './intake.ts';
import type { ListenerOptions } from './options.ts';
import { choicesFor } from './sender-choice.ts';

export interface MailSessionDeps {
  readonly relay: Relay;
  readonly directory: () => AccountDirectory;
  readonly log: Log;
  readonly clock: Clock;
  /** Text for the log: masks addresses where they are not to be logged. */
  readonly shown: (text: string) => string;
  readonly budget: HeldBudget;
  readonly tally: Tally;
  /** Octets of a body that the relay holds at most. */
  readonly replayBytes: number;
}

/** What the connection knows of the client by now. */
export interface ClientFacts {
  readonly id: string;
  /** Empty for a UNIX socket. */
  readonly remoteAddress: string;
  /** HELO/EHLO argument; empty before it. */
  readonly helo: string;
  readonly esmtp: boolean;
  /** `TLSv1.3 TLS_AES_256_GCM_SHA384`. */
  readonly tls: string | undefined;
  readonly auth: { readonly user: string; readonly account: Account } | undefined;
  /** May use accounts without a password. */
  readonly isTrusted: boolean;
  /** The client has closed its side, or said more than was dealt with: it does not wait for a reply. */
  readonly mayBeGone: boolean;
  /** Whether the client has heard the reply that is due next. */
  readonly heard: () => Promise<Heard>;
}

export interface MailSession {
  /** From a positive reply to MAIL until the final reply or `reset`. */
  isInTransaction(): boolean;
  /** When the current transaction began, monotonic ms. */
  since(): number | undefined;
  /** Recipients accepted in the current transaction. */
  recipients(): number;
  mail(argument: string): Soon<Reply>;
  /** `argument` as it came, or its refusal. `follows`: the next command is a RCPT too, and both are asked for together. */
  rcpt(argument: string | Reply, follows: boolean): Soon<Reply>;
  /** An intake: answer 354 and feed it. */
  data(): Soon<Reply | Intake>;
  /** RSET, EHLO, the client gone: the transaction is over and nothing is delivered. Idempotent. */
  reset(): void;
  /** The final reply is awaited and comes at once, whatever is known; false where none is awaited. */
  giveUp(): boolean;
}

/** Reserved for a body whatever size was declared. */
const LEAST_SHARE_OCTETS = 1_024;

const isHeaderChanged = (of: Account, completes: boolean): boolean =>
  (of.rewriteFrom ?? 'never') !== 'never' || (of.completeHeader ?? completes);

const MAIL_FIRST = reply(503, '5.5.1', 'Send MAIL first');
const NEEDS_SMTPUTF8 = reply(553, '5.6.7', 'Non-ASCII address without SMTPUTF8');

export function createMailSession(
  deps: MailSessionDeps,
  options: ListenerOptions,
  client: () => ClientFacts,
): MailSession {
  const { limits } = options;
  let transaction: Transaction | undefined;
  let account: Account | undefined;
  let since: number | undefined;
  let declaredSize: number | undefined;
  let usesUtf8 = false;
  let accepted = 0;
  let attempted = 0;
  /** Recipients that wait for those that came with them. */
  let together: { readonly recipient: Recipient; readonly answer: (r: Reply) => void }[] = [];
  let intake: Intake | undefined;
  /** Ends the wait for memory. */
  let release: (() => void) | undefined;
  /** Counts transactions and resets: an answer that comes for an older one is no longer wanted. */
  let era = 0;

  function finish(): void {
    era += 1;
    transaction = undefined;
    account = undefined;
    since = undefined;
    intake = undefined;
    release = undefined;
    for (const { answer } of together.splice(0)) answer(SESSION_ENDED);
    accepted = 0;
    attempted = 0;
  }

  function refuse(command: string, r: Reply): Reply {
    const { id, remoteAddress } = client();
    deps.log.info(
      { event: 'refused', session: id, client: remoteAddress, command, reply: deps.shown(formatReply(r)) },
      'command refused',
    );
    return r;
  }

  function recipientOf(argument: string): Recipient | Reply {
    if (transaction === undefined) return MAIL_FIRST;
    const path = parsePathArgument('RCPT', argument, client().isTrusted);
    if ('code' in path) return path;
    if (!usesUtf8 && hasNonAscii(argument)) return NEEDS_SMTPUTF8;
    const refusal = refusalOfRcptParameters(path.parameters);
    if (refusal !== undefined) return refusal;
    if (accepted + together.length >= limits.maxRecipients) {
      deps.tally.hit('recipients');
      return reply(452, '4.5.3', `At most ${limits.maxRecipients} recipients in one message`);
    }
    attempted += 1;
    return { address: path.address, parameters: path.parameters };
  }

  function askTogether(): void {
    const asked = together;
    together = [];
    if (asked.length === 0 || transaction === undefined) return;
    const mine = era;
    const told = (replies: readonly Reply[]): void => {
      for (const [i, { answer }] of asked.entries()) {
        const r = replies[i] ?? MAIL_FIRST;
        if (era === mine && isPositive(r)) accepted += 1;
        answer(r);
      }
    };
    const replies = transaction.rcpt(asked.map(({ recipient }) => recipient));
    if (replies instanceof Promise) void replies.then(told);
    else told(replies);
  }

  function receivedLine(id: string): Buffer {
    const { helo, remoteAddress, esmtp, tls, auth } = client();
    const isAuth = auth !== undefined;
    const protocol = formatProtocol({ lmtp: options.lmtp, esmtp, tls: tls !== undefined, auth: isAuth });
    return formatReceived({
      helo,
      remoteAddress,
      by: options.hostname,
      protocol,
      tls,
      id,
      at: deps.clock.now(),
    });
  }

  /** How this account wants the header changed, if at all. */
  function headerChange(of: Account, id: string): Pick<IntakeOptions, 'changeHeader'> {
    const { rewriteFrom = 'never', email } = of;
    const completes = of.completeHeader ?? options.completeHeader;
    if (!isHeaderChanged(of, options.completeHeader)) return {};
    const isOwn = (address: string): boolean => {
      const exactness = exactnessOf(of, address);
      return exactness !== undefined && exactness !== 'any';
    };
    const domain = email.slice(email.lastIndexOf('@') + 1);
    return {
      changeHeader: (section) =>
        changeHeader(section, {
          ...(rewriteFrom === 'never' ? {} : { from: { mode: rewriteFrom, email, isOwn } }),
          ...(completes
            ? {
                missing: {
                  date: formatDate(deps.clock.now()),
                  messageId: `<${id}.${client().id}@${domain}>`,
                },
              }
            : {}),
        }),
    };
  }

  const maxBytes = (of: Account): number => Math.min(limits.maxMessageBytes, of.limits.maxBytes);

  function openIntake(current: Transaction, of: Account, share: Share): Intake {
    const mine = era;
    intake = new Intake(current.body(), {
      account: of,
      maxBytes: maxBytes(of),
      checkFromHeader: options.checkFromHeader || of.checkFromHeader === true,
      bareLineEnds: options.bareLineEnds,
      ...headerChange(of, current.id),
      preamble: options.received ? receivedLine(current.id) : undefined,
      share,
      onOversize: () => deps.tally.hit('message_bytes'),
      onEnd() {
        if (era === mine) finish();
      },
    });
    return intake;
  }

  return {
    isInTransaction: () => since !== undefined,
    since: () => since,
    recipients: () => accepted,

    mail(argument) {
      if (since !== undefined) return reply(503, '5.5.1', 'A transaction is in progress');
      const path = parsePathArgument('MAIL', argument, client().isTrusted);
      if ('code' in path) return path;
      const parameters = parseMailParameters(path.parameters);
      if ('code' in parameters) return parameters;
      if (!parameters.smtpUtf8 && hasNonAscii(argument)) {
        return NEEDS_SMTPUTF8;
      }
      const facts = client();
      const choices = choicesFor(path.address, facts, options, deps.directory());
      if ('code' in choices) return refuse('MAIL', choices);
      const { size = 0 } = parameters;
      const fitting = choices.filter((choice) => size <= maxBytes(choice.account));
      const [first] = fitting;
      if (first === undefined) {
        const most = Math.max(...choices.map((choice) => maxBytes(choice.account)));
        deps.tally.hit('message_bytes');
        return refuse('MAIL', reply(552, '5.3.4', `Message exceeds ${most} octets`));
      }
      const mine = ++era;
      since = deps.clock.monotonic();
      const asked = deps.relay.mail({
        account: first.account,
        sender: first.sender,
        ...(choices.some((choice) => choice.sender !== path.address) ? { clientSender: path.address } : {}),
        ...(fitting.length > 1 ? { choices: fitting } : {}),
        // Our trace line makes the message longer than the client counted.
        parameters: options.received ? withoutSize(parameters.passed) : parameters.passed,
        session: {
          id: facts.id,
          remoteAddress: facts.remoteAddress,
          // The setting itself: which account is the first changes with a reload, and from relay to relay. So does an account's id.
          confinedTo: facts.auth === undefined ? options.accounts?.join(' ') : mailboxOf(first.account),
          mayBeGone: () => client().mayBeGone,
          heard: facts.heard,
        },
        firstRecipient: options.firstRecipient,
        isSizeUnsure:
          options.bareLineEnds === 'normalize' ||
          choices.some(({ account: of }) => isHeaderChanged(of, options.completeHeader)),
      });
      return whenKnown(asked, (answer) => {
        if (era !== mine) {
          answer.transaction?.abort();
          return SESSION_ENDED;
        }
        if (answer.transaction === undefined) {
          since = undefined;
          return answer.reply;
        }
        transaction = answer.transaction;
        account = answer.account ?? first.account;
        declaredSize = parameters.size;
        usesUtf8 = parameters.smtpUtf8;
        return answer.reply;
      });
    },

    rcpt(argument, follows) {
      const recipient = typeof argument === 'string' ? recipientOf(argument) : argument;
      let known: Reply | undefined;
      let tell = (r: Reply): void => {
        known = r;
      };
      if ('code' in recipient) known = recipient;
      else together.push({ recipient, answer: (r) => tell(r) });
      if (!follows) askTogether();
      if (known !== undefined) return known;
      return new Promise((resolve) => {
        tell = resolve;
      });
    },

    data() {
      if (transaction === undefined || account === undefined) return MAIL_FIRST;
      if (accepted === 0) {
        return attempted === 0
          ? reply(503, '5.5.1', 'Send RCPT first')
          : reply(554, '5.5.1', 'No valid recipients');
      }
      const refusal = transaction.refusalAtData();
      if (refusal !== undefined) {
        transaction.abort();
        finish();
        return refusal;
      }
      const of = account;
      const current = transaction;
      const mine = era;
      const share = createShare(deps.budget, {
        most: Math.max(deps.replayBytes, current.mostHeld),
        waitMs: limits.heldWaitMs,
        onWait: () => deps.tally.hit('held_bytes'),
      });
      release = share.release;
      const room = share.cover(Math.max(declaredSize ?? deps.replayBytes, LEAST_SHARE_OCTETS));
      return whenKnown(room, (isGranted) => {
        if (era !== mine) return SESSION_ENDED;
        if (isGranted) return openIntake(current, of, share);
        share.release();
        current.abort();
        finish();
        return NO_MEMORY;
      });
    },

    giveUp() {
      if (intake?.isEnding !== true) return false;
      intake.giveUp();
      return true;
    },

    reset() {
      if (since === undefined) return;
      if (intake !== undefined) intake.abort();
      else {
        release?.();
        transaction?.abort();
      }
      finish();
    },
  };
}
