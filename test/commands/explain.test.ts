import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explain, type FailedStep } from '../../src/enrol/explain.ts';

const google = {
  provider: 'gmail',
  host: 'smtp.gmail.com',
  port: 587,
  user: 'a@gmail.com',
  account: 'shared@gmail.com',
  grant: 'refresh_token',
};
const microsoft = {
  provider: 'outlook',
  host: 'smtp.office365.com',
  port: 587,
  user: 'b@x.org',
  account: 'shared@x.org',
  grant: 'refresh_token',
};
const app = { ...microsoft, grant: 'client_credentials' };
const service = { ...google, grant: 'jwt_bearer' };

type Facts = Omit<FailedStep, 'stage' | 'said'>;
const rows: readonly (readonly [FailedStep['stage'], string, Facts, RegExp, RegExp])[] = [
  [
    'token',
    'HTTP 400 invalid_grant: Token has been expired or revoked.',
    google,
    /7 days .*"Testing"/,
    /In production/,
  ],
  [
    'token',
    'HTTP 400 invalid_grant: Bad Request',
    google,
    /ended this refresh token/,
    /account add shared@gmail\.com --replace/,
  ],
  [
    'token',
    'HTTP 401 invalid_client: The OAuth client was not found.',
    google,
    /no longer exists/,
    /client_id/,
  ],
  [
    'token',
    'HTTP 401 invalid_client: Unauthorized',
    google,
    /do not belong together.*client type/,
    /Desktop app/,
  ],
  [
    'token',
    'invalid_grant: Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe',
    service,
    /clock/,
    /timedatectl/,
  ],
  ['token', 'invalid_grant: Invalid JWT Signature.', service, /key has been deleted/, /new key/],
  ['token', 'invalid_grant: Invalid email or User ID', service, /knows no user/, /subject/],
  [
    'token',
    'unauthorized_client: Client is unauthorized to retrieve access tokens using this method',
    service,
    /domain-wide delegation/,
    /mail\.google\.com/,
  ],
  [
    'token',
    'invalid_grant: AADSTS700082: The refresh token has expired due to inactivity.',
    microsoft,
    /90 days/,
    /--replace/,
  ],
  ['token', 'invalid_grant: AADSTS50196: loop', microsoft, /too often/, /five minutes/],
  ['token', 'invalid_grant: AADSTS50173: revoked', microsoft, /password was changed/, /--replace/],
  ['token', 'interaction_required: AADSTS50076: MFA', microsoft, /second factor/, /--replace/],
  ['token', 'invalid_grant: AADSTS53003: blocked', microsoft, /Conditional Access/, /administrator/],
  ['token', 'invalid_grant: AADSTS65001: consent', microsoft, /consent to SMTP\.Send/, /grant consent/],
  [
    'token',
    'invalid_client: AADSTS7000215: Invalid client secret provided.',
    app,
    /secret is wrong/,
    /not its id/,
  ],
  ['token', 'invalid_client: AADSTS7000222: expired', app, /has expired/, /new one/],
  [
    'token',
    'invalid_request: AADSTS7000218: missing',
    microsoft,
    /confidential client/,
    /Allow public client flows/,
  ],
  ['token', 'invalid_request: AADSTS700025: public', microsoft, /public client/, /remove client_secret/],
  ['token', 'unauthorized_client: AADSTS700016: app', app, /not known in this tenant/, /tenant/],
  ['token', 'invalid_request: AADSTS50194: single tenant', microsoft, /one tenant only/, /set tenant/],
  ['token', 'invalid_client: AADSTS700024: assertion', app, /clock/, /timedatectl/],
  ['token', 'invalid_client: AADSTS700027: signature', app, /not registered/, /upload/],
  [
    'token',
    'invalid_grant: whatever',
    { ...google, provider: 'mine', host: 'm.example' },
    /no longer accepts/,
    /account invite shared@gmail\.com\).*account add shared@gmail\.com --replace/,
  ],
  ['token', 'HTTP 429 Too Many Requests', microsoft, /patience/, /wait/],
  ['token', 'token endpoint x: name not found (ENOTFOUND)', microsoft, /cannot be reached/, /HTTPS_PROXY/],
  ['dns', 'ENOTFOUND', google, /no host smtp\.gmail\.com/, /typing/],
  ['tcp', 'ECONNREFUSED', { ...microsoft, port: 465 }, /nothing listens/, /no port 465/],
  ['tcp', 'ETIMEDOUT', google, /block/, /firewall/],
  ['tls', 'CERT_HAS_EXPIRED', google, /expired/, /clock/],
  ['tls', 'ERR_TLS_CERT_ALTNAME_INVALID', google, /not issued for smtp\.gmail\.com/, /name/],
  ['tls', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', google, /does not trust/, /NODE_EXTRA_CA_CERTS/],
  ['greeting', 'timeout', google, /expect TLS/, /smtps/],
  [
    'auth',
    '535 5.7.3 Authentication unsuccessful [X]',
    microsoft,
    /does not accept this token for b@x\.org/,
    /SMTP\.Send/,
  ],
  [
    'auth',
    '535 5.7.3 Authentication unsuccessful [X]',
    app,
    /application may not use the mailbox/,
    /New-ServicePrincipal.*enterprise/,
  ],
  [
    'auth',
    '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled',
    microsoft,
    /whole tenant/,
    /Set-CASMailbox/,
  ],
  [
    'auth',
    '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.',
    microsoft,
    /for this mailbox/,
    /Set-CASMailbox -Identity b@x\.org /,
  ],
  [
    'auth',
    "535 5.7.139 user is locked by your organization's security defaults policy",
    microsoft,
    /security defaults/,
    /Entra/,
  ],
  [
    'auth',
    '535 5.7.139 the request did not meet the criteria to be authenticated successfully',
    microsoft,
    /Conditional Access/,
    /sign-in log/,
  ],
  [
    'auth',
    '535 5.7.8 Username and Password not accepted',
    google,
    /does not accept this token for a@gmail\.com/,
    /primary address/,
  ],
  ['auth', '454 4.7.0 Too many login attempts, please try again later', google, /too many logins/, /wait/],
  ['auth', '451 4.7.0 Temporary server error. Please try again later. PRX4', microsoft, /passes/, /later/],
  [
    'sender',
    '554 5.2.252 SendAsDenied; b@x.org not allowed to send as c@x.org',
    { ...microsoft, sender: 'c@x.org' },
    /may not send as c@x\.org/,
    /Add-RecipientPermission c@x\.org/,
  ],
  [
    'sender',
    '550 5.7.60 SMTP; Client does not have permissions to send as this sender',
    { ...microsoft, sender: 'c@x.org' },
    /may not send/,
    /SendAs/,
  ],
  ['sender', '421 4.4.2 Message submission rate', microsoft, /rate/, /messages_per_minute/],
  [
    'sender',
    '550 5.1.8 Access denied, bad outbound sender',
    { ...microsoft, sender: 'c@x.org' },
    /blocked b@x\.org/,
    /restrictedentities/,
  ],
  ['sender', '550 5.7.1 no', { ...microsoft, sender: 'c@x.org' }, /refuses c@x\.org/, /senders/],
  // A limit is not cured by permissions.
  [
    'sender',
    '550 5.4.5 Daily user sending limit exceeded. For more information on Gmail',
    google,
    /daily limit/,
    /by itself/,
  ],
  ['token', 'invalid_request: AADSTS90002: Tenant not found.', microsoft, /no such tenant/, /correct tenant/],
  ['token', 'token endpoint answered HTTP 404 (text/html)', microsoft, /no token endpoint/, /token_url/],
  ['token', 'token endpoint answered HTTP 503 (text/html)', google, /fault of its own/, /tries again/],
  ['token', 'token endpoint answered HTTP 200 (text/html)', google, /not its JSON/, /captive portal/],
  [
    'token',
    'invalid_grant: AADSTS50057: disabled',
    microsoft,
    /disabled/,
    /check b@x\.org in the Microsoft 365/,
  ],
  ['token', 'invalid_grant: AADSTS700084: spa', microsoft, /24 hours/, /Mobile and desktop.*--replace/],
];

for (const [stage, said, facts, what, cure] of rows)
  test(`${stage}: ${said.slice(0, 70)}`, () => {
    const explanation = explain({ ...facts, stage, said });
    assert.match(explanation.what, what);
    assert.match(explanation.cure, cure);
  });

test('what nobody has seen before is still answered', () => {
  for (const stage of ['token', 'dns', 'tcp', 'tls', 'greeting', 'ehlo', 'auth', 'sender'] as const) {
    const { what, cure } = explain({ ...google, stage, said: '999 gibberish \u0000' });
    assert(what.length > 0 && cure.length > 0);
  }
});
