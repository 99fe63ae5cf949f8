/**
 * Why a token endpoint gave no token. Sources: RFC 6749 §5.2, Microsoft's AADSTS reference, Google's OAuth
 * error tables. A row is found by AADSTS number first, then by words, then by `error`. Pure.
 */
import { type Cause, isGoogle, signInAgain } from './cause.ts';

/** Closed: who has to do something about it. */
export type TokenFailureKind =
  | 'provider_fault'
  | 'throttled'
  | 'needs_consent'
  | 'app_misconfigured'
  | 'clock_skew'
  | 'bad_request';

export interface TokenCause extends Cause {
  readonly class: TokenFailureKind;
  readonly aadsts?: readonly number[];
  /** `error` values. With `words` both must fit. */
  readonly errors?: readonly string[];
  /** In the provider's sentence. */
  readonly words?: RegExp;
}

const token = (row: Omit<TokenCause, 'stages'>): TokenCause => ({ stages: ['token'], ...row });

export const TOKEN_CAUSES: readonly TokenCause[] = [
  // Microsoft's numbered errors.
  token({
    id: 'request-loop',
    class: 'throttled',
    aadsts: [50196],
    symptom: 'AADSTS50196',
    what: 'Microsoft saw the same request too often in five minutes and answers nothing else for a while',
    cure: 'wait five minutes; look for another program that uses the same client_id and refresh token',
  }),
  token({
    id: 'tenant-throttled',
    class: 'throttled',
    aadsts: [90055],
    symptom: 'AADSTS90055',
    what: 'Microsoft throttles this tenant: too many token requests',
    cure: 'wait; the relay tries again by itself. If it stays, fewer programs should use this client_id',
  }),
  token({
    id: 'refresh-token-unused',
    class: 'needs_consent',
    aadsts: [700082],
    symptom: 'AADSTS700082',
    what: 'the refresh token has not been used for 90 days and has ended',
    cure: signInAgain,
  }),
  token({
    id: 'refresh-token-spa',
    class: 'needs_consent',
    aadsts: [700084],
    symptom: 'AADSTS700084',
    what: 'the refresh token was issued to a single-page application and lives 24 hours',
    cure: (f) =>
      `register the redirect address under "Mobile and desktop applications" or "Web", not "Single-page application", and ${signInAgain(f)}`,
  }),
  token({
    id: 'sign-in-frequency',
    class: 'needs_consent',
    aadsts: [70043],
    symptom: 'AADSTS70043',
    what: 'a sign-in frequency set by Conditional Access has ended the refresh token',
    cure: (f) =>
      `the tenant’s administrator has to exempt this application or mailbox from the sign-in frequency, or it will end again; then ${signInAgain(f)}`,
  }),
  token({
    id: 'refresh-token-ended',
    class: 'needs_consent',
    aadsts: [70000, 70008],
    symptom: 'AADSTS70000, AADSTS70008',
    what: 'the refresh token has expired or was revoked',
    cure: signInAgain,
  }),
  token({
    id: 'password-changed',
    class: 'needs_consent',
    aadsts: [50173, 50132, 50133],
    symptom: 'AADSTS50173, AADSTS50132, AADSTS50133',
    what: 'the password was changed or the sign-in was revoked, which ends the refresh token',
    cure: signInAgain,
  }),
  token({
    id: 'second-factor',
    class: 'needs_consent',
    aadsts: [50076, 50079, 50074, 50078, 50072, 50158],
    symptom: 'AADSTS50076, AADSTS50079, AADSTS50074, AADSTS50078, AADSTS50072, AADSTS50158',
    what: 'the tenant asks for a second factor',
    cure: signInAgain,
  }),
  token({
    id: 'conditional-access-token',
    class: 'needs_consent',
    aadsts: [53000, 53001, 53002, 53003, 53004, 530032, 530035, 50097],
    symptom: 'AADSTS53000 to AADSTS53004, AADSTS530032, AADSTS530035, AADSTS50097',
    what: 'a Conditional Access policy of the tenant forbids this sign-in',
    cure: (f) =>
      `the tenant’s administrator finds the policy in the sign-in log of Entra ID and exempts this application or ${f.user} from it; signing in again alone does not help`,
  }),
  token({
    id: 'user-disabled',
    class: 'needs_consent',
    aadsts: [50057, 50034, 50053, 50055, 50144, 50126],
    symptom: 'AADSTS50057, AADSTS50034, AADSTS50053, AADSTS50055, AADSTS50144, AADSTS50126',
    what: 'the user is disabled, locked, unknown in this tenant, or the password has ended',
    cure: (f) =>
      `check ${f.user} in the Microsoft 365 admin centre, and tenant in the accounts file; once the user can sign in again: xoauth2-relay account add ${f.email ?? f.user} --replace`,
  }),
  token({
    id: 'user-not-assigned',
    class: 'needs_consent',
    aadsts: [50105],
    symptom: 'AADSTS50105',
    what: 'the application is open to assigned users only, and this user is not assigned',
    cure: (f) =>
      `an administrator assigns ${f.user} to it: Entra ID, Enterprise applications, Users and groups`,
  }),
  token({
    id: 'consent-missing',
    class: 'needs_consent',
    aadsts: [65001, 65004, 90094, 700020],
    errors: ['consent_required'],
    symptom: 'AADSTS65001, AADSTS65004, AADSTS90094, AADSTS700020, `consent_required`',
    what: 'consent to SMTP.Send is missing',
    cure: (f) =>
      `${signInAgain(f)} and accept, or let an administrator grant consent in Entra ID (API permissions)`,
  }),
  token({
    id: 'secret-wrong',
    class: 'app_misconfigured',
    aadsts: [7000215],
    symptom: 'AADSTS7000215',
    what: 'the client secret is wrong',
    cure: 'use the secret’s value, not its id (Entra ID, Certificates & secrets); the value is shown only once, so create a new one if it is lost',
  }),
  token({
    id: 'secret-expired',
    class: 'app_misconfigured',
    aadsts: [7000222],
    symptom: 'AADSTS7000222',
    what: 'the client secret has expired',
    cure: 'create a new one in Entra ID (Certificates & secrets), put its value into client_secret and reload',
  }),
  token({
    id: 'client-is-public',
    class: 'app_misconfigured',
    aadsts: [700025],
    symptom: 'AADSTS700025',
    what: 'this application is a public client, which must not send a secret',
    cure: 'remove client_secret from the account',
  }),
  token({
    id: 'client-is-confidential',
    class: 'app_misconfigured',
    aadsts: [7000218],
    symptom: 'AADSTS7000218',
    what: 'this application is a confidential client and no secret was sent',
    cure: 'give client_secret or a certificate, or switch "Allow public client flows" on in Entra ID',
  }),
  token({
    id: 'certificate-not-registered',
    class: 'app_misconfigured',
    aadsts: [700027, 50012],
    symptom: 'AADSTS700027, AADSTS50012',
    what: 'the assertion was signed with a certificate that is not registered with the application',
    cure: 'upload this certificate in Entra ID (Certificates & secrets), or point certificate and private_key at the registered one',
  }),
  token({
    id: 'app-not-in-tenant',
    class: 'app_misconfigured',
    aadsts: [700016, 700011, 500011, 650056, 650057, 70002],
    symptom: 'AADSTS700016, AADSTS700011, AADSTS500011, AADSTS650056, AADSTS650057, AADSTS70002',
    what: 'the application is not known in this tenant, or lacks the permission',
    cure: 'check client_id and tenant; an administrator may have to consent to the application first (SMTP.Send, or SMTP.SendAsApp for app-only access)',
  }),
  token({
    id: 'app-disabled',
    class: 'app_misconfigured',
    aadsts: [70001, 7000112],
    symptom: 'AADSTS7000112, AADSTS70001',
    what: 'the application is disabled',
    cure: 'an administrator enables it: Entra ID, Enterprise applications, Properties, "Enabled for users to sign-in"',
  }),
  token({
    id: 'tenant-unknown',
    class: 'bad_request',
    aadsts: [90002, 90023],
    symptom: 'AADSTS90002, AADSTS90023',
    what: 'Microsoft knows no such tenant',
    cure: 'correct tenant in the accounts file: the id or a domain of your tenant (Entra ID, Overview)',
  }),
  token({
    id: 'single-tenant',
    class: 'app_misconfigured',
    aadsts: [50194],
    symptom: 'AADSTS50194',
    what: 'the application belongs to one tenant only and was asked for at "common"',
    cure: 'set tenant to the id or domain of your tenant',
  }),
  token({
    id: 'shared-tenant',
    class: 'bad_request',
    aadsts: [9001023],
    symptom: 'AADSTS9001023',
    what: 'an application cannot sign in as itself at a shared tenant',
    cure: 'set tenant to the id or domain of your tenant',
  }),
  token({
    id: 'scope-wrong',
    class: 'bad_request',
    aadsts: [70011, 28002, 70003],
    errors: ['invalid_scope', 'invalid_resource'],
    symptom: 'AADSTS70011, AADSTS28002, AADSTS70003, `invalid_scope`',
    what: 'the provider does not accept the scope',
    cure: 'remove scope from the account, so that the provider’s default is used; scopes of Graph must not be mixed in',
  }),
  token({
    id: 'request-malformed',
    class: 'bad_request',
    aadsts: [90013, 90014, 900144, 9002313],
    errors: ['invalid_request', 'unsupported_grant_type'],
    symptom: 'AADSTS90013, AADSTS90014, AADSTS900144, AADSTS9002313, `invalid_request`',
    what: 'the token endpoint finds the request incomplete or wrong',
    cure: 'check grant, client_id, tenant and token_url of the account',
  }),
  token({
    id: 'clock-wrong',
    class: 'clock_skew',
    aadsts: [700024],
    symptom: 'AADSTS700024, "Token must be … in a reasonable timeframe"',
    words: /reasonable timeframe|short-lived token/i,
    what: 'the clock of this machine is wrong: the signed assertion counts as expired or not yet valid',
    cure: 'set the clock (timedatectl set-ntp true)',
  }),
  token({
    id: 'token-service-fault',
    class: 'provider_fault',
    aadsts: [
      50033, 50087, 90006, 90012, 90024, 90033, 90090, 70012, 40010, 80001, 80002, 80005, 80007, 50166,
    ],
    errors: ['temporarily_unavailable', 'server_error', 'internal_failure', 'backend_error'],
    symptom: 'HTTP 500 to 504, `temporarily_unavailable`, AADSTS90033 and the like',
    what: 'the token endpoint has a fault of its own; this usually passes',
    cure: 'nothing to do here: the relay tries again by itself. If it lasts, see the status page of the provider',
  }),

  // Google's words.
  token({
    id: 'service-account-key',
    class: 'app_misconfigured',
    errors: ['invalid_grant'],
    words: /invalid jwt|jwt signature/i,
    symptom: '`invalid_grant` "Invalid JWT Signature."',
    what: 'the service account key has been deleted or replaced',
    cure: 'create a new key for the service account and point service_account_file at it',
  }),
  token({
    id: 'user-unknown',
    class: 'needs_consent',
    errors: ['invalid_grant'],
    words: /not a valid email|invalid email or user/i,
    symptom: '`invalid_grant` "Invalid email or User ID"',
    what: (f) => `Google Workspace knows no user ${f.user}`,
    cure: 'check email, user and subject of the account',
  }),
  token({
    id: 'oauth-client-gone',
    class: 'app_misconfigured',
    errors: ['invalid_client'],
    words: /client was not found/i,
    symptom: '`invalid_client` "The OAuth client was not found."',
    what: 'the OAuth client no longer exists',
    cure: 'check client_id in the Google Cloud console: https://console.cloud.google.com/auth/clients',
  }),
  token({
    id: 'oauth-client-off',
    class: 'app_misconfigured',
    errors: ['deleted_client', 'disabled_client'],
    symptom: '`deleted_client`, `disabled_client`',
    what: 'the OAuth client no longer exists or is switched off',
    cure: 'check client_id in the Google Cloud console: https://console.cloud.google.com/auth/clients',
  }),

  // By `error` alone.
  token({
    id: 'grant-refused',
    class: 'needs_consent',
    errors: ['invalid_grant', 'interaction_required', 'login_required'],
    symptom: '`invalid_grant`, `interaction_required`, `login_required`',
    what: 'the provider no longer accepts this refresh token',
    cure: signInAgain,
    special: [
      {
        where: 'Google, refresh token ("Token has been expired or revoked.")',
        when: (f) => isGoogle(f) && f.grant === 'refresh_token',
        what: 'Google has ended this refresh token: 7 days are over for an app in "Testing", the password was changed, access was revoked, it was unused for six months, or 100 newer ones exist',
        cure: (f) =>
          `if it ended after 7 days, set the app "In production" first (https://console.cloud.google.com/auth/audience), or it will end again; then ${signInAgain(f)}`,
      },
    ],
  }),
  token({
    id: 'client-refused',
    class: 'app_misconfigured',
    errors: ['invalid_client'],
    symptom: '`invalid_client`',
    what: 'client id and client secret do not belong together, or the client type is wrong',
    cure: 'check client_id and client_secret; at Google the client type has to be "Desktop app" or "Web application"',
  }),
  token({
    id: 'client-not-allowed',
    class: 'app_misconfigured',
    errors: ['unauthorized_client'],
    symptom: '`unauthorized_client`',
    what: 'this client may not ask for tokens in this way',
    cure: 'check the client type and grant; at Microsoft, switch "Allow public client flows" on for a client without a secret',
    special: [
      {
        where: 'Google service account',
        when: (f) => isGoogle(f) && f.grant === 'jwt_bearer',
        what: 'the service account has no domain-wide delegation for the mail scope',
        cure: 'Google Admin console, Security, API controls, Domain-wide delegation: add the numeric client ID with the scope https://mail.google.com/ (takes effect within minutes to 24 hours)',
      },
    ],
  }),
  token({
    id: 'organisation-forbids',
    class: 'app_misconfigured',
    errors: ['org_internal', 'admin_policy_enforced'],
    symptom: '`org_internal`, `admin_policy_enforced`',
    what: 'the organisation does not allow this application',
    cure: 'its administrator has to trust the application (Google Admin console, Security, API controls)',
  }),
  token({
    id: 'access-denied',
    class: 'needs_consent',
    errors: ['access_denied'],
    symptom: '`access_denied`',
    what: 'the mailbox or its organisation does not allow this application',
    cure: (f) =>
      `its administrator has to trust the application (Google Admin console, Security, API controls); then ${signInAgain(f)}`,
  }),
  token({
    id: 'token-service-throttles',
    class: 'throttled',
    errors: ['slow_down', 'rate_limit_exceeded', 'quota_exceeded', 'too_many_requests'],
    symptom: 'HTTP 429, `rate_limit_exceeded`',
    what: 'the token endpoint asks for patience',
    cure: 'wait, the relay tries again by itself; if it stays, fewer programs should use this client_id',
  }),

  token({
    id: 'token-refused',
    class: 'bad_request',
    symptom: 'another `error` of the token endpoint',
    what: 'the token endpoint refuses the request for a reason the relay does not know',
    cure: 'check grant, client_id, scope, tenant and token_url of the account; the provider’s own words say more',
  }),

  // Nothing was asked.
  token({
    id: 'token-store-away',
    class: 'provider_fault',
    symptom: '"Redis is away, and another relay may be refreshing this account"',
    what: 'the token has ended, and without Redis the relay cannot know whether another one is asking for a new one: two who ask at once can cost the mailbox its consent',
    cure: 'bring Redis back (see redis_lost in the log): the mail leaves at once. Only where mail matters more than a new sign-in: without_store "ask"',
  }),
  token({
    id: 'state-directory-unusable',
    class: 'provider_fault',
    symptom: '"the state directory cannot be used, and another process may be refreshing this account"',
    what: 'the refresh token in the state directory cannot be read or locked, and an older one must not be used in its place',
    cure: 'make the state directory readable and writable for the relay (disk full, owner, mode); the relay tries again by itself',
  }),

  // No answer, or none of a token endpoint.
  token({
    id: 'token-url-wrong',
    class: 'provider_fault',
    symptom: 'HTTP 404, 405 or 410, or a redirect, of the token endpoint',
    what: 'there is no token endpoint at this address',
    cure: 'check token_url and tenant of the account; a proxy in between may also answer so',
  }),
  token({
    id: 'token-service-garbled',
    class: 'provider_fault',
    symptom: '"token endpoint answered HTTP 200 (text/html)"',
    what: 'what answers is no token endpoint, or it has a fault: the answer is not its JSON',
    cure: 'check token_url; a proxy or captive portal in between may answer in its place (HTTPS_PROXY is honoured)',
  }),
  token({
    id: 'token-service-unreachable',
    class: 'provider_fault',
    symptom: 'ENOTFOUND, ECONNREFUSED, ETIMEDOUT, "no complete answer in time"',
    what: 'the token endpoint cannot be reached from this machine',
    cure: 'check DNS, firewall and proxy (HTTPS_PROXY is honoured for token requests), and token_url',
  }),
  token({
    id: 'token-service-certificate',
    class: 'provider_fault',
    symptom: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE, SELF_SIGNED_CERT_IN_CHAIN, CERT_HAS_EXPIRED',
    what: 'the certificate of the token endpoint is not trusted',
    cure: 'a proxy that opens TLS needs its CA in NODE_EXTRA_CA_CERTS; else check the clock (timedatectl)',
  }),
];
