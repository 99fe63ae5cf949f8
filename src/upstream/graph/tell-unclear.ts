/**
 * A message of which nobody knows whether it was sent. In: what is noted of it, and why. Out: what the client hears; a
 * person is called once where no retry will clear it, whoever is asked and however often.
 */
import { type Clock, systemClock } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { ANY_ACCOUNT, cureOf } from '../../protocol/causes/book.ts';
import { reply } from '../../protocol/reply.ts';
import { cleanText } from '../../protocol/text.ts';
import type { UnclearNews } from '../../protocol/unclear-news.ts';
import { verdict } from '../../protocol/verdict.ts';
import type { Claim, LedgerEntry } from './ledger.ts';
import type { GraphEnding } from './outcome.ts';
import type { Outgoing } from './outgoing.ts';

/** `clears`: whether a retry looks again. `entry` is what is noted of it; that it is unclear is noted with it. */
export type TellUnclear = (
  outgoing: Outgoing,
  claim: Claim,
  entry: LedgerEntry,
  why: string,
  clears: 'person' | 'retry',
) => Promise<GraphEnding>;

/** A draft that retries have looked at in vain for so long is not found by looking, ms. */
const STAYS_MS = 60 * 60_000;

const CAUSE = 'graph-unclear';

export function createTellUnclear(deps: {
  readonly log: Log;
  readonly clock?: Clock;
  readonly onPerson?: ((news: UnclearNews) => void) | undefined;
}): TellUnclear {
  const { log, clock = systemClock } = deps;
  return async (outgoing, claim, entry, why, clears) => {
    const unclear = cleanText(why, 200);
    const isForPerson = clears === 'person' || clock.now() - entry.at > STAYS_MS;
    const isNews = isForPerson && entry.called !== true;
    // What cannot be noted is told again with the next retry.
    if (entry.unclear !== unclear || isNews)
      await claim
        .note({ ...entry, unclear, ...(isForPerson ? { called: true } : {}) })
        .catch(() => undefined);
    const account = entry.subject?.account;
    const cure = cureOf(CAUSE, ANY_ACCOUNT) ?? '';
    const { key, messageId } = outgoing;
    const fields = { event: 'graph_unclear', account, key, message_id: messageId, reason: why };
    if (isForPerson)
      log[isNews ? 'error' : 'warn'](
        { ...fields, cure },
        'nobody knows whether Graph sent this message: it waits until a person decides',
      );
    else log.warn(fields, 'not known yet whether Graph sent this message: its next retry looks again');
    if (isNews) deps.onPerson?.({ key, account, messageId, reason: unclear, cure });
    return {
      kind: 'refused',
      verdict: verdict('unknown', reply(451, '4.4.2', `delivery status unknown: ${why}`), { cause: CAUSE }),
    };
  };
}
