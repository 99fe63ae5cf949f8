/**
 * Which account takes the mail of a sender, and why. In: the accounts file and the listeners. Out: rows for
 * `check --sender`, and what a client without AUTH hears, by the rule the listeners themselves ask. Pure.
 */
import type { AccountsFile } from '../accounts/accounts-file.ts';
import { type Candidate, createAccountDirectory, isPreferred } from '../accounts/directory.ts';
import { trustsSomebody } from '../listener/exposure.ts';
import { formatPlace, type ListenerOptions } from '../listener/options.ts';
import { choicesFor, serves, toChoice } from '../listener/sender-choice.ts';
import { formatReply, type Reply } from '../protocol/reply.ts';
import { judge } from '../protocol/verdict.ts';
import { type Choice, inOrder } from '../relay/choice.ts';

export interface SenderRow {
  readonly account: string;
  /** In words: what matched and what decides. */
  readonly why: string;
  /** MAIL FROM as it leaves. */
  readonly leaves_as: string;
}

/** What a trusted client that does not log in meets. */
export interface WithoutAuth {
  readonly listener: string;
  /** First choice first. */
  readonly accounts: readonly string[];
  /** The reply at MAIL where nobody takes it. */
  readonly reply: string | null;
}

export interface SenderReport {
  readonly sender: string;
  /** First choice first; empty where nobody takes it. */
  readonly accounts: readonly SenderRow[];
  readonly without_auth: readonly WithoutAuth[];
  /** What would help, where nobody takes it. */
  readonly cure: string | undefined;
}

const WORDS = {
  address: 'its address or one of "senders"',
  subaddress: 'a "+*@" pattern',
  domain: 'a "*@domain" pattern',
  subdomain: 'a "*@*.domain" pattern',
  any: '"*"',
} as const;

const FROM_WORDS = {
  never: [],
  foreign: ['From: is rewritten where it is not its own'],
  always: ['From: is rewritten'],
} as const;

/** `sender`: an address, or `<>`. */
export function reportSender(
  sender: string,
  file: Pick<AccountsFile, 'accounts' | 'unusable' | 'isComplete' | 'hidesSenders'>,
  listeners: readonly ListenerOptions[],
): SenderReport {
  const address = sender === '<>' ? '' : sender.replace(/^<(.*)>$/, '$1');
  const directory = createAccountDirectory(
    [...file.accounts, ...file.unusable].map(({ account }) => account),
    {
      problems: new Map(
        file.unusable.map(({ account, problems }) => [account.id, problems[0]?.message ?? '']),
      ),
      isComplete: file.isComplete,
      hidesSenders: file.hidesSenders,
    },
  );
  const order = inSameRoom(directory.candidates(address).map((candidate) => toChoice(candidate, address)));
  const rows = order.map((choice, index): SenderRow => {
    const { account, exactness } = choice;
    const above = order[index - 1];
    const reasons = [
      `matches ${WORDS[exactness]}`,
      ...(account.preference === undefined ? [] : [`preference ${account.preference}`]),
      ...(account.clientPassword === undefined ? [] : ['only after AUTH with its password']),
      ...(directory.problemOf(account.id) === undefined ? [] : ['waits until its entry is mended']),
      ...placesWithout(choice, listeners),
      ...(above === undefined
        ? []
        : [`when those above cannot${isPreferred(above, choice) ? '' : ', or have less room'}`]),
      ...FROM_WORDS[account.rewriteFrom ?? 'never'],
    ];
    return {
      account: account.id,
      why: reasons.join('; '),
      leaves_as: choice.sender || '<>',
    };
  });
  const withoutAuth = listeners.map((listener): WithoutAuth => {
    const facts = { auth: undefined, isTrusted: trustsSomebody(listener) };
    const choices = choicesFor(address, facts, listener, directory);
    const refused = (reply: Reply): WithoutAuth => ({
      listener: formatPlace(listener),
      accounts: [],
      reply: formatReply(reply),
    });
    if ('code' in choices) return refused(choices);
    const ids = inSameRoom(choices).map(({ account }) => account.id);
    // No other takes its mail.
    if (ids.some((id) => directory.problemOf(id) !== undefined))
      return refused(judge({ kind: 'local', cause: 'misconfigured' }).answer);
    return { listener: formatPlace(listener), accounts: ids, reply: null };
  });
  return {
    sender,
    accounts: rows,
    without_auth: withoutAuth,
    cure: rows.length > 0 ? undefined : cureOf(address, directory.deniedBy(address)?.id),
  };
}

/** As the relay tries them where all have the same room. */
const inSameRoom = (choices: readonly Choice[]): readonly Choice[] => inOrder(choices, () => 1);

function placesWithout({ account }: Candidate, listeners: readonly ListenerOptions[]): readonly string[] {
  const closed = listeners.filter((listener) => !serves(listener, account));
  return closed.length === 0 ? [] : [`not on ${closed.map(formatPlace).join(', ')}`];
}

function cureOf(address: string, denier: string | undefined): string {
  if (denier !== undefined) return `refused by "deny" of account ${denier}`;
  if (address === '') return 'add "<>" to "senders" of an account';
  const domain = address.slice(address.lastIndexOf('@') + 1);
  return `add it or "*@${domain}" to "senders" of an account, or "*" with "rewrite_sender"`;
}
