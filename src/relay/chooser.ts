/**
 * Which of the accounts of a sender takes a message. In: the choices, and a way to ask each. Out: the one that has a place
 * for it, or why none has. Owns who let a client wait and refused then.
 */
import type { Account } from '../accounts/account.ts';
import type { Clock } from '../clock.ts';
import { formatReply, type Reply } from '../protocol/reply.ts';
import { judge } from '../protocol/verdict.ts';
import type { ChosenBy } from '../protocol/vocabulary.ts';
import type { Soon } from '../soon.ts';
import type { Way } from '../upstream/way.ts';
import { type Choice, inOrder, type PassedOver, whyFirst } from './choice.ts';
import type { Place } from './limits.ts';
import type { MailCommand } from './relay.ts';

export interface Refused {
  readonly answer: Reply;
  /** When a limit will let it through, where that is known. */
  readonly retryAfterMs?: number;
  /** Nothing is wrong with the account: as many messages as it may have at once are under way. */
  readonly isBusy?: boolean;
}

export interface Taken {
  readonly command: MailCommand;
  readonly way: Way;
  readonly place: Place;
  /** Absent where there was no choice. */
  readonly chosenBy?: ChosenBy;
}

export interface Chooser {
  /**
   * The first that can take it; nothing is sent and nobody waits for a limit while another may be free. For those that are
   * busy for the moment the message waits rather than leave by one that matches its sender less. `passedOver` hears of
   * those that could not.
   */
  choose(
    command: MailCommand,
    choices: readonly Choice[],
    passedOver: PassedOver[],
  ): Promise<Refused | Taken>;
  keepOnly(accountIds: Pick<ReadonlySet<string>, 'has'>): void;
}

export interface ChooserDeps {
  /** Whether an account takes the message, `maxHoldMs` from now at the latest. */
  readonly ask: (command: MailCommand, maxHoldMs: number, withdrawn?: AbortSignal) => Soon<Refused | Taken>;
  /** From 0 to 1. */
  readonly roomOf: (account: Account) => number;
  readonly clock: Clock;
  readonly maxHoldMs: number;
}

/** A refusal that a client had to wait so long for holds up others, too. */
const LONG_REFUSAL_MS = 1_000;
/** So long is it asked last, then by one message whether it is any better. */
const ASKED_LAST_MS = 60_000;

/** So many queues a message waits in; those that come together wait in different ones. */
const MOST_WAITED_FOR = 8;

/** What one account refuses for good another may take later. */
function isSooner(one: Refused, other: Refused): boolean {
  const isFinal = ({ answer }: Refused): boolean => answer.code >= 500;
  if (isFinal(one) !== isFinal(other)) return isFinal(other);
  return (one.retryAfterMs ?? Number.POSITIVE_INFINITY) < (other.retryAfterMs ?? Number.POSITIVE_INFINITY);
}

export function createChooser({ ask, roomOf, clock, maxHoldMs }: ChooserDeps): Chooser {
  /** Accounts that let a client wait and refused then: until when they are asked last, monotonic. */
  const slow = new Map<string, number>();
  let waits = 0;

  /** Of those that match the sender as exactly. */
  function slowOnesLast(order: readonly Choice[]): readonly Choice[] {
    const now = clock.monotonic();
    const isSlow = ({ account }: Choice): boolean => (slow.get(account.id) ?? 0) > now;
    if (!order.some(isSlow)) return order;
    return [...order].sort((a, b) => a.rank - b.rank || Number(isSlow(a)) - Number(isSlow(b)));
  }

  /** Remembers whether its refusal takes long. */
  async function askOneOfMany(command: MailCommand): Promise<Refused | Taken> {
    const { id } = command.account;
    const since = clock.monotonic();
    // Whoever comes meanwhile asks the others first.
    if (slow.has(id)) slow.set(id, since + ASKED_LAST_MS);
    const result = await ask(command, 0);
    const now = clock.monotonic();
    if ('answer' in result && now - since >= LONG_REFUSAL_MS) slow.set(id, now + ASKED_LAST_MS);
    else slow.delete(id);
    return result;
  }

  /** Waits for some, and looks at the others once more before it is refused. */
  async function waitForOneOf(busy: readonly MailCommand[]): Promise<Refused | Taken> {
    const from = waits++ % busy.length;
    const turned = [...busy.slice(from), ...busy.slice(0, from)];
    const waited = await waitForFirst(turned.slice(0, MOST_WAITED_FOR));
    if (!('answer' in waited)) return waited;
    for (const command of turned.slice(MOST_WAITED_FOR)) {
      const result = await ask(command, 0);
      if (!('answer' in result)) return result;
    }
    return waited;
  }

  /** Waits for all at once, and takes the first that is free. */
  function waitForFirst(commands: readonly MailCommand[]): Promise<Refused | Taken> {
    const withdrawing = new AbortController();
    const { signal } = withdrawing;
    return new Promise((resolve) => {
      const refused: Refused[] = [];
      function hear(result: Refused | Taken): void {
        if ('answer' in result) {
          refused.push(result);
          if (refused.length === commands.length)
            resolve(refused.reduce((soonest, other) => (isSooner(other, soonest) ? other : soonest)));
        } else if (signal.aborted) result.place.end({ unsent: true, recipients: 0 });
        else {
          withdrawing.abort();
          resolve(result);
        }
      }
      for (const command of commands) void Promise.resolve(ask(command, maxHoldMs, signal)).then(hear);
    });
  }

  async function choose(
    command: MailCommand,
    choices: readonly Choice[],
    passedOver: PassedOver[],
  ): Promise<Refused | Taken> {
    let soonest: { readonly command: MailCommand; readonly refused: Refused } | undefined;
    const busy: MailCommand[] = [];
    const wished = inOrder(choices, roomOf);
    const order = slowOnesLast(wished);
    const why = order[0] === wished[0] ? whyFirst(wished, roomOf) : 'passed_over';
    let lastRank = Number.POSITIVE_INFINITY;
    for (const { account, sender, rank } of order) {
      if (rank > lastRank) break;
      const own = { ...command, account, sender };
      const result = await askOneOfMany(own);
      if (!('answer' in result))
        return { ...result, chosenBy: passedOver.length === 0 ? why : 'passed_over' };
      passedOver.push({ account: account.id, why: formatReply(result.answer) });
      if (result.isBusy === true) {
        lastRank = rank;
        busy.push(own);
      }
      if (soonest === undefined || isSooner(result, soonest.refused))
        soonest = { command: own, refused: result };
    }
    if (soonest === undefined) return { answer: judge({ kind: 'local', cause: 'misconfigured' }).answer };
    if (soonest.refused.retryAfterMs === undefined) return soonest.refused;
    const waited = await waitForOneOf(soonest.refused.isBusy === true ? busy : [soonest.command]);
    return 'answer' in waited ? waited : { ...waited, chosenBy: 'ready_first' };
  }

  return {
    choose,
    keepOnly(accountIds) {
      for (const id of slow.keys()) if (!accountIds.has(id)) slow.delete(id);
    },
  };
}
