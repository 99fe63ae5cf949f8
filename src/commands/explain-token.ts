/** Why a token endpoint gave no token. Special rows before general ones. Pure. */
import { aadsts, isGoogle, type Rule, signInAgain } from './explain-rule.ts';

export const TOKEN_RULES: readonly Rule[] = [
  // Token endpoint: Microsoft's numbered errors.
  {
    stages: ['token'],
    said: aadsts(50196),
    what: 'Microsoft saw the same request too often in five minutes and answers nothing else for a while',
    cure: 'wait five minutes; look for another program that uses the same client_id and refresh token',
  },
  {
    stages: ['token'],
    said: aadsts(700082, 70008),
    what: 'the refresh token has not been used for 90 days and has ended',
    cure: signInAgain,
  },
  {
    stages: ['token'],
    said: aadsts(700084),
    what: 'the refresh token was issued to a single-page application and lives 24 hours',
    cure: 'register the redirect address under "Mobile and desktop applications" or "Web", not "Single-page application", and sign in again',
  },
  {
    stages: ['token'],
    said: aadsts(50173, 50132, 50133),
    what: 'the password was changed or the sign-in was revoked, which ends the refresh token',
    cure: signInAgain,
  },
  {
    stages: ['token'],
    said: aadsts(50076, 50079, 50074, 50072, 50158),
    what: 'the tenant asks for a second factor',
    cure: signInAgain,
  },
  {
    stages: ['token'],
    said: aadsts(53000, 53001, 53002, 53003, 53004, 530032, 530035),
    what: 'a Conditional Access policy of the tenant forbids this sign-in',
    cure: 'the tenant’s administrator has to exempt this application or mailbox from the policy',
  },
  {
    stages: ['token'],
    said: aadsts(50057, 50034, 50053, 50055, 50144),
    what: 'the user is disabled, locked, unknown in this tenant, or the password has ended',
    cure: 'check the user in the Microsoft 365 admin centre, and tenant in the accounts file',
  },
  {
    stages: ['token'],
    said: aadsts(65001, 65004, 90094),
    what: 'consent to SMTP.Send is missing',
    cure: 'sign in again and accept, or let an administrator grant consent in Entra ID (API permissions)',
  },
  {
    stages: ['token'],
    said: aadsts(7000215),
    what: 'the client secret is wrong',
    cure: 'use the secret’s value, not its id (Entra ID, Certificates & secrets); the value is shown only once, so create a new one if it is lost',
  },
  {
    stages: ['token'],
    said: aadsts(7000222),
    what: 'the client secret has expired',
    cure: 'create a new one in Entra ID (Certificates & secrets) and put its value into client_secret',
  },
  {
    stages: ['token'],
    said: aadsts(700025),
    what: 'this application is a public client, which must not send a secret',
    cure: 'remove client_secret from the account',
  },
  {
    stages: ['token'],
    said: aadsts(7000218),
    what: 'this application is a confidential client and no secret was sent',
    cure: 'give client_secret or a certificate, or switch "Allow public client flows" on in Entra ID',
  },
  {
    stages: ['token'],
    said: aadsts(700027),
    what: 'the assertion was signed with a certificate that is not registered with the application',
    cure: 'upload this certificate in Entra ID (Certificates & secrets), or point certificate and private_key at the registered one',
  },
  {
    stages: ['token'],
    said: aadsts(700016, 700011, 90002, 500011, 650056, 650057),
    what: 'the application is not known in this tenant',
    cure: 'check client_id and tenant; an administrator may have to consent to the application first',
  },
  {
    stages: ['token'],
    said: aadsts(50194),
    what: 'the application belongs to one tenant only and was asked for at "common"',
    cure: 'set tenant to the id or domain of your tenant',
  },
  {
    stages: ['token'],
    said: aadsts(9001023),
    what: 'an application cannot sign in as itself at a shared tenant',
    cure: 'set tenant to the id or domain of your tenant',
  },
  {
    stages: ['token'],
    said: aadsts(70011, 28002, 70003),
    what: 'Microsoft does not accept the scope',
    cure: 'remove scope from the account, so that the provider’s default is used; scopes of Graph must not be mixed in',
  },
  {
    stages: ['token'],
    said: aadsts(700024),
    what: 'the signed assertion lies outside its time: the clock of this machine is wrong',
    cure: 'set the clock (timedatectl set-ntp true)',
  },

  // Token endpoint: Google's words.
  {
    stages: ['token'],
    said: /expired or revoked|invalid_grant/i,
    when: (t) => isGoogle(t) && t.grant === 'refresh_token',
    what: 'Google has ended this refresh token: 7 days are over for an app in "Testing", the password was changed, access was revoked, it was unused for six months, or 100 newer ones exist',
    cure: (t) =>
      `if it ended after 7 days, set the app "In production" (Google Auth Platform, Audience) first; then ${signInAgain(t)}`,
  },
  {
    stages: ['token'],
    said: /reasonable timeframe|clock/i,
    what: 'the clock of this machine is wrong: Google takes the assertion for expired or not yet valid',
    cure: 'set the clock (timedatectl set-ntp true)',
  },
  {
    stages: ['token'],
    said: /invalid jwt signature/i,
    what: 'the service account key has been deleted or replaced',
    cure: 'create a new key for the service account and point service_account_file at it',
  },
  {
    stages: ['token'],
    said: /not a valid email|invalid email or user/i,
    what: (t) => `Google Workspace knows no user ${t.user}`,
    cure: 'check email, user and subject of the account',
  },
  {
    stages: ['token'],
    said: /unauthorized_client|client is unauthorized/i,
    when: (t) => isGoogle(t) && t.grant === 'jwt_bearer',
    what: 'the service account has no domain-wide delegation for the mail scope',
    cure: 'Google Admin console, Security, API controls, Domain-wide delegation: add the numeric client ID with the scope https://mail.google.com/ (takes effect within minutes to 24 hours)',
  },
  {
    stages: ['token'],
    said: /client was not found|deleted_client|disabled_client/i,
    what: 'the OAuth client no longer exists or is switched off',
    cure: 'check client_id in the Google Cloud console (Clients)',
  },
  {
    stages: ['token'],
    said: /invalid_client|unauthorized/i,
    what: 'client id and client secret do not belong together, or the client type is wrong',
    cure: 'check client_id and client_secret; at Google the client type has to be "Desktop app" or "Web application"',
  },
  {
    stages: ['token'],
    said: /org_internal|admin_policy_enforced|access_denied/i,
    what: 'the organisation does not allow this application',
    cure: 'its administrator has to trust the application (Google Admin console, API controls)',
  },
  {
    stages: ['token'],
    said: /invalid_scope/i,
    what: 'the provider does not accept the scope',
    cure: 'remove scope from the account, so that the provider’s default is used',
  },
  {
    stages: ['token'],
    said: /invalid_grant|interaction_required|consent_required|login_required/i,
    what: 'the provider no longer accepts this refresh token',
    cure: signInAgain,
  },
  {
    stages: ['token'],
    said: /HTTP 429|too many requests|rate_limit|throttl/i,
    what: 'the token endpoint asks for patience',
    cure: 'wait and try again; if it stays, fewer programs should use this client_id',
  },
  {
    stages: ['token'],
    said: /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|cannot be reached|no answer|not resolve|refused|did not answer|timed? ?out/i,
    what: 'the token endpoint cannot be reached from this machine',
    cure: 'check DNS, firewall and proxy (HTTPS_PROXY is honoured for token requests), and token_url',
  },
  {
    stages: ['token'],
    said: /certificate|self.signed|unable to verify/i,
    what: 'the certificate of the token endpoint is not trusted',
    cure: 'a proxy that opens TLS needs its CA in NODE_EXTRA_CA_CERTS',
  },
];
