/** Replies of Gmail and Microsoft as they were seen on the wire or documented, and what must follow from each. */
import type { Stage, Verdict } from '../../src/protocol/verdict.ts';

export interface Row {
  readonly stage: Stage;
  readonly wire: string;
  readonly class: Verdict['class'];
  /** Start of the answer's line. */
  readonly answer: string;
  readonly breaker?: Verdict['breaker'];
  readonly renewToken?: boolean;
  readonly retry?: Verdict['retry'];
  readonly slowDown?: boolean;
  readonly pause?: readonly [scope: string, status: string, steps: readonly number[]];
}

const GMAIL_BAD_CREDENTIALS =
  '535-5.7.8 Username and Password not accepted. For more information, go to\n535 5.7.8  https://support.google.com/mail/?p=BadCredentials x11sm6715821pfn.53 - gsmtp';
const SEND_AS_DENIED = `554 5.2.252 SendAsDenied; ann@example.com not allowed to send as boss@example.com; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message [BeginDiagnosticData]Cannot submit message. ${'0.35250:0A00 '.repeat(280)}[EndDiagnosticData] [Hostname=X.prod.outlook.com]`;

export const rows: readonly Row[] = [
  // A server that does not take connections.
  {
    stage: 'greeting',
    wire: '421 4.7.0 Try again later, closing connection.',
    class: 'provider',
    answer: '451 4.3.2',
    breaker: 'full',
  },
  {
    stage: 'ehlo',
    wire: '421 4.3.2 Service not active',
    class: 'provider',
    answer: '451 4.3.2',
    breaker: 'full',
  },
  // A session that was idle or has grown old: unseen by the client.
  {
    stage: 'mail',
    wire: '451 4.4.2 Timeout - closing connection. x11sm6715821pfn.53 - gsmtp',
    class: 'stale',
    answer: '451 4.4.2',
    retry: 'fresh',
  },
  {
    stage: 'mail',
    wire: '421 4.7.0 Connection expired, try reconnecting. x - gsmtp',
    class: 'stale',
    answer: '451 4.4.2',
    retry: 'fresh',
  },
  {
    stage: 'mail',
    wire: '421 4.4.1 Connection timed out. Total session duration: 00:20:55.0000000',
    class: 'stale',
    answer: '451 4.4.2',
    retry: 'fresh',
  },
  {
    stage: 'rcpt',
    wire: '451 4.7.0 Timeout waiting for client input',
    class: 'stale',
    answer: '451 4.4.2',
    retry: 'fresh',
  },
  // A token that is suspect.
  {
    stage: 'auth',
    wire: GMAIL_BAD_CREDENTIALS,
    class: 'account',
    answer: '451 4.7.0 upstream credentials rejected for ann@example.com',
    breaker: 'if_many',
    renewToken: true,
    pause: ['logins', 'needs_consent', [1, 5, 15, 60]],
  },
  {
    stage: 'auth',
    wire: '535 5.7.3 Authentication unsuccessful [LO4P302CA0005.GBRP302.PROD.OUTLOOK.COM 2026-11-20T10:00:00.000Z 08DCE8B62813AB2B]',
    class: 'account',
    answer: '451 4.7.0',
    breaker: 'if_many',
    renewToken: true,
    pause: ['logins', 'needs_consent', [1, 5, 15, 60]],
  },
  // Policies that no token cures.
  {
    stage: 'auth',
    wire: '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [X]',
    class: 'account',
    answer: '451 4.7.0',
    pause: ['logins', 'misconfigured', [60]],
  },
  {
    stage: 'auth',
    wire: '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled [X]',
    class: 'account',
    answer: '451 4.7.0',
    pause: ['logins', 'misconfigured', [60]],
  },
  {
    stage: 'auth',
    wire: "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.",
    class: 'account',
    answer: '451 4.7.0',
    pause: ['logins', 'misconfigured', [60]],
  },
  {
    stage: 'auth',
    wire: '535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator.',
    class: 'account',
    answer: '451 4.7.0',
    pause: ['logins', 'misconfigured', [60]],
  },
  {
    stage: 'auth',
    wire: '550 5.7.30 Basic authentication is not supported for Client Submission.',
    class: 'account',
    answer: '451 4.7.0',
    pause: ['logins', 'misconfigured', [60]],
  },
  {
    stage: 'auth',
    wire: '535 5.7.9 Application-specific password required',
    class: 'account',
    answer: '451 4.7.0',
    pause: ['logins', 'misconfigured', [60]],
  },
  {
    stage: 'auth',
    wire: '534 5.7.14 Please log in through your web browser',
    class: 'account',
    answer: '451 4.7.0',
    pause: ['logins', 'misconfigured', [60]],
  },
  // Logins throttled.
  {
    stage: 'auth',
    wire: '454 4.7.0 Too many login attempts, please try again later. x11sm6715821pfn.53 - gsmtp',
    class: 'throttled',
    answer: '451 4.7.0',
    breaker: 'if_many',
    pause: ['logins', 'throttled', [5, 15, 60]],
  },
  {
    stage: 'auth',
    wire: '454-4.7.0 Too many login attempts, please try again later. For more information,\n454 4.7.0 go to https://support.google.com/mail/answer/7126229 x - gsmtp',
    class: 'throttled',
    answer: '451 4.7.0',
    breaker: 'if_many',
    pause: ['logins', 'throttled', [5, 15, 60]],
  },
  // The provider cannot authenticate now.
  {
    stage: 'auth',
    wire: '454 4.7.0 Cannot authenticate due to temporary system problem. Try again later. x - gsmtp',
    class: 'provider',
    answer: '451 4.3.0',
    breaker: 'full',
  },
  {
    stage: 'auth',
    wire: '454 4.7.0 Temporary authentication failure',
    class: 'provider',
    answer: '451 4.3.0',
    breaker: 'full',
  },
  {
    stage: 'auth',
    wire: '451 4.7.0 Temporary server error. Please try again later. PRX4 [X]',
    class: 'provider',
    answer: '451 4.3.0',
    breaker: 'full',
  },
  {
    stage: 'auth',
    wire: '421 4.3.2 Service not active',
    class: 'provider',
    answer: '451 4.3.0',
    breaker: 'full',
  },
  {
    stage: 'auth',
    wire: '451 Internal server error',
    class: 'provider',
    answer: '451 4.3.0',
    breaker: 'full',
  },
  // It did not understand us.
  {
    stage: 'auth',
    wire: '555-5.5.2 Syntax error, command line too long\n555 5.5.2 x - gsmtp',
    class: 'local',
    answer: '451 4.3.5',
    retry: 'fresh',
  },
  {
    stage: 'auth',
    wire: '501 5.5.2 Cannot Decode response',
    class: 'local',
    answer: '451 4.3.5',
    retry: 'fresh',
  },
  {
    stage: 'auth',
    wire: '501 5.5.124 Invalid XOAUTH2 auth data',
    class: 'local',
    answer: '451 4.3.5',
    retry: 'fresh',
  },
  {
    stage: 'auth',
    wire: '504 5.7.4 Unrecognized authentication type',
    class: 'local',
    answer: '451 4.3.5',
    retry: 'fresh',
  },
  {
    stage: 'auth',
    wire: '503 5.7.0 No identity changes permitted',
    class: 'local',
    answer: '451 4.3.5',
    retry: 'fresh',
  },
  {
    stage: 'mail',
    wire: '530 5.7.57 Client not authenticated to send mail. [X]',
    class: 'local',
    answer: '451 4.3.5',
    retry: 'fresh',
  },
  {
    stage: 'mail',
    wire: '550 5.7.57 Client was not authenticated to send anonymous mail during MAIL FROM',
    class: 'local',
    answer: '451 4.3.5',
    retry: 'fresh',
  },
  {
    stage: 'mail',
    wire: '530 5.7.0 Authentication Required',
    class: 'local',
    answer: '451 4.3.5',
    retry: 'fresh',
  },
  // Trouble in the middle of a session.
  {
    stage: 'body',
    wire: '421 4.3.0 Temporary System Problem. Try again later (10). x - gsmtp',
    class: 'throttled',
    answer: '451 4.3.2',
    breaker: 'half',
    slowDown: true,
  },
  {
    stage: 'mail',
    wire: '421 4.7.0 Temporary System Problem. Try again later (10). x - gsmtp',
    class: 'throttled',
    answer: '451 4.3.2',
    breaker: 'half',
    slowDown: true,
  },
  {
    stage: 'mail',
    wire: '421 4.4.5 Server busy, try again later.',
    class: 'throttled',
    answer: '451 4.3.2',
    breaker: 'half',
    slowDown: true,
  },
  {
    stage: 'end',
    wire: '432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname=X]',
    class: 'throttled',
    answer: '451 4.3.2',
    retry: 'wait',
    slowDown: true,
  },
  {
    stage: 'end',
    wire: '432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded',
    class: 'throttled',
    answer: '451 4.3.2',
    retry: 'wait',
    slowDown: true,
  },
  {
    stage: 'mail',
    wire: '421 4.4.2 Message submission rate for this client has exceeded the configured limit',
    class: 'throttled',
    answer: '451 4.4.2',
    pause: ['sending', 'throttled', [1]],
  },
  // Quotas that only the provider knows: 4xx although some are 5xx on the wire.
  {
    stage: 'end',
    wire: '550-5.4.5 Daily user sending limit exceeded. For more information on Gmail\n550-5.4.5 sending limits go to\n550 5.4.5  https://support.google.com/a/answer/166852 x - gsmtp',
    class: 'throttled',
    answer: '452 4.7.1',
    pause: ['sending', 'throttled', [60]],
  },
  {
    stage: 'mail',
    wire: '550 5.4.5 Daily user sending quota exceeded. x - gsmtp',
    class: 'throttled',
    answer: '452 4.7.1',
    pause: ['sending', 'throttled', [60]],
  },
  {
    stage: 'end',
    wire: '554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException.MapiExceptionSubmissionQuotaExceeded',
    class: 'throttled',
    answer: '452 4.7.1',
    pause: ['sending', 'throttled', [60]],
  },
  {
    stage: 'end',
    wire: '550 5.7.233 Tenant External Recipient Rate Limit exceeded',
    class: 'throttled',
    answer: '452 4.7.1',
    pause: ['sending', 'throttled', [60]],
  },
  {
    stage: 'end',
    wire: '554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL UserAction verdict is not None. Actual verdict is RefuseQuota, ShowTierUpgrade. [Hostname=X]',
    class: 'throttled',
    answer: '452 4.7.1',
    pause: ['sending', 'throttled', [60]],
  },
  {
    stage: 'end',
    wire: '421 4.7.28 Gmail has detected an unusual rate of mail. x - gsmtp',
    class: 'throttled',
    answer: '452 4.7.1',
    pause: ['sending', 'throttled', [60]],
  },
  {
    stage: 'end',
    wire: '550 5.7.28 unusual rate of unsolicited mail',
    class: 'throttled',
    answer: '452 4.7.1',
    pause: ['sending', 'throttled', [60]],
  },
  {
    stage: 'rcpt',
    wire: '450 4.2.1 Peak SMTP relay limit exceeded for customer',
    class: 'throttled',
    answer: '452 4.7.1',
    pause: ['sending', 'throttled', [60]],
  },
  // Restrictions that a person must lift.
  {
    stage: 'end',
    wire: '554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiException{ShutoffQuotaExceeded,QuotaExceeded}',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'end',
    wire: '550 5.1.8 Access denied, bad outbound sender',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'end',
    wire: '550 5.7.501 Access denied, spam abuse detected',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'end',
    wire: '550 5.7.511 Access denied, banned sender',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'end',
    wire: '550 5.7.705 Access denied, tenant has exceeded threshold',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'end',
    wire: '550 5.7.708 Access denied, traffic not accepted from this IP',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'end',
    wire: '550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'end',
    wire: '554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL UserAction verdict is not None. Actual verdict is Suspend, ShowTierUpgrade. [Hostname=X]',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'end',
    wire: '554 5.2.0 WASCL UserAction verdict is not None. Actual verdict is HipSend.',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  {
    stage: 'mail',
    wire: '550 5.7.0 Mail Sending denied',
    class: 'account',
    answer: '451 4.7.1',
    pause: ['sending', 'misconfigured', [60]],
  },
  // The sender may not be used.
  {
    stage: 'end',
    wire: SEND_AS_DENIED,
    class: 'message_permanent',
    answer: '550 5.7.60 sender boss@example.com not permitted for account ann@example.com',
  },
  {
    stage: 'end',
    wire: '554 5.2.0 STOREDRV.Submission.Exception:SendAsDenied',
    class: 'message_permanent',
    answer: '550 5.7.60',
  },
  {
    stage: 'end',
    wire: '550 5.7.60 SMTP; Client does not have permissions to send as this sender',
    class: 'message_permanent',
    answer: '550 5.7.60',
  },
  {
    stage: 'mail',
    wire: '550 5.7.1 Client does not have permissions to send as this sender',
    class: 'message_permanent',
    answer: '550 5.7.60',
  },
  // Verdicts on recipients, size, content: the provider's own.
  {
    stage: 'rcpt',
    wire: '553 5.1.3 The recipient address <x> is not a valid RFC 5321 address. x - gsmtp',
    class: 'message_permanent',
    answer: '553 5.1.3 The recipient address <x>',
  },
  {
    stage: 'rcpt',
    wire: "553 5.1.2 We weren't able to find the recipient domain.",
    class: 'message_permanent',
    answer: "553 5.1.2 We weren't",
  },
  {
    stage: 'rcpt',
    wire: '550 5.1.1 The email account that you tried to reach does not exist.',
    class: 'message_permanent',
    answer: '550 5.1.1 The email account',
  },
  { stage: 'rcpt', wire: '501 5.1.3 Invalid address', class: 'message_permanent', answer: '501 5.1.3' },
  {
    stage: 'rcpt',
    wire: '452 4.5.3 Your message has too many recipients.',
    class: 'message_temporary',
    answer: '452 4.5.3',
  },
  {
    stage: 'rcpt',
    wire: '550 5.5.3 Too many recipients for this sender',
    class: 'message_temporary',
    answer: '452 4.5.3',
  },
  {
    stage: 'end',
    wire: "552-5.2.3 Your message exceeded Google's message size limits.\n552 5.2.3 x - gsmtp",
    class: 'message_permanent',
    answer: '552 5.2.3 Your message',
  },
  {
    stage: 'end',
    wire: '552 5.3.4 Message size exceeds fixed limit',
    class: 'message_permanent',
    answer: '552 5.3.4',
  },
  {
    stage: 'end',
    wire: '552-5.7.0 This message was blocked because its content presents a potential\n552 5.7.0 security issue.',
    class: 'message_permanent',
    answer: '552 5.7.0 This message was blocked',
  },
  {
    stage: 'end',
    wire: '550 5.7.1 Our system has detected that this message is likely unsolicited mail.',
    class: 'message_permanent',
    answer: '550 5.7.1 Our system',
  },
  {
    stage: 'end',
    wire: '550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant',
    class: 'message_permanent',
    answer: '550 5.7.512',
  },
  { stage: 'end', wire: '550 5.6.11 Invalid characters', class: 'message_permanent', answer: '550 5.6.11' },
  { stage: 'end', wire: '554 5.4.6 Routing loop detected', class: 'message_permanent', answer: '554 5.4.6' },
  {
    stage: 'end',
    wire: '451 4.3.0 Mail server temporarily rejected message. x - gsmtp',
    class: 'message_temporary',
    answer: '451 4.3.0 Mail server temporarily',
    breaker: 'if_many',
  },
  {
    stage: 'rcpt',
    wire: '450 4.2.1 The user you are trying to contact is receiving mail too quickly',
    class: 'message_temporary',
    answer: '450 4.2.1',
    breaker: 'if_many',
  },
  // 421 would close the client's session: it hears 451.
  {
    stage: 'end',
    wire: '421 4.4.1 Something else, goodbye',
    class: 'message_temporary',
    answer: '451 4.4.1 Something else',
    breaker: 'if_many',
  },
  {
    stage: 'mail',
    wire: '554 no enhanced code at all',
    class: 'message_permanent',
    answer: '554 no enhanced code at all',
  },
];
