/**
 * What Microsoft Graph means by an answer that is not the wanted one. Special rows before general ones;
 * the last fits everything. Sources: Graph's error reference, answers seen in public reports. Pure.
 */
import { commandFor } from '../shell-command.ts';
import { type Cause, type CauseFacts, signInAgain } from './cause.ts';

/** `send_mail` is the one call that creates and sends. */
export type GraphCall = 'create' | 'send' | 'look' | 'search' | 'delete' | 'send_mail';

/** What follows from it is done in graph-answer.ts. */
export type GraphClass =
  | 'false_success'
  | 'send_as_denied'
  | 'too_large'
  | 'bad_recipient'
  | 'account'
  | 'mailbox_full'
  | 'quota'
  | 'throttled'
  | 'token_refused'
  | 'bad_message'
  | 'service_trouble'
  | 'draft_missing'
  | 'not_understood';

/** An answer as it is judged. */
export interface GraphHeard {
  readonly call: GraphCall;
  readonly status: number;
  /** `error.code`, or empty. */
  readonly code: string;
  readonly message: string;
}

export interface GraphCause extends Cause {
  readonly class: GraphClass;
  readonly is: (heard: GraphHeard) => boolean;
}

const graph = (row: Omit<GraphCause, 'stages'>): GraphCause => ({ stages: ['graph'], ...row });

const sends = ({ call }: GraphHeard): boolean => call === 'send' || call === 'send_mail';
const grantIn = (permission: string) => (f: CauseFacts) =>
  f.grant === 'client_credentials'
    ? `an administrator grants the application permission ${permission} of Microsoft Graph with consent, or with RBAC for Applications assigns the role "Application ${permission}" in a scope that holds ${f.user}: docs/microsoft-graph.md`
    : `add the delegated permission ${permission} of Microsoft Graph to the application (for the mailbox of another person ${permission}.Shared and the right to it in Exchange), then ${signInAgain(f)}`;

export const GRAPH_CAUSES: readonly GraphCause[] = [
  graph({
    id: 'graph-false-success',
    class: 'false_success',
    is: ({ status }) => status >= 200 && status < 300,
    symptom: 'a 2xx status other than 201 and 202',
    what: 'Graph answered with a success that is none; this has been seen for messages that are too large',
    cure: 'nothing, the message waits; if it stays, make the message smaller or use SMTP for it',
  }),
  graph({
    id: 'graph-send-as-denied',
    class: 'send_as_denied',
    is: ({ code }) => /^ErrorSend(?:As|OnBehalf)Denied$/i.test(code),
    symptom: 'ErrorSendAsDenied',
    what: (f) => `${f.user} may not send as the address in From:`,
    cure: 'use the address of the mailbox in From:, or an Exchange administrator grants SendAs (Add-RecipientPermission)',
  }),
  graph({
    id: 'graph-too-large',
    class: 'too_large',
    is: ({ status, code, message }) =>
      status === 413 || /^ErrorMessageSizeExceeded$/i.test(code) || /maximum request length/i.test(message),
    symptom: '413, ErrorMessageSizeExceeded, "maximum request length supported is 4MB"',
    what: 'the message is larger than Graph takes (3 MB)',
    cure: 'send it by SMTP, or smaller',
  }),
  graph({
    id: 'graph-bad-recipient',
    class: 'bad_recipient',
    is: ({ code }) => /^ErrorInvalidRecipients$/i.test(code),
    symptom: 'ErrorInvalidRecipients',
    what: 'Graph does not take the address of a recipient',
    cure: 'correct the address and send again',
  }),
  graph({
    id: 'graph-no-licence',
    class: 'account',
    is: ({ code, message }) =>
      /MailboxNotEnabledForRESTAPI|MailboxNotSupportedForRESTAPI/i.test(code) ||
      /mailbox is either inactive|not enabled for/i.test(message),
    symptom: 'MailboxNotEnabledForRESTAPI',
    what: (f) =>
      `Graph may not use the mailbox ${f.user}: it has no Exchange Online licence, is switched off, or is on premises`,
    cure: 'give the mailbox an Exchange Online licence (it can take an hour until Graph knows); mail of one on premises cannot leave by Graph',
  }),
  graph({
    id: 'graph-no-mailbox',
    class: 'account',
    is: ({ code }) =>
      /^(?:MailboxNotFound|ErrorNonExistentMailbox|ErrorInvalidUser|ResourceNotFound|Request_ResourceNotFound)$/i.test(
        code,
      ),
    symptom: 'MailboxNotFound, ErrorInvalidUser',
    what: (f) => `Graph finds no mailbox ${f.user}: the tenant has none, or it signs in under another name`,
    cure: 'where the sign-in name (UPN) is not the address, set user to it; check tenant',
  }),
  graph({
    id: 'graph-mailbox-full',
    class: 'mailbox_full',
    is: ({ code }) => /^Error(?:QuotaExceeded|MailboxFull|MailboxStoreQuota)/i.test(code),
    symptom: 'ErrorQuotaExceeded',
    what: (f) => `the mailbox ${f.user} is full; Graph keeps a copy of everything that is sent`,
    cure: 'its owner frees space',
  }),
  graph({
    id: 'graph-quota',
    class: 'quota',
    is: ({ code }) =>
      /^ErrorExceededMessageLimit$|SubmissionQuota|^ErrorMessageSubmissionBlocked$/i.test(code),
    symptom: 'ErrorExceededMessageLimit, submission quota',
    what: 'the mailbox has reached its limit of messages or recipients (10,000 recipients a day)',
    cure: 'nothing, sending resumes by itself within a day',
  }),
  graph({
    id: 'graph-throttled',
    class: 'throttled',
    is: ({ status, code }) => status === 429 || /^(?:ApplicationThrottled|TooManyRequests)$/i.test(code),
    symptom: '429 ApplicationThrottled',
    what: 'Graph gets too many requests for this mailbox or from this application',
    cure: 'nothing, the relay waits as long as Graph asks; other programs with the same client_id count too',
  }),
  graph({
    id: 'graph-token-refused',
    class: 'token_refused',
    is: ({ status }) => status === 401,
    symptom: '401 InvalidAuthenticationToken',
    what: 'Graph does not take the token, a new one neither: it was issued for something else, or the sign-in has no right to Graph',
    cure: (f) =>
      f.grant === 'client_credentials'
        ? 'check the application’s permissions of Microsoft Graph and their consent; scope must be left out or end in /.default of Graph'
        : `check that the application is registered with permissions of Microsoft Graph, then sign in again: ${commandFor('account add', f.account, '--transport graph', '--replace')}`,
  }),
  graph({
    id: 'graph-no-send',
    class: 'account',
    is: (heard) => heard.status === 403 && sends(heard),
    symptom: '403 ErrorAccessDenied to a send',
    what: (f) => `the application may not send as ${f.user}: the permission Mail.Send is missing`,
    cure: grantIn('Mail.Send'),
  }),
  graph({
    id: 'graph-no-read-write',
    class: 'account',
    is: ({ status }) => status === 403,
    symptom: '403 ErrorAccessDenied to a draft',
    what: (f) =>
      `the application may not create a draft in ${f.user}: the permission Mail.ReadWrite is missing`,
    cure: (f) => `${grantIn('Mail.ReadWrite')(f)}; with Mail.Send alone set graph_permissions to send`,
  }),
  graph({
    id: 'graph-bad-message',
    class: 'bad_message',
    is: ({ status }) => status === 400,
    symptom: '400 ErrorMimeContentInvalidBase64String and others',
    what: 'Graph does not take the message',
    cure: 'read what Graph says; a message that other servers take should go by SMTP',
  }),
  graph({
    id: 'graph-service-trouble',
    class: 'service_trouble',
    is: ({ status }) => status >= 500 || [408, 409, 423].includes(status),
    symptom: '503 ErrorServerBusy, 504, 500 UnknownError',
    what: 'Graph has a temporary problem',
    cure: 'nothing, the relay tries again by itself',
  }),
  graph({
    id: 'graph-draft-missing',
    class: 'draft_missing',
    is: ({ status }) => status === 404,
    symptom: '404 ErrorItemNotFound',
    what: 'Graph does not find the draft it has made',
    cure: 'nothing, the next retry of the mail server looks again',
  }),
  graph({
    id: 'graph-not-understood',
    class: 'not_understood',
    is: () => true,
    symptom: 'another status',
    what: 'Graph did not understand the request',
    cure: 'check graph_url of the account',
  }),
];

/** What a client hears of the relay itself on this way. */
export const GRAPH_OWN_CAUSES: readonly Cause[] = [
  {
    id: 'graph-unclear',
    stages: ['graph'],
    symptom: '451 4.4.2 delivery status unknown',
    what: 'nobody knows whether Graph sent the message; the relay never sends a second copy',
    cure: 'with graph_permissions read_write nothing: the next retry looks again. With send, or where it stays: look in Sent Items of the mailbox, then "xoauth2-relay unclear delivered KEY" or "xoauth2-relay unclear again KEY" ("xoauth2-relay unclear list" names the keys)',
  },
  {
    id: 'graph-foreign-recipients',
    stages: ['graph'],
    symptom: '554 5.6.0 this account delivers by Graph to whomever the header names',
    what: 'a header names somebody who is not in the transaction, and Graph would mail that person too',
    cure: 'let the mail server hand over all recipients at once (Postfix: default_destination_recipient_limit = 500), or set graph_recipients to rewrite',
  },
  {
    id: 'graph-foreign-sender',
    stages: ['graph'],
    symptom: '550 5.7.1 Graph sends as its mailbox',
    what: 'From: or MAIL FROM is no address of the account; Graph sends as the mailbox, and the null sender cannot be used',
    cure: 'let the application write the address of the mailbox in From:, or add what it writes to senders of the account; let bounces go another way',
  },
];
