/**
 * Recognises what Gmail and Microsoft mean by a reply. In: a reply. Out: yes or no. Pure; the verdict
 * table (verdict.ts) says what follows. Codes decide where they can, words only where they must.
 */
import type { Reply } from './reply.ts';

/** The provider's own words: addresses in them come from the message and must not decide anything. */
export const wordsOf = (r: Reply): string => r.text.replace(/\S*@\S*/g, '');

export const is = (r: Reply, code: number, enhanced?: string): boolean =>
  r.code === code && (enhanced === undefined || r.enhanced === enhanced);

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

/** Daily and hourly quotas only the provider knows; some come as 5xx although the mail may go tomorrow. */
export const isQuota = (r: Reply): boolean =>
  r.enhanced === '5.4.5' ||
  r.enhanced === '5.7.233' ||
  r.enhanced === '5.7.28' ||
  r.enhanced === '4.7.28' ||
  /SubmissionQuotaExceeded|submission quota exceeded|RefuseQuota|daily user sending (limit|quota)/i.test(
    wordsOf(r),
  ) ||
  (is(r, 450, '4.2.1') && /peak|rate/i.test(wordsOf(r)));

/** The account or its tenant is restricted: a person must act. */
export const isRestricted = (r: Reply): boolean =>
  (r.code === 554 && r.enhanced === '5.2.2') ||
  is(r, 550, '5.1.8') ||
  /^5\.7\.(50[123]|511|705|708|750)$/.test(r.enhanced ?? '') ||
  /verdict is \{?(Suspend|HipSend|HipNotify)|WASCL.*(Suspend|HipSend|HipNotify)|Mail Sending denied/i.test(
    wordsOf(r),
  );

export const isSendAsDenied = (r: Reply): boolean =>
  r.code >= 500 &&
  (r.enhanced === '5.2.252' ||
    r.enhanced === '5.7.60' ||
    /SendAsDenied|not allowed to send as|does not have permissions to send as/i.test(wordsOf(r)));

export const isTemporarySystemProblem = (r: Reply): boolean =>
  r.code === 421 &&
  (/^4\.(3\.0|3\.2|4\.5|7\.0)$/.test(r.enhanced ?? '') ||
    /temporary system problem|server busy|try again later/i.test(wordsOf(r)));
