/**
 * How Gmail and Microsoft 365 sound on the wire: banners, EHLO sets, reply texts as seen in public
 * logs and in the providers' documentation. A reply is a list of lines without CRLF.
 */
import { randomBytes } from 'node:crypto';

export type FlavourName = 'gmail' | 'microsoft';
export type Lines = readonly string[];

/** Extensions a test may take away from what is advertised. */
export type Extension =
  | 'CHUNKING'
  | 'PIPELINING'
  | 'SMTPUTF8'
  | 'DSN'
  | '8BITMIME'
  | 'BINARYMIME'
  | 'AUTH'
  | 'STARTTLS'
  | 'SIZE'
  | 'ENHANCEDSTATUSCODES';

export interface Flavour {
  readonly name: FlavourName;
  /** SIZE advertised, octets. */
  readonly maxBytes: number;
  /** Longest command line with CRLF that is not answered 555, octets. */
  readonly maxCommandOctets: number;
  /** Whether a refused token is first explained by a 334 challenge that wants an empty line. */
  readonly challengesBadToken: boolean;
  readonly extensions: readonly Extension[];
  readonly mechanisms: string;
  greeting(): Lines;
  hello(client: string): string;
  readonly startTls: Lines;
  readonly authenticated: Lines;
  readonly badToken: Lines;
  readonly tooManyLogins: Lines;
  readonly commandTooLong: Lines;
  readonly unrecognized: Lines;
  readonly badSequence: Lines;
  readonly authRequired: Lines;
  readonly tlsRequired: Lines;
  readonly secondAuth: Lines;
  readonly badMechanism: Lines;
  readonly undecodable: Lines;
  readonly mailOk: Lines;
  readonly rcptOk: Lines;
  readonly rcptFirst: Lines;
  readonly dataGo: Lines;
  accepted(messageId: string): Lines;
  readonly chunkOk: (octets: number) => Lines;
  readonly reset: Lines;
  readonly noop: Lines;
  readonly bye: Lines;
  readonly idle: Lines;
  readonly expired: Lines;
  readonly tooBig: Lines;
  readonly headerTooBig: Lines;
  readonly tooManyRecipients: Lines;
  readonly badParameter: Lines;
  readonly dailyLimit: Lines;
  readonly rateLimit: Lines;
  readonly concurrency: Lines;
}

const BAD_TOKEN_JSON = '{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}';
/** The challenge that precedes Gmail's 535, as one line. */
export const gmailChallenge = `334 ${Buffer.from(BAD_TOKEN_JSON).toString('base64')}`;

/** Gmail's voice for one connection: the `<id>` is the connection's own. */
export function gmail(): Flavour {
  const id = `${randomBytes(7).toString('hex').slice(0, 13)}-${randomBytes(6).toString('hex').slice(0, 11)}sm${randomBytes(4).readUInt32BE()}ad.83`;
  const tail = `${id} - gsmtp`;
  return {
    name: 'gmail',
    maxBytes: 35_882_577,
    maxCommandOctets: 1000,
    challengesBadToken: true,
    extensions: [
      'SIZE',
      '8BITMIME',
      'STARTTLS',
      'AUTH',
      'ENHANCEDSTATUSCODES',
      'PIPELINING',
      'CHUNKING',
      'SMTPUTF8',
    ],
    mechanisms: 'LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH',
    greeting: () => [`220 smtp.gmail.com ESMTP ${tail}`],
    hello: (client) => `smtp.gmail.com at your service, [${client}]`,
    startTls: ['220 2.0.0 Ready to start TLS'],
    authenticated: ['235 2.7.0 Accepted'],
    badToken: [
      '535-5.7.8 Username and Password not accepted. For more information, go to',
      `535 5.7.8  https://support.google.com/mail/?p=BadCredentials ${tail}`,
    ],
    tooManyLogins: [`454 4.7.0 Too many login attempts, please try again later. ${tail}`],
    commandTooLong: ['555-5.5.2 Syntax error, command line too long', `555 5.5.2  ${tail}`],
    unrecognized: [`502-5.5.1 Unrecognized command. ${tail}`, `502 5.5.1  ${tail}`],
    badSequence: [`503 5.5.1 Bad sequence of commands. ${tail}`],
    authRequired: [
      '530-5.7.0 Authentication Required. For more information, go to',
      `530 5.7.0  https://support.google.com/mail/?p=WantAuthError ${tail}`,
    ],
    tlsRequired: [`530 5.7.0 Must issue a STARTTLS command first. ${tail}`],
    secondAuth: [`503 5.7.0 No identity changes permitted. ${tail}`],
    badMechanism: [`504 5.7.4 Unrecognized authentication type. ${tail}`],
    undecodable: [`501 5.5.2 Cannot Decode response ${tail}`],
    mailOk: [`250 2.1.0 OK ${tail}`],
    rcptOk: [`250 2.1.5 OK ${tail}`],
    rcptFirst: [`503 5.5.1 RCPT first. ${tail}`],
    dataGo: [`354 Go ahead ${tail}`],
    accepted: () => [`250 2.0.0 OK  ${Math.floor(Date.now() / 1000)} ${tail}`],
    chunkOk: () => [`250 2.0.0 OK ${tail}`],
    reset: [`250 2.1.5 Flushed ${tail}`],
    noop: [`250 2.0.0 OK ${tail}`],
    bye: [`221 2.0.0 closing connection ${tail}`],
    idle: [`451 4.4.2 Timeout - closing connection. ${tail}`],
    expired: [`421 4.7.0 Connection expired, try reconnecting. ${tail}`],
    tooBig: [
      "552-5.3.4 Your message exceeded Google's message size limits. To view our",
      `552 5.3.4  message size guidelines, go to https://support.google.com/mail/?p=MaxSizeError ${tail}`,
    ],
    headerTooBig: [`552 5.3.4 Message header size exceeds limit. ${tail}`],
    tooManyRecipients: [`452 4.5.3 Your message has too many recipients. ${tail}`],
    badParameter: [`555 5.5.2 Syntax error, goodbye. ${tail}`],
    dailyLimit: [
      '550-5.4.5 Daily user sending limit exceeded. For more information on Gmail',
      '550-5.4.5 sending limits go to',
      `550 5.4.5  https://support.google.com/a/answer/166852 ${tail}`,
    ],
    rateLimit: [`421 4.7.28 Our system has detected an unusual rate of mail. ${tail}`],
    concurrency: [`421 4.3.0 Temporary System Problem.  Try again later (10). ${tail}`],
  };
}

/** Microsoft's voice for one connection: front end and mailbox server with its session id. */
export function microsoft(): Flavour {
  const pod = 'LO4P302CA0005';
  const mailbox = 'CH2PR14MB4005.namprd14.prod.outlook.com';
  const sid = randomBytes(8).toString('hex').toUpperCase();
  const frontEnd = (): string => `[${pod}.GBRP302.PROD.OUTLOOK.COM ${new Date().toISOString()} ${sid}]`;
  const host = `[Hostname=${mailbox}]`;
  return {
    name: 'microsoft',
    maxBytes: 157_286_400,
    maxCommandOctets: 12_288,
    challengesBadToken: false,
    extensions: [
      'SIZE',
      'PIPELINING',
      'DSN',
      'ENHANCEDSTATUSCODES',
      'STARTTLS',
      'AUTH',
      '8BITMIME',
      'BINARYMIME',
      'CHUNKING',
      'SMTPUTF8',
    ],
    mechanisms: 'LOGIN XOAUTH2',
    greeting: () => [
      `220 ${pod}.outlook.office365.com Microsoft ESMTP MAIL Service ready at ${new Date().toUTCString().replace('GMT', '+0000')} [${sid}]`,
    ],
    hello: (client) => `${pod}.outlook.office365.com Hello [${client}]`,
    startTls: ['220 2.0.0 SMTP server ready'],
    authenticated: ['235 2.7.0 Authentication successful'],
    badToken: [`535 5.7.3 Authentication unsuccessful ${frontEnd()}`],
    tooManyLogins: ['454 4.7.0 Temporary authentication failure'],
    commandTooLong: [`500 5.5.2 Command line too long ${frontEnd()}`],
    unrecognized: [`500 5.3.3 Unrecognized command 'unknown' ${frontEnd()}`],
    badSequence: [`503 5.5.1 Bad sequence of commands ${frontEnd()}`],
    authRequired: [`530 5.7.57 Client not authenticated to send mail. ${frontEnd()}`],
    tlsRequired: [`530 5.7.0 Must issue a STARTTLS command first ${frontEnd()}`],
    secondAuth: [`503 5.5.2 Already authenticated ${frontEnd()}`],
    badMechanism: [`504 5.7.4 Unrecognized authentication type ${frontEnd()}`],
    undecodable: [`501 5.5.4 Invalid arguments ${frontEnd()}`],
    mailOk: ['250 2.1.0 Sender OK'],
    rcptOk: ['250 2.1.5 Recipient OK'],
    rcptFirst: [`503 5.5.2 Need rcpt command ${frontEnd()}`],
    dataGo: ['354 Start mail input; end with <CRLF>.<CRLF>'],
    accepted: (id) => [`250 2.0.0 OK <${id}@CH2PR14MB4005.namprd14.prod.outlook.com> ${host}`],
    chunkOk: (octets) => [`250 2.0.0 CHUNK received OK, ${octets} octets`],
    reset: ['250 2.0.0 Resetting'],
    noop: ['250 2.0.0 OK'],
    bye: ['221 2.0.0 Service closing transmission channel'],
    idle: ['421 4.4.1 Connection timed out. Total session duration: 00:05:00.5512000'],
    expired: ['421 4.4.1 Connection timed out. Total session duration: 00:20:55.1730000'],
    tooBig: [`552 5.3.4 Message size exceeds fixed maximum message size ${host}`],
    headerTooBig: [`552 5.3.4 Header size exceeds fixed maximum size ${frontEnd()}`],
    tooManyRecipients: [`452 4.5.3 Too many recipients ${frontEnd()}`],
    badParameter: [`501 5.5.4 Unsupported option ${frontEnd()}`],
    dailyLimit: [
      `554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception with message The message can't be submitted because the sender's submission quota was exceeded. ${host}`,
    ],
    rateLimit: ['421 4.4.2 Message submission rate for this client has exceeded the configured limit'],
    concurrency: [
      `432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. ${host}`,
    ],
  };
}

/** Reply texts for scripts, by what they mean; each is what that provider says. */
export const texts = {
  gmailTemporarySystemProblem: ['421 4.3.0 Temporary System Problem.  Try again later (10). a1sm1 - gsmtp'],
  gmailServerBusy: ['421 4.4.5 Server busy, try again later. a1sm1 - gsmtp'],
  gmailTooManyLogins: ['454 4.7.0 Too many login attempts, please try again later. a1sm1 - gsmtp'],
  gmailCannotAuthenticate: [
    '454 4.7.0 Cannot authenticate due to temporary system problem. Try again later. a1sm1 - gsmtp',
  ],
  gmailBlockedContent: [
    '552-5.7.0 This message was blocked because its content presents a potential',
    '552 5.7.0  security issue. a1sm1 - gsmtp',
  ],
  gmailInvalidRecipient: (address: string): Lines => [
    `553 5.1.3 The recipient address <${address}> is not a valid RFC 5321 address. a1sm1 - gsmtp`,
  ],
  microsoftDisabledForTenant: [
    '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [LO4P302CA0005.GBRP302.PROD.OUTLOOK.COM 2026-11-20T10:00:00.000Z 08DCE8B62813AB2B]',
  ],
  microsoftServerError: [
    '451 4.7.0 Temporary server error. Please try again later. PRX4 [LO4P302CA0005.GBRP302.PROD.OUTLOOK.COM]',
  ],
  microsoftServiceNotActive: ['421 4.3.2 Service not active'],
  microsoftMailboxFull: [
    '554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiException{ShutoffQuotaExceeded,QuotaExceeded} [Hostname=CH2PR14MB4005.namprd14.prod.outlook.com]',
  ],
  /** More than 2,000 octets on one line, as the real one. */
  microsoftSendAsDenied: (login: string, from: string): Lines => [
    `554 5.2.252 SendAsDenied; ${login} not allowed to send as ${from}; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message [BeginDiagnosticData]Cannot submit message. ${'0.35250:0A00F584, 1.36674:0A000000, '.repeat(60)}[EndDiagnosticData] [Hostname=CH2PR14MB4005.namprd14.prod.outlook.com]`,
  ],
} as const;
