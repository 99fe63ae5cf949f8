/**
 * Recognises what Gmail and Microsoft mean by a reply. In: a reply. Out: yes or no. Pure; the verdict
 * table (verdict.ts) says what follows. Codes decide where they can, words only where they must.
 */
import type { Reply } from './reply.ts';
import { ownWords } from './text.ts';

/** The provider's own words: addresses in them come from the message and must not decide anything. */
export const wordsOf = (r: Reply): string => ownWords(r.text);

export const is = (r: Reply, code: number, enhanced?: string): boolean =>
  r.code === code && (enhanced === undefined || r.enhanced === enhanced);

/** A reply to EHLO that refuses the name in it: Gmail says 501, its relay service 421 with the command in brackets. */
export const isHeloRefused = (r: Reply): boolean =>
  r.code === 501 ||
  r.code === 504 ||
  r.code === 550 ||
  /\((EHLO|HELO)\)|EHLO argument|helo (command )?rejected/i.test(wordsOf(r));

/** Texts with which a provider ends a session that was idle or has grown old. */
const SESSION_OVER =
  /timeout - closing connection|connection expired|connection timed out|session duration|timeout waiting for client|idle|timed? ?out/i;

export const isSessionOver = (r: Reply): boolean =>
  (is(r, 451, '4.4.2') ||
    is(r, 421, '4.4.2') ||
    is(r, 421, '4.4.1') ||
    is(r, 421, '4.7.0') ||
    is(r, 451, '4.7.0')) &&
  SESSION_OVER.test(wordsOf(r));

/** Microsoft and Gmail policies that no fresh token cures: SMTP AUTH switched off, security defaults, Conditional Access. */
export const isAuthPolicy = (r: Reply): boolean =>
  r.enhanced === '5.7.139' ||
  r.enhanced === '5.7.30' ||
  r.enhanced === '5.7.9' ||
  r.enhanced === '5.7.14' ||
  /SmtpClientAuthentication is disabled|security defaults|did not meet the criteria|basic authentication is (disabled|not supported)/i.test(
    wordsOf(r),
  );

export function authPolicyCure(r: Reply): string {
  if (/disabled for the (Tenant|Mailbox)|SmtpClientAuthentication/i.test(wordsOf(r)))
    return 'An Exchange administrator must enable Authenticated SMTP for the mailbox or the tenant: https://aka.ms/smtp_auth_disabled';
  if (/security defaults/i.test(wordsOf(r)))
    return 'A Microsoft Entra administrator must exempt this sign-in from security defaults.';
  if (/criteria/i.test(wordsOf(r)))
    return 'A Conditional Access policy blocks this sign-in; an Entra administrator must allow it.';
  return 'An administrator of the mailbox must allow OAuth sign-in for SMTP.';
}

/**
 * Daily and hourly quotas of the sender that only the provider knows; some come as 5xx although the mail
 * may go tomorrow. `450 4.2.1 … receiving mail at a rate` and `452 4.2.2 over quota` are the recipient's.
 */
export const isQuota = (r: Reply): boolean =>
  r.enhanced === '5.4.5' ||
  r.enhanced === '5.7.233' ||
  r.enhanced === '5.7.28' ||
  r.enhanced === '4.7.28' ||
  /SubmissionQuotaExceeded|submission quota exceeded|RefuseQuota|daily user sending (?:limit|quota)|(?:peak|daily) smtp relay (?:sending )?limit/i.test(
    wordsOf(r),
  );

/** The sender's mailbox is full, which blocks sending; said of a recipient it is the recipient's. */
export const isSenderFull = (r: Reply): boolean => is(r, 554, '5.2.2');

/** The account or its tenant is restricted: a person must act. */
export const isRestricted = (r: Reply): boolean => {
  const words = wordsOf(r);
  return (
    is(r, 550, '5.1.8') ||
    /^5\.7\.(?:50[123]|511|705|708|750)$/.test(r.enhanced ?? '') ||
    /verdict is \{?(?:Suspend|HipSend|HipNotify)|Mail Sending denied/i.test(words) ||
    (words.includes('WASCL') && /Suspend|HipSend|HipNotify/.test(words))
  );
};

export const isSendAsDenied = (r: Reply): boolean =>
  r.code >= 500 &&
  (r.enhanced === '5.2.252' ||
    r.enhanced === '5.7.60' ||
    /SendAsDenied|not allowed to send as|does not have permissions to send as/i.test(wordsOf(r)));

/** The service has trouble; at RCPT only where it says so, as a greylisted recipient is to be tried later, too. */
export const isTemporarySystemProblem = (r: Reply, saidOfRecipient: boolean): boolean =>
  r.code === 421 &&
  (/temporary system problem|server busy/i.test(wordsOf(r)) ||
    (!saidOfRecipient &&
      (/^4\.(?:3\.0|3\.2|4\.5|7\.0)$/.test(r.enhanced ?? '') || /try again later/i.test(wordsOf(r)))));

/** Too many messages of this mailbox at once. `recipient thread limit` is the other mailbox's. */
export const isTooManyAtOnce = (r: Reply, saidOfRecipient: boolean): boolean =>
  /sender thread limit|concurrent connections limit/i.test(wordsOf(r)) ||
  (r.code === 432 && !saidOfRecipient && !/recipient thread limit/i.test(wordsOf(r)));

/**
 * We and the server are out of step: an unknown command, a bad sequence, a syntax error although ours is
 * right. It says nothing of the message. With 5.1.x or 5.7.x the same codes are verdicts; 501 and 504
 * without an enhanced code may be about an address or a parameter.
 */
export const isStateFault = (r: Reply): boolean =>
  r.code >= 500 &&
  r.code <= 504 &&
  (r.enhanced === undefined ? r.code !== 501 && r.code !== 504 : r.enhanced.startsWith('5.5.'));

/** The service, not the message, is refused: 421, or a permanent system status (RFC 3463 §3.4). */
export const isOfService = (r: Reply): boolean =>
  r.code === 421 || r.enhanced === '5.3.0' || r.enhanced === '5.3.2';
