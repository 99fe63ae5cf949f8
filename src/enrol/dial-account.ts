/**
 * A dialogue as an account with its provider, or with a listener of the relay, opened by the very code by which
 * the relay opens its connections. Out: the dialogue, or a `StepError` that says at which stage it broke.
 * Whoever opens it closes it.
 */
import type { TLSSocket } from 'node:tls';
import type { Account, SmtpProxy } from '../accounts/account.ts';
import type { Mask } from '../protocol/masking.ts';
import { formatReply } from '../protocol/reply.ts';
import type { AccessToken } from '../tokens/access-token.ts';
import type { UpstreamConnection } from '../upstream/connection.ts';
import { UpstreamError } from '../upstream/failure.ts';
import {
  createOpenConnection,
  type OpenObserver,
  type OpenTarget,
  openWithoutLogin,
} from '../upstream/open.ts';
import { type ClientDialogue, dialogueOver, StepError } from './client-dialogue.ts';
import { certificateDoubt, type ProbeStage } from './explain.ts';

export interface DialOptions {
  /** EHLO argument of the relay. */
  readonly heloName?: string | undefined;
  /** Of the relay, for an account that names none. */
  readonly proxy?: SmtpProxy | undefined;
  /** For reaching the server up to its greeting, for the login, and for each command, ms. */
  readonly timeoutMs: number;
  /** Takes out of all a server without a login says what must not be told. */
  readonly mask?: Mask | undefined;
  passed?(stage: ProbeStage, detail: string, doubt?: string): void;
  /** Every line of the dialogue, secrets left out. */
  trace?(line: string): void;
}

/** As the account with its provider, logged in. */
export function dialAccount(
  account: Account,
  token: AccessToken,
  options: DialOptions,
): Promise<ClientDialogue> {
  const open = createOpenConnection(limitsOf(options));
  return dial((observer) => open(account, token, { observer }), options);
}

/** With a server, up to EHLO. */
export const dialServer = (target: OpenTarget, options: DialOptions): Promise<ClientDialogue> =>
  dial((observer) => {
    const { mask } = options;
    return openWithoutLogin(target, limitsOf(options), { observer, ...(mask === undefined ? {} : { mask }) });
  }, options);

const limitsOf = ({ heloName, proxy, timeoutMs }: DialOptions) => ({
  heloName,
  proxy,
  connectTimeoutMs: timeoutMs,
  loginTimeoutMs: timeoutMs,
});

async function dial(
  open: (observer: OpenObserver) => Promise<UpstreamConnection>,
  { timeoutMs, passed = () => {}, trace = () => {} }: DialOptions,
): Promise<ClientDialogue> {
  const heard = { lastCommand: '', accepted: '', isEhlo: false };
  try {
    const connection = await open({
      resolved: (addresses) => passed('dns', addresses.join(', ')),
      connected: (path) => passed('tcp', path),
      secured(socket) {
        const { detail, daysLeft } = describeCertificate(socket);
        passed('tls', detail, certificateDoubt(daysLeft));
      },
      greeted(extensions) {
        heard.isEhlo = true;
        passed('ehlo', extensions.join(', '));
      },
      line(who, text) {
        if (who === 'C') heard.lastCommand = text;
        else if (text.startsWith('235')) heard.accepted = text;
        trace(`${who}: ${text}`);
      },
    });
    if (heard.accepted !== '') passed('auth', heard.accepted);
    return dialogueOver(
      {
        capabilities: connection.capabilities,
        async exchange(octets, stage, withinMs = timeoutMs) {
          const [reply] = await connection.flight([octets], 1, withinMs).catch((error: Error) => {
            throw new StepError(stage, error.message);
          });
          if (reply === undefined) throw new StepError(stage, 'connection closed');
          return reply;
        },
        close: () => connection.destroy(),
      },
      trace,
    );
  } catch (error) {
    if (!(error instanceof UpstreamError)) throw error;
    if (heard.lastCommand === 'STARTTLS' && !heard.isEhlo && error.event.kind === 'reply')
      throw new StepError('tls', 'no STARTTLS offered');
    throw stepOf(error);
  }
}

/** Codes of the system and of TLS say more than nodemailer's own. */
const TELLING_CODE = /^(?!ECONNECTION$|ESOCKET$|ETLS$|EPROTOCOL$|EAUTH$)[A-Z][A-Z0-9_]+$/;

/** Where a person looks for it, and in which words the book of causes knows it. */
function stepOf(error: UpstreamError): StepError {
  const { event } = error;
  if (event.kind === 'reply') return new StepError(stageOf(event.stage), formatReply(event.reply));
  if (event.kind !== 'lost') return new StepError('tcp', error.message);
  if (event.cause === 'dns') return new StepError('dns', codeOf(error) ?? event.detail);
  if (event.cause === 'tls') return new StepError('tls', codeOf(error) ?? event.detail);
  if (event.cause === 'timeout') return new StepError(stageOf(event.stage), event.detail);
  return new StepError(stageOf(event.stage), codeOf(error) ?? event.detail);
}

function codeOf(error: UpstreamError): string | undefined {
  const { code, originalCode } = (error.cause ?? {}) as { code?: unknown; originalCode?: unknown };
  return [originalCode, code].find((c): c is string => typeof c === 'string' && TELLING_CODE.test(c));
}

function stageOf(stage: string): ProbeStage {
  switch (stage) {
    case 'greeting':
    case 'ehlo':
    case 'auth':
      return stage;
    default:
      return 'tcp';
  }
}

const DAY = 86_400_000;

function describeCertificate(socket: TLSSocket): { detail: string; daysLeft: number } {
  const certificate = socket.getPeerCertificate();
  const daysLeft = Math.floor((Date.parse(certificate.valid_to) - Date.now()) / DAY);
  const name = certificate.subject?.CN ?? certificate.subjectaltname ?? 'no name';
  const issuer = certificate.issuer?.O ?? certificate.issuer?.CN ?? 'unknown issuer';
  return { detail: `${socket.getProtocol()}, ${name} by ${issuer}, ${daysLeft} days left`, daysLeft };
}
