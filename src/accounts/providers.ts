/**
 * Provider profiles: where to submit mail, where tokens come from, what one mailbox may do.
 * In: the name of a built-in provider. Out: its profile. Pure; the operator's own `providers` join them
 * in accounts-file.ts.
 */

import type { AccountLimits, Endpoint, GrantType } from './account.ts';
import type { SecretSource } from './schema.ts';

export interface ProviderProfile {
  /** The key an account names. */
  readonly name: string;
  /** For people. */
  readonly title: string;
  readonly smtp: Endpoint;
  /** `{tenant}` stands for the account's tenant. */
  readonly tokenUrl: string;
  /** For the interactive sign-in; absent where it cannot be done. */
  readonly authorizeUrl?: string | undefined;
  readonly deviceUrl?: string | undefined;
  /** Where its OAuth clients are registered, and as what, in words. */
  readonly clientsAt?: string;
  /** Microsoft Graph; absent where mail cannot leave that way. */
  readonly graphUrl?: string | undefined;
  /** Further parameters of the authorization request. */
  readonly authorizeParameters?: Readonly<Record<string, string>>;
  /** Issuer of its ID tokens, where `signInScope` asks for one. */
  readonly issuer?: string;
  /** Host of the loopback redirect as registered with the client; default 127.0.0.1 (RFC 8252 §7.3). */
  readonly redirectHost?: string;
  /** Its token endpoint never answers with another refresh token: two who ask at once harm nothing. */
  readonly neverRotates?: true;
  /** Default tenant; absent where the provider has none. */
  readonly tenant?: string | undefined;
  /** Scope sent in the token request by grant; a grant without an entry is not offered. `''` sends none. */
  readonly scopes: Partial<Record<GrantType, string>>;
  /** The same of tokens for IMAP; where none is named nobody knows one. */
  readonly imapScopes?: Partial<Record<GrantType, string>> | undefined;
  /** Scope asked for at the interactive sign-in. */
  readonly signInScope: string;
  readonly safetyBufferMs: number;
  readonly chunking: boolean;
  /** Proxy for SMTP where the account names none, as written. */
  readonly smtpProxy?: SecretSource | undefined;
  /** EHLO argument where the account names none. */
  readonly heloName?: string | undefined;
  readonly limits: AccountLimits;
}

const MINUTE = 60_000;

/** Numbers that hold where a provider publishes none. */
export const DEFAULT_LIMITS: AccountLimits = {
  // Cautious: the smallest documented cap of a large provider is 3 (Exchange Online).
  maxConnections: 3,
  // One warm connection per account: the first message after a pause finds it.
  minConnections: 1,
  messagesPerMinute: undefined,
  messagesPerDay: undefined,
  recipientsPerDay: undefined,
  // RFC 5321 §4.5.3.1.8: every server takes at least 100.
  maxRecipients: 100,
  // Widespread client default; no large provider publishes a number.
  messagesPerConnection: 100,
  // Exchange and Gmail close at about 5 minutes without a command.
  idleMs: 4 * MINUTE,
  // Exchange ends a session after 10 minutes, even while it transmits.
  maxAgeMs: 8 * MINUTE,
  loginIntervalMs: 0,
  // 25 MB of attachments after base64.
  maxBytes: 35_882_577,
};

/** Numbers of providers that nobody has told us of: cautious ones. */
const UNKNOWN_PROVIDER = {
  // A refresh takes the scope of the consent.
  scopes: { refresh_token: '' },
  safetyBufferMs: 5 * MINUTE,
  chunking: false,
  limits: DEFAULT_LIMITS,
} as const;

const GOOGLE_SCOPE = 'https://mail.google.com/';
const MICROSOFT_SCOPE = 'https://outlook.office.com/SMTP.Send offline_access';
const ENTRA = 'https://entra.microsoft.com, App registrations';
const MICROSOFT_IMAP = imapScopes('https://outlook.office.com');
const MICROSOFT_LOGIN = microsoftLogin('login.microsoftonline.com');

const MICROSOFT_LIMITS: AccountLimits = {
  ...DEFAULT_LIMITS,
  // Documented: 3 submissions at once per mailbox, each further one gets 432 at the end of DATA.
  maxConnections: 3,
  // Documented: 30 a minute per mailbox; two are left for other programs of the same mailbox.
  messagesPerMinute: 28,
  // Documented, in any 24 hours.
  recipientsPerDay: 10_000,
  // Documented default, 1 to 1000 by the administrator.
  maxRecipients: 500,
  // SIZE as advertised: 150 MiB. The mailbox may allow less.
  maxBytes: 157_286_400,
};

/** What mailboxes of organisations and persons have in common, in every cloud but for the hosts and scopes. */
const MICROSOFT = {
  graphUrl: 'https://graph.microsoft.com/v1.0',
  ...MICROSOFT_LOGIN,
  authorizeParameters: { prompt: 'select_account' },
  // Registered as http://localhost; Microsoft ignores the port only there.
  redirectHost: 'localhost',
  signInScope: MICROSOFT_SCOPE,
  safetyBufferMs: 10 * MINUTE,
  // Exchange answered BDAT with 552 "Header size exceeds" and with silence.
  chunking: false,
};

const BUILT_IN: readonly ProviderProfile[] = [
  {
    name: 'gmail',
    title: 'Gmail and Google Workspace',
    clientsAt: 'https://console.cloud.google.com/auth/clients, as a Desktop app',
    smtp: { host: 'smtp.gmail.com', port: 587, tls: 'starttls' },
    tokenUrl: 'https://oauth2.googleapis.com/token',
    // Only a consent gives one; a refresh answers with an access token alone.
    neverRotates: true,
    authorizeUrl: 'https://accounts.google.com/o/oauth2/v2/auth',
    // Without these two Google gives no refresh token the second time.
    authorizeParameters: { access_type: 'offline', prompt: 'consent' },
    issuer: 'https://accounts.google.com',
    // A refresh takes the scope of the consent; Google wants none in the request.
    scopes: { refresh_token: '', jwt_bearer: GOOGLE_SCOPE },
    // Its only scope for SMTP is one for IMAP, too.
    imapScopes: { refresh_token: '', jwt_bearer: GOOGLE_SCOPE },
    // openid and email tell who signed in.
    signInScope: `${GOOGLE_SCOPE} openid email`,
    safetyBufferMs: 5 * MINUTE,
    chunking: true,
    limits: {
      ...DEFAULT_LIMITS,
      // Not published; 5 is what large senders use. Fast logins end in 454 4.7.0, hence the interval.
      maxConnections: 5,
      loginIntervalMs: 2_000,
      // Documented for Workspace; a free mailbox has less and hears 550 5.4.5 earlier.
      recipientsPerDay: 10_000,
      // Documented for smtp.gmail.com.
      maxRecipients: 100,
      // SIZE as advertised.
      maxBytes: 35_882_577,
    },
  },
  {
    name: 'outlook',
    title: 'Microsoft 365',
    ...MICROSOFT,
    clientsAt: ENTRA,
    smtp: { host: 'smtp.office365.com', port: 587, tls: 'starttls' },
    tenant: 'common',
    scopes: {
      refresh_token: MICROSOFT_SCOPE,
      client_credentials: 'https://outlook.office365.com/.default',
    },
    imapScopes: { ...MICROSOFT_IMAP, client_credentials: 'https://outlook.office365.com/.default' },
    limits: MICROSOFT_LIMITS,
  },
  {
    name: 'outlook-personal',
    title: 'Outlook.com and Hotmail',
    ...MICROSOFT,
    clientsAt: ENTRA,
    smtp: { host: 'smtp-mail.outlook.com', port: 587, tls: 'starttls' },
    tenant: 'consumers',
    scopes: { refresh_token: MICROSOFT_SCOPE },
    imapScopes: MICROSOFT_IMAP,
    // Documented attachment limit 25 MB; the advertised SIZE is the front end's. 5,000 recipients a day.
    limits: { ...MICROSOFT_LIMITS, recipientsPerDay: 5_000 },
  },
  {
    name: 'outlook-hve',
    title: 'Microsoft 365 High Volume Email (internal recipients)',
    smtp: { host: 'smtp-hve.office365.com', port: 587, tls: 'starttls' },
    tokenUrl: MICROSOFT_LOGIN.tokenUrl,
    tenant: 'organizations',
    // Application permission Mail.Send of Office 365 Exchange Online, and Add-HVEAppAccess for the account.
    scopes: { client_credentials: 'https://outlook.office365.com/.default' },
    signInScope: '',
    // A token with 10 minutes left or less is refused.
    safetyBufferMs: 12 * MINUTE,
    chunking: false,
    limits: { ...DEFAULT_LIMITS, maxBytes: MICROSOFT_LIMITS.maxBytes },
  },
  nationalCloud('outlook-us', 'Microsoft 365 GCC High (US government; not verified)', {
    smtp: 'smtp.office365.us',
    login: 'login.microsoftonline.us',
    graph: 'https://graph.microsoft.us/v1.0',
    resource: 'https://outlook.office365.us',
  }),
  nationalCloud('outlook-china', 'Microsoft 365 by 21Vianet (China; not verified)', {
    smtp: 'smtp.partner.outlook.cn',
    login: 'login.partner.microsoftonline.cn',
    graph: 'https://microsoftgraph.chinacloudapi.cn/v1.0',
    resource: 'https://partner.outlook.cn',
  }),
  {
    ...UNKNOWN_PROVIDER,
    name: 'yahoo',
    title: 'Yahoo Mail (not verified; new clients get no mail scope)',
    smtp: { host: 'smtp.mail.yahoo.com', port: 465, tls: 'implicit' },
    tokenUrl: 'https://api.login.yahoo.com/oauth2/get_token',
    authorizeUrl: 'https://api.login.yahoo.com/oauth2/request_auth',
    signInScope: 'mail-w',
  },
  {
    ...UNKNOWN_PROVIDER,
    name: 'aol',
    title: 'AOL Mail (not verified; new clients get no mail scope)',
    smtp: { host: 'smtp.aol.com', port: 465, tls: 'implicit' },
    tokenUrl: 'https://api.login.aol.com/oauth2/get_token',
    authorizeUrl: 'https://api.login.aol.com/oauth2/request_auth',
    signInScope: 'mail-w',
  },
  {
    ...UNKNOWN_PROVIDER,
    name: 'fastmail',
    title: 'Fastmail (not verified; clients are registered by arrangement)',
    smtp: { host: 'smtp.fastmail.com', port: 465, tls: 'implicit' },
    tokenUrl: 'https://api.fastmail.com/oauth/refresh',
    authorizeUrl: 'https://api.fastmail.com/oauth/authorize',
    signInScope: 'https://www.fastmail.com/dev/protocol-smtp offline_access',
  },
  {
    ...UNKNOWN_PROVIDER,
    name: 'yandex',
    title: 'Yandex Mail (not verified)',
    smtp: { host: 'smtp.yandex.com', port: 465, tls: 'implicit' },
    tokenUrl: 'https://oauth.yandex.com/token',
    authorizeUrl: 'https://oauth.yandex.com/authorize',
    signInScope: 'mail:smtp',
  },
];

interface CloudHosts {
  readonly smtp: string;
  readonly login: string;
  readonly graph: string;
  /** Of tokens for SMTP. */
  readonly resource: string;
}

/** Microsoft 365 in another cloud: the same service, other hosts for sign-in, tokens, scopes, SMTP and Graph. */
function nationalCloud(
  name: string,
  title: string,
  { smtp, login, graph, resource }: CloudHosts,
): ProviderProfile {
  const scope = `${resource}/SMTP.Send offline_access`;
  return {
    name,
    title,
    ...MICROSOFT,
    ...microsoftLogin(login),
    smtp: { host: smtp, port: 587, tls: 'starttls' },
    graphUrl: graph,
    tenant: 'organizations',
    scopes: { refresh_token: scope, client_credentials: `${resource}/.default` },
    imapScopes: { ...imapScopes(resource), client_credentials: `${resource}/.default` },
    signInScope: scope,
    limits: MICROSOFT_LIMITS,
  };
}

/** One request brings a token for one of Microsoft's resources; SMTP and IMAP are of one, their scopes are not. */
function imapScopes(resource: string) {
  return { refresh_token: `${resource}/IMAP.AccessAsUser.All offline_access` };
}

function microsoftLogin(host: string) {
  const base = `https://${host}/{tenant}/oauth2/v2.0`;
  return { tokenUrl: `${base}/token`, authorizeUrl: `${base}/authorize`, deviceUrl: `${base}/devicecode` };
}

/** Built-in profiles by name. */
export const builtInProviders: ReadonlyMap<string, ProviderProfile> = new Map(
  BUILT_IN.map((profile) => [profile.name, profile]),
);

/** Tenants that stand for "any": an application cannot sign in as itself there. */
export const isSharedTenant = (tenant: string): boolean =>
  ['common', 'organizations', 'consumers'].includes(tenant.toLowerCase());
