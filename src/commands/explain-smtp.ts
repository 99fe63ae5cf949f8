/** Why a submission server could not be reached or refused. Special rows before general ones. Pure. */
import { isGoogle, isMicrosoft, type Rule } from './explain-rule.ts';

export const SMTP_RULES: readonly Rule[] = [
  // The way to the server.
  {
    stages: ['dns'],
    said: /ENOTFOUND|ENODATA/,
    what: (t) => `there is no host ${t.host}`,
    cure: 'check smtp of the account for a typing mistake',
  },
  {
    stages: ['dns'],
    said: /./,
    what: 'the name server does not answer',
    cure: 'check /etc/resolv.conf and the network',
  },
  {
    stages: ['tcp'],
    said: /ECONNREFUSED/,
    what: (t) => `nothing listens on ${t.host}:${t.port}`,
    cure: (t) =>
      t.port === 465 && isMicrosoft(t)
        ? 'Microsoft has no port 465: use starttls://…:587'
        : 'check smtp of the account',
  },
  {
    stages: ['tcp'],
    said: /ETIMEDOUT|timeout|EHOSTUNREACH|ENETUNREACH/i,
    what: (t) =>
      `port ${t.port} of ${t.host} cannot be reached; hosting providers and offices often block it`,
    cure: 'allow outgoing TCP to this port in the firewall, or ask the hosting provider to',
  },
  {
    stages: ['tcp'],
    said: /EADDRNOTAVAIL|EINVAL/,
    what: 'local_address is not an address of this machine',
    cure: 'correct or remove local_address',
  },
  {
    stages: ['tls'],
    said: /CERT_HAS_EXPIRED|expired/i,
    what: 'the certificate of the server has expired, or the clock of this machine is wrong',
    cure: 'check the clock (timedatectl); else the server’s operator has to renew',
  },
  {
    stages: ['tls'],
    said: /ALTNAME|altnames/i,
    what: (t) => `the certificate was not issued for ${t.host}`,
    cure: 'use the name that stands in the certificate in smtp, or find out who sits in between',
  },
  {
    stages: ['tls'],
    said: /SELF_SIGNED|UNABLE_TO|issuer|certificate/i,
    what: 'the certificate comes from an authority this machine does not trust',
    cure: 'name the authority in NODE_EXTRA_CA_CERTS; at Gmail or Microsoft it means that somebody opens the connection on the way',
  },
  {
    stages: ['tls'],
    said: /STARTTLS/i,
    what: 'the server offers no STARTTLS here',
    cure: 'use smtps://…:465 if the server has it; mail is never sent in clear text',
  },
  {
    stages: ['tls'],
    said: /./,
    what: 'TLS could not be agreed on',
    cure: 'the server needs TLS 1.2 or newer; with smtps:// the port must be one for TLS from the start (465), with starttls:// one for STARTTLS (587)',
  },
  {
    stages: ['greeting', 'ehlo'],
    said: /timeout|ETIMEDOUT/i,
    what: 'the server does not speak first: the port may expect TLS from the start, or a firewall swallows the data',
    cure: 'use smtps:// for port 465 and starttls:// for 587',
  },
  {
    stages: ['greeting', 'ehlo'],
    said: /^4/,
    what: 'the server does not want connections from here now',
    cure: 'wait and try again; many quick connections cause this',
  },
  {
    stages: ['greeting', 'ehlo'],
    said: /./,
    what: 'the other side does not speak SMTP as expected',
    cure: 'check host and port of smtp',
  },

  // AUTH.
  {
    stages: ['auth'],
    said: /5\.7\.139.*(?:SmtpClientAuthentication is disabled for the Mailbox)/i,
    what: 'SMTP AUTH is switched off for this mailbox, also for OAuth',
    cure: 'an Exchange administrator runs: Set-CASMailbox -Identity MAILBOX -SmtpClientAuthenticationDisabled $false (or Microsoft 365 admin centre, user, Mail, Manage email apps, Authenticated SMTP)',
  },
  {
    stages: ['auth'],
    said: /5\.7\.139.*(?:SmtpClientAuthentication is disabled for the Tenant)/i,
    what: 'SMTP AUTH is switched off for the whole tenant, also for OAuth',
    cure: 'an Exchange administrator allows it for this mailbox: Set-CASMailbox -Identity MAILBOX -SmtpClientAuthenticationDisabled $false (https://aka.ms/smtp_auth_disabled)',
  },
  {
    stages: ['auth'],
    said: /5\.7\.139.*security defaults/i,
    what: 'the tenant’s security defaults forbid SMTP AUTH',
    cure: 'an administrator switches security defaults off in Entra ID (Properties) and uses Conditional Access instead',
  },
  {
    stages: ['auth'],
    said: /5\.7\.139.*(?:basic authentication|credentials were incorrect)/i,
    what: 'the server took this for a password login',
    cure: 'check that provider and smtp belong together',
  },
  {
    stages: ['auth'],
    said: /5\.7\.139/,
    what: 'a policy of the tenant (Conditional Access) forbids this login',
    cure: 'the tenant’s administrator finds the reason in the sign-in log of Entra ID',
  },
  {
    stages: ['auth'],
    said: /5\.7\.30|basic authentication is not supported/i,
    what: 'the server took this for a password login, which Microsoft no longer accepts',
    cure: 'check that provider and smtp belong together',
  },
  {
    stages: ['auth'],
    said: /^535 5\.7\.3\b/,
    when: (t) => t.grant === 'client_credentials',
    what: (t) => `Microsoft accepts the token but the application may not use the mailbox ${t.user}`,
    cure: 'an Exchange administrator runs New-ServicePrincipal with the object id of the enterprise application (not of the app registration) and Add-MailboxPermission … -AccessRights FullAccess; the permission is SMTP.SendAsApp with admin consent',
  },
  {
    stages: ['auth'],
    said: /^535 5\.7\.3\b/,
    what: (t) => `Microsoft does not accept this token for ${t.user}`,
    cure: 'check that user is the mailbox that signed in, or a shared mailbox the signed-in user has full access to, that it has a licence, and that the scope is https://outlook.office.com/SMTP.Send',
  },
  {
    stages: ['auth'],
    said: /5\.7\.8|5\.7\.1\b/,
    when: isGoogle,
    what: (t) => `Google does not accept this token for ${t.user}`,
    cure: 'check that user is the primary address of the account that signed in (not an alias), and that the scope is https://mail.google.com/',
  },
  {
    stages: ['auth'],
    said: /^454.*too many login/i,
    what: 'Google has seen too many logins of this account in a short time',
    cure: 'wait some minutes; other programs logging in to the same account count too',
  },
  {
    stages: ['auth'],
    said: /^(?:421|451|454)/,
    what: 'the provider has a fault or wants a pause; this usually passes',
    cure: 'try again later; if one mailbox keeps failing for hours, ask the provider with the id at the end of the reply',
  },
  {
    stages: ['auth'],
    said: /^504|unrecognized authentication|no XOAUTH2/i,
    what: 'the server does not know XOAUTH2',
    cure: 'check host and port of smtp',
  },
  {
    stages: ['auth'],
    said: /5\.7\.9|5\.7\.14/,
    what: 'Google wants a login in the browser for this account first',
    cure: 'sign in to the account in a browser, then sign in again with account add --replace',
  },

  // Senders.
  {
    stages: ['sender'],
    said: /5\.7\.60|5\.2\.252|SendAsDenied|permissions to send as/i,
    what: (t) => `${t.user} may not send as ${t.sender ?? 'this sender'}`,
    cure: (t) =>
      `an Exchange administrator runs: Add-RecipientPermission ${t.sender ?? 'SENDER'} -AccessRights SendAs -Trustee ${t.user}`,
  },
  {
    stages: ['sender'],
    said: /5\.7\.57|5\.7\.0/,
    what: 'the server does not regard this connection as authenticated',
    cure: 'try again; if it stays, the mailbox may not submit mail by SMTP',
  },
  {
    stages: ['sender'],
    said: /^4/,
    what: 'the server does not take mail from this sender at the moment (a rate or daily limit)',
    cure: 'wait; see messages_per_minute and messages_per_day',
  },
  {
    stages: ['sender'],
    said: /^5/,
    what: (t) => `the server refuses ${t.sender ?? 'this sender'}`,
    cure: 'add the address as "Send mail as" (Gmail) or give SendAs permission (Microsoft), or remove it from senders',
  },
  {
    stages: ['auth', 'sender', 'ehlo', 'greeting'],
    said: /closed|ECONNRESET|EPIPE|timeout/i,
    what: 'the server ended the connection',
    cure: 'try again; if it stays, something between here and the server interferes',
  },
];
