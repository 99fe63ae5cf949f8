/**
 * What Gmail and Microsoft mean by a reply from MAIL to the end of data. Codes decide where they can, words
 * only where they must. Special rows before general ones; every stage has a last row that fits everything.
 * Sources: Google's and Exchange Online's reply tables, replies seen on the wire. Pure.
 */
import type { ReplyCause } from './reply-cause.ts';

/** Before the last octet of the body. */
const UNDER_WAY = ['mail', 'rcpt', 'body'] as const;
const SENDING = ['mail', 'rcpt', 'body', 'end'] as const;
/** What is said to RCPT is about the recipient, unless it names the sender's own limit or block. */
const NOT_OF_RECIPIENT = ['mail', 'body', 'end'] as const;

const LIFT = 'sending resumes within the hour after that';

export const SENDING_CAUSES: readonly ReplyCause[] = [
  {
    id: 'session-over',
    class: 'session_over',
    stages: UNDER_WAY,
    is: ({ code, enhanced, words }) =>
      ['451 4.4.2', '421 4.4.2', '421 4.4.1', '421 4.7.0', '451 4.7.0'].includes(`${code} ${enhanced}`) &&
      /timeout - closing connection|connection expired|connection timed out|session duration|timeout waiting for client|idle|timed? ?out/i.test(
        words,
      ),
    symptom: '451 4.4.2 Timeout - closing connection; 421 4.4.1 Connection timed out',
    what: 'the connection had been idle or had grown old',
    cure: 'nothing: the relay opens another one and repeats the message',
  },
  {
    id: 'not-authenticated',
    class: 'not_authenticated',
    stages: SENDING,
    is: ({ code, enhanced }) => code === 530 || (code === 550 && enhanced === '5.7.57'),
    symptom: '530 5.7.57 Client not authenticated to send mail; 530 5.7.0',
    what: 'the server does not regard this connection as authenticated',
    cure: 'nothing at first, the relay logs in again; if it stays, the mailbox may not submit mail by SMTP',
  },
  {
    id: 'submission-rate',
    class: 'submission_rate',
    stages: SENDING,
    is: ({ words }) => /message submission rate/i.test(words),
    symptom: '421 4.4.2 Message submission rate for this client has exceeded the configured limit',
    what: 'this mailbox has sent too many messages in a minute (a rate limit)',
    cure: 'nothing: sending resumes after a minute. If it returns, lower messages_per_minute; other programs of the mailbox count too',
  },
  {
    id: 'too-many-at-once',
    class: 'too_many_at_once',
    stages: SENDING,
    is: ({ stage, code, words }) =>
      /sender thread limit|concurrent connections limit/i.test(words) ||
      (code === 432 && stage !== 'rcpt' && !/recipient thread limit/i.test(words)),
    symptom: '432 4.3.2 Concurrent connections limit exceeded',
    what: 'too many messages of this mailbox at once',
    cure: 'nothing: the relay waits and sends fewer at a time. If it returns, lower max_connections; other programs of the mailbox count too',
  },
  {
    id: 'unusual-rate',
    class: 'quota',
    stages: SENDING,
    is: ({ enhanced }) => enhanced === '4.7.28' || enhanced === '5.7.28',
    symptom: '421 4.7.28 or 550 5.7.28 … unusual rate',
    what: 'Gmail finds the rate of this sender’s mail unusual and stops it for a while',
    cure: 'nothing: it is tried again every hour. If it returns, lower messages_per_minute',
  },
  {
    id: 'tenant-recipient-limit',
    class: 'quota',
    stages: SENDING,
    is: ({ enhanced }) => enhanced === '5.7.233',
    symptom: '550 5.7.233 Tenant External Recipient Rate Limit',
    what: 'the tenant has reached its limit of external recipients of 24 hours; it depends on its licences',
    cure: 'nothing: it is tried again every hour. If it returns, spread the mail over days or raise the tenant’s licences',
  },
  {
    id: 'daily-limit',
    class: 'quota',
    stages: SENDING,
    is: ({ enhanced, words }) =>
      enhanced === '5.4.5' ||
      /SubmissionQuotaExceeded|submission quota exceeded|RefuseQuota|daily user sending (?:limit|quota)|(?:peak|daily) smtp relay (?:sending )?limit/i.test(
        words,
      ),
    symptom:
      '550 5.4.5 Daily user sending limit exceeded; SubmissionQuotaExceededException; WASCL … RefuseQuota; 450 4.2.1 Peak SMTP relay limit',
    what: 'this mailbox has reached its daily limit of messages or recipients at the provider',
    cure: 'nothing: mail waits and sending resumes by itself within 24 hours; messages_per_day keeps below it',
  },
  {
    id: 'mailbox-full',
    class: 'restricted',
    stages: NOT_OF_RECIPIENT,
    is: ({ code, enhanced }) => code === 554 && enhanced === '5.2.2',
    symptom: '554 5.2.2 mailbox full … QuotaExceeded (end of data)',
    what: (f) => `the mailbox ${f.user} is full, which blocks sending: a copy goes to its Sent Items`,
    cure: 'its owner must free space',
  },
  {
    id: 'bad-outbound-sender',
    class: 'restricted',
    stages: SENDING,
    is: ({ code, enhanced }) =>
      (code === 550 && enhanced === '5.1.8') || /^5\.7\.(?:50[123]|511)$/.test(enhanced),
    symptom: '550 5.1.8 Access denied, bad outbound sender; 5.7.501 to 5.7.503, 5.7.511',
    what: (f) => `Microsoft has blocked ${f.user} for sending spam`,
    cure: (f) =>
      `secure the mailbox, then an administrator removes ${f.user} from https://security.microsoft.com/restrictedentities`,
  },
  {
    id: 'tenant-restricted',
    class: 'restricted',
    stages: SENDING,
    is: ({ enhanced }) => /^5\.7\.(?:705|708|750)$/.test(enhanced),
    symptom: '550 5.7.705, 5.7.708, 5.7.750',
    what: 'Microsoft restricts the whole tenant: too much spam, a new tenant, or domains that are not registered with it',
    cure: 'the tenant’s administrator follows the text of the reply and asks Microsoft support to lift it',
  },
  {
    id: 'account-suspended',
    class: 'restricted',
    stages: SENDING,
    is: ({ words }) =>
      /verdict is \{?(?:Suspend|HipSend|HipNotify)|Mail Sending denied/i.test(words) ||
      (words.includes('WASCL') && /Suspend|HipSend|HipNotify/.test(words)),
    symptom: 'WASCL UserAction verdict … Suspend, HipSend, HipNotify; 550 5.7.0 Mail Sending denied',
    what: 'the provider restricts this account and wants to see a person',
    cure: (f) => `its owner signs in to ${f.user} in a browser and proves to be human; ${LIFT}`,
  },
  {
    id: 'send-as-denied',
    class: 'send_as_denied',
    stages: SENDING,
    is: ({ code, enhanced, words }) =>
      code >= 500 &&
      (enhanced === '5.2.252' ||
        enhanced === '5.7.60' ||
        /SendAsDenied|not allowed to send as|does not have permissions to send as/i.test(words)),
    symptom: '554 5.2.252 SendAsDenied; 550 5.7.60 … permissions to send as this sender',
    what: (f) => `${f.user} may not send as ${f.sender ?? 'this sender'}`,
    cure: (f) =>
      `an Exchange administrator runs: Add-RecipientPermission ${f.sender ?? 'SENDER'} -AccessRights SendAs -Trustee ${f.user}`,
  },
  {
    id: 'too-many-recipients',
    class: 'too_many_recipients',
    stages: ['rcpt'],
    is: ({ enhanced, words }) => enhanced === '5.5.3' || /too many recipients/i.test(words),
    symptom: '452 4.5.3 or 550 5.5.3 Too many recipients',
    what: 'the provider takes no more recipients in this message',
    cure: 'nothing: the client sends the rest in another transaction; max_recipients sets the number',
  },
  {
    id: 'out-of-step',
    class: 'out_of_step',
    stages: SENDING,
    // 501 and 504 without an enhanced code may be about an address or a parameter.
    is: ({ code, enhanced }) =>
      code >= 500 &&
      code <= 504 &&
      (enhanced === '' ? code !== 501 && code !== 504 : enhanced.startsWith('5.5.')),
    symptom: '500 to 504 with 5.5.x, such as 503 5.5.1 Bad sequence of commands',
    what: 'relay and server are out of step; it says nothing of the message',
    cure: 'nothing: the message is repeated on a fresh connection. If it stays, report it with the reply',
  },
  {
    id: 'service-trouble',
    class: 'service_trouble',
    stages: SENDING,
    // A greylisted recipient is to be tried later, too: at RCPT the words have to name the service.
    is: ({ stage, code, enhanced, words }) =>
      code === 421 &&
      (/temporary system problem|server busy/i.test(words) ||
        (stage !== 'rcpt' &&
          (/^4\.(?:3\.0|3\.2|4\.5|7\.0)$/.test(enhanced) || /try again later/i.test(words)))),
    symptom: '421 4.3.0 Temporary System Problem; 421 4.4.5 Server busy',
    what: 'the provider has trouble or finds this account too busy',
    cure: 'nothing: the relay slows down and tries again by itself',
  },
  {
    id: 'message-too-large',
    class: 'too_large',
    stages: ['end'],
    is: ({ code, enhanced }) => code === 552 && enhanced !== '5.7.0',
    symptom: '552 5.2.3, 552 5.3.4',
    what: 'the message is larger than the provider or the mailbox allows',
    cure: 'send it smaller; at Microsoft an administrator can raise MaxSendSize of the mailbox',
  },
  {
    id: 'service-refused',
    class: 'service_refused',
    stages: NOT_OF_RECIPIENT,
    // 421, or a permanent system status (RFC 3463 §3.4).
    is: ({ code, enhanced }) => code === 421 || enhanced === '5.3.0' || enhanced === '5.3.2',
    symptom: 'another 421; 554 5.3.2 System not accepting network messages',
    what: 'the server does not take mail now',
    cure: 'wait; a 421 is tried again by itself',
  },
  {
    id: 'sender-deferred',
    class: 'message',
    stages: ['mail'],
    is: ({ code }) => code >= 400 && code < 500,
    symptom: 'another 4xx to MAIL FROM',
    what: 'the server does not take mail from this sender at the moment',
    cure: 'wait; see messages_per_minute and messages_per_day',
  },
  {
    id: 'connection-ended',
    class: 'message',
    stages: SENDING,
    is: ({ code }) => code === 0,
    symptom: 'the connection ends after the login',
    what: 'the server ended the connection',
    cure: 'try again; if it stays, something between here and the server interferes',
  },
  {
    id: 'sender-refused',
    class: 'message',
    stages: ['mail'],
    is: () => true,
    symptom: 'another 5xx to MAIL FROM',
    what: (f) => `the server refuses ${f.sender ?? 'this sender'}`,
    cure: 'add the address as "Send mail as" (Gmail) or give SendAs permission (Microsoft), or remove it from senders',
  },
  {
    id: 'recipient-refused',
    class: 'message',
    stages: ['rcpt'],
    is: () => true,
    symptom: 'another 4xx or 5xx to RCPT TO',
    what: 'the provider says something of this recipient: it is passed on as it is and changes nothing for the account',
    cure: 'check the recipient’s address; the client tries a 4xx again',
  },
  {
    id: 'message-refused',
    class: 'message',
    stages: ['body', 'end'],
    is: () => true,
    symptom: 'another 4xx or 5xx to the message',
    what: 'the provider does not take this message: its verdict is passed on as it is',
    cure: 'the reply names the reason, often content or From address; the client tries a 4xx again',
  },
];
