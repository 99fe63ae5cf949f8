/** Which account takes the mail of a sender, and why. In: the accounts of the file. Out: rows for `check --sender`. Pure. */
import type { Account } from '../accounts/account.ts';
import { createAccountDirectory } from '../accounts/directory.ts';

export interface SenderRow {
  readonly account: string;
  /** In words: what matched and what decides. */
  readonly why: string;
  /** MAIL FROM as it leaves. */
  readonly leaves_as: string;
}

export interface SenderReport {
  readonly sender: string;
  /** First choice first; empty where nobody takes it. */
  readonly accounts: readonly SenderRow[];
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

/** `sender`: an address, or `<>`. */
export function reportSender(sender: string, accounts: readonly Account[]): SenderReport {
  const address = sender === '<>' ? '' : sender.replace(/^<(.*)>$/, '$1');
  const directory = createAccountDirectory(accounts);
  const rows = directory.candidates(address).map(({ account, exactness }, index): SenderRow => {
    const isForeign = exactness === 'any';
    const reasons = [`matches ${WORDS[exactness]}`];
    if (account.preference !== undefined) reasons.push(`preference ${account.preference}`);
    if (account.clientPassword !== undefined) reasons.push('only after AUTH with its password');
    if (index > 0) reasons.push('when those above cannot, or have less room');
    const { rewriteFrom = 'never' } = account;
    if (rewriteFrom === 'always' || (rewriteFrom === 'foreign' && isForeign))
      reasons.push('From: is rewritten where it is not its own');
    return {
      account: account.id,
      why: reasons.join('; '),
      leaves_as: account.rewriteSender === true && isForeign ? account.email : address || '<>',
    };
  });
  if (rows.length > 0) return { sender, accounts: rows, cure: undefined };
  const denier = directory.deniedBy(address);
  const cure =
    denier !== undefined
      ? `refused by "deny" of account ${denier.id}`
      : address === ''
        ? 'add "<>" to "senders" of an account'
        : `add it or "*@${address.slice(address.lastIndexOf('@') + 1)}" to "senders" of an account, or "*" with "rewrite_sender"`;
  return { sender, accounts: [], cure };
}
