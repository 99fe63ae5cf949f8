/**
 * What Gmail and Microsoft mean by a reply to AUTH. Special rows before general ones; the last fits everything.
 * Sources: Google's and Exchange Online's reply tables, replies seen on the wire. Pure.
 */
import { isGoogle, signInAgain } from './cause.ts';
import type { ReplyCause } from './reply-cause.ts';

const AUTH = ['auth'] as const;

export const LOGIN_CAUSES: readonly ReplyCause[] = [
  {
    id: 'logins-throttled',
    class: 'logins_throttled',
    stages: AUTH,
    is: ({ code, words }) => code === 454 && /too many login/i.test(words),
    symptom: '454 4.7.0 Too many login attempts',
    what: 'Google has seen too many logins of this account in a short time',
    cure: 'wait some minutes; other programs logging in to the same account count too',
  },
  {
    id: 'smtp-auth-off-mailbox',
    class: 'login_policy',
    stages: AUTH,
    is: ({ words }) => /SmtpClientAuthentication is disabled for the Mailbox/i.test(words),
    symptom: '535 5.7.139 … SmtpClientAuthentication is disabled for the Mailbox',
    what: 'SMTP AUTH is switched off for this mailbox, also for OAuth',
    cure: (f) =>
      `an Exchange administrator runs: Set-CASMailbox -Identity ${f.user} -SmtpClientAuthenticationDisabled $false (or Microsoft 365 admin centre, user, Mail, Manage email apps, Authenticated SMTP); https://aka.ms/smtp_auth_disabled`,
  },
  {
    id: 'smtp-auth-off-tenant',
    class: 'login_policy',
    stages: AUTH,
    is: ({ words }) => /SmtpClientAuthentication is disabled/i.test(words),
    symptom: '535 5.7.139 … SmtpClientAuthentication is disabled for the Tenant',
    what: 'SMTP AUTH is switched off for the whole tenant, also for OAuth',
    cure: (f) =>
      `an Exchange administrator allows it for this mailbox: Set-CASMailbox -Identity ${f.user} -SmtpClientAuthenticationDisabled $false; https://aka.ms/smtp_auth_disabled`,
  },
  {
    id: 'smtp-no-licence',
    class: 'login_policy',
    stages: AUTH,
    is: ({ enhanced, words }) => enhanced === '5.7.139' && /licen[cs]|mailbox is not enabled/i.test(words),
    symptom: '535 5.7.139 … that names a licence',
    what: (f) => `the mailbox ${f.user} has no licence with SMTP AUTH`,
    cure: 'give the mailbox an Exchange Online licence, or let its mail leave by Graph: docs/microsoft-graph.md',
  },
  {
    id: 'security-defaults',
    class: 'login_policy',
    stages: AUTH,
    is: ({ words }) => /security defaults/i.test(words),
    symptom: '535 5.7.139 … security defaults policy',
    what: 'the tenant’s security defaults forbid SMTP AUTH; they know no exceptions',
    cure: 'an administrator switches security defaults off in Entra ID (Properties) and uses Conditional Access instead',
  },
  {
    id: 'password-login',
    class: 'login_policy',
    stages: AUTH,
    is: ({ enhanced, words }) =>
      enhanced === '5.7.30' ||
      /basic authentication is (?:disabled|not supported)/i.test(words) ||
      (enhanced === '5.7.139' && /credentials were incorrect/i.test(words)),
    symptom: '550 5.7.30 Basic authentication is not supported; 535 5.7.139 basic authentication is disabled',
    what: 'the server took this for a password login, which Microsoft no longer accepts',
    cure: 'check that provider and smtp of the account belong together',
  },
  {
    id: 'conditional-access',
    class: 'login_policy',
    stages: AUTH,
    is: ({ enhanced, words }) => enhanced === '5.7.139' || /did not meet the criteria/i.test(words),
    symptom: '535 5.7.139 … did not meet the criteria to be authenticated successfully',
    what: 'a policy of the tenant (Conditional Access) forbids this login',
    cure: (f) =>
      `the tenant’s administrator finds the policy in the sign-in log of Entra ID and exempts ${f.user} from it`,
  },
  {
    id: 'browser-login-first',
    class: 'login_policy',
    stages: AUTH,
    is: ({ enhanced }) => enhanced === '5.7.9' || enhanced === '5.7.14',
    symptom: '534 5.7.14 … log in through your web browser; 535 5.7.9',
    what: 'Google wants a login in the browser for this account first',
    cure: (f) => `sign in to the account in a browser, then ${signInAgain(f)}`,
  },
  {
    id: 'token-rejected-microsoft',
    class: 'token_rejected',
    stages: AUTH,
    is: ({ code, enhanced }) => code === 535 && enhanced === '5.7.3',
    symptom: '535 5.7.3 Authentication unsuccessful',
    what: (f) => `Microsoft does not accept this token for ${f.user}`,
    cure: 'check that user is the mailbox that signed in, or a shared mailbox the signed-in user has full access to, that it has a licence, and that the scope is https://outlook.office.com/SMTP.Send',
    special: [
      {
        where: 'grant client_credentials',
        when: (f) => f.grant === 'client_credentials',
        what: (f) => `Microsoft accepts the token but the application may not use the mailbox ${f.user}`,
        cure: (f) =>
          `an Exchange administrator runs New-ServicePrincipal with the object id of the enterprise application (not of the app registration) and Add-MailboxPermission -Identity ${f.user} -User SERVICE_PRINCIPAL -AccessRights FullAccess; the permission is SMTP.SendAsApp with admin consent`,
      },
    ],
  },
  {
    id: 'token-rejected',
    class: 'token_rejected',
    stages: AUTH,
    is: ({ code }) => code === 535,
    symptom: '535 5.7.8 Username and Password not accepted',
    what: (f) => `the server does not accept this token for ${f.user}`,
    cure: 'check that user is the account that signed in, and that the scope allows SMTP',
    special: [
      {
        where: 'Google',
        when: isGoogle,
        what: (f) => `Google does not accept this token for ${f.user}`,
        cure: 'check that user is the primary address of the account that signed in (not an alias), and that the scope is https://mail.google.com/',
      },
    ],
  },
  {
    id: 'no-xoauth2',
    class: 'login_not_understood',
    stages: AUTH,
    is: ({ code }) => code === 504,
    symptom: '504 5.7.4 Unrecognized authentication type; no XOAUTH2 or OAUTHBEARER offered',
    what: 'the server offers no login with a token (neither XOAUTH2 nor OAUTHBEARER)',
    cure: 'check host and port of smtp; where the provider knows passwords only, no relay with OAuth2 can help: let the mail server log in there itself',
  },
  {
    id: 'login-not-understood',
    class: 'login_not_understood',
    stages: AUTH,
    is: ({ code, enhanced }) =>
      (code === 501 && /^5\.5\.(?:2|124)$/.test(enhanced)) || [555, 503, 530, 500].includes(code),
    symptom: '501 5.5.2, 501 5.5.124, 503, 530, 555 at AUTH',
    what: 'the server did not understand the login',
    cure: 'check host and port of smtp; if they are right, report it with the reply',
  },
  {
    id: 'connection-ended-at-login',
    class: 'login_fault',
    stages: AUTH,
    is: ({ code }) => code === 0,
    symptom: 'the connection ends during AUTH',
    what: 'the server ended the connection',
    cure: 'try again; if it stays, something between here and the server interferes',
  },
  {
    id: 'login-fault',
    class: 'login_fault',
    stages: AUTH,
    is: ({ code }) => code >= 400 && code < 500,
    symptom: '451 4.7.0 Temporary server error … PRX4; 454 4.7.0 Temporary authentication failure; 421',
    what: 'the provider has a fault or wants a pause; this usually passes',
    cure: 'nothing at first, the relay tries again later by itself; if one mailbox keeps failing for hours, ask the provider with the id at the end of the reply',
  },
  {
    id: 'login-refused',
    class: 'login_refused',
    stages: AUTH,
    is: () => true,
    symptom: 'another 5xx at AUTH',
    what: (f) => `the server refuses the login of ${f.user}`,
    cure: 'the reply names the reason; where it names none, ask the provider with the id at its end',
  },
];
