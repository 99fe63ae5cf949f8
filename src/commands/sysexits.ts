/** Exit codes that callers of sendmail know (sysexits.h), and the error that carries one. */
import type { Reply } from '../protocol/reply.ts';

export const EX = {
  usage: 64,
  /** The message or an address in it cannot be used. */
  data: 65,
  /** A recipient does not exist. */
  noUser: 67,
  /** Refused for good. */
  unavailable: 69,
  software: 70,
  /** Try again later: what a `4xx` says. */
  temporary: 75,
  /** The caller may not. */
  noPermission: 77,
  configuration: 78,
} as const;

export type SendmailExit = (typeof EX)[keyof typeof EX];

/** Ends the call with a code of sysexits.h and a line for stderr. */
export class SendmailError extends Error {
  override readonly name = 'SendmailError';
  readonly exitCode: SendmailExit;
  constructor(exitCode: SendmailExit, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The code for a refusal: `4xx` is tried again by callers with a queue, `5xx` is not. */
export function exitOf({ code }: Reply, command: 'MAIL' | 'RCPT' | 'DATA' | 'body'): SendmailExit {
  if (code < 500) return EX.temporary;
  if (code === 530 || code === 535 || code === 538) return EX.noPermission;
  return command === 'RCPT' ? EX.noUser : EX.unavailable;
}
