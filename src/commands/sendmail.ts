/**
 * `send` as a `sendmail`: what programs call that know no SMTP. In: sendmail's options, a message on
 * standard input. Out: an exit code of sysexits.h. It keeps no queue: what the relay does not take now is
 * the caller's again, and every recipient gets the message or none.
 */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import type { Readable } from 'node:stream';
import { readVariable } from '../config/variables.ts';
import { loadSettings } from '../config.ts';
import { type ClientDialogue, isGood, StepError } from '../enrol/client-dialogue.ts';
import { stuffWhole } from '../protocol/dot-stuffing.ts';
import { fitsPath, hasNonAscii } from '../protocol/path.ts';
import { formatDate } from '../protocol/received.ts';
import { formatReply } from '../protocol/reply.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import { dialListener } from './dial-listener.ts';
import { type Aliases, parseAliases, resolveAlias } from './mail-aliases.ts';
import { parseSendmailArguments, type SendmailRequest } from './sendmail-arguments.ts';
import { completeMessage, fromOf, hasEightBit, readMessage, recipientsOf } from './sendmail-message.ts';
import { EX, exitOf, SendmailError } from './sysexits.ts';

/** RFC 5321 §4.5.3.2.6: the longest wait, for the reply to a body. */
const STEP_TIMEOUT_MS = 10 * 60_000;
const ALIASES_FILE = '/etc/aliases';

export interface SendmailContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: Readable;
  note(line: string): void;
  print(line: string): void;
}

/** Whether these words are for sendmail: the program has its name, or `send` has its options. */
export function sendmailWords(program: string, words: readonly string[]): readonly string[] | undefined {
  if (/(^|\/)sendmail$/.test(program)) return words;
  const [command, ...rest] = words;
  if (command !== 'send') return undefined;
  const end = rest.indexOf('--');
  const own = end < 0 ? rest : rest.slice(0, end);
  return own.some((word) => /^-[^-hV]/.test(word)) ? rest : undefined;
}

/** Runs the call. Resolves to the exit code; never rejects for what the caller or the relay did. */
export async function runSendmail(words: readonly string[], context: SendmailContext): Promise<number> {
  try {
    const request = parseSendmailArguments(words);
    if (request.nothingToDo === 'queue') context.print('Mail queue is empty: the relay keeps no mail');
    if (request.nothingToDo !== undefined) return 0;
    const chunks: Buffer[] = [];
    for await (const chunk of context.stdin) chunks.push(chunk as Buffer);
    await deliver(request, readMessage(Buffer.concat(chunks), request.endsAtDot), context);
    return 0;
  } catch (error) {
    if (error instanceof SendmailError) {
      context.note(`sendmail: ${error.message}`);
      return error.exitCode;
    }
    if (error instanceof StepError) {
      const cure =
        error.stage === 'tcp' ? ' (no relay listens there: see XOAUTH2_RELAY_HOST, XOAUTH2_RELAY_PORT)' : '';
      context.note(`sendmail: ${error.stage}: ${error.message}${cure}`);
      return EX.temporary;
    }
    context.note(`sendmail: ${error instanceof Error ? error.message : String(error)}`);
    // Settings that are wrong, or a defect: nothing the message can help, and an MTA that calls us would bounce it.
    return EX.temporary;
  }
}

async function deliver(request: SendmailRequest, read: Buffer, context: SendmailContext): Promise<void> {
  const { env } = context;
  const aliases = await readAliases(env);
  const named = [...request.recipients, ...(request.readsRecipients ? recipientsOf(read) : [])];
  if (named.length === 0) throw new SendmailError(EX.usage, 'nobody to send to: name recipients, or use -t');
  const recipients = [...new Set(named.flatMap((name) => reached(aliases, name)))];
  const sender = senderOf(request, read, aliases);
  for (const address of [sender, ...recipients])
    if (!fitsPath(address)) throw new SendmailError(EX.data, `not an address: ${JSON.stringify(address)}`);
  const message = completeMessage(read, {
    sender,
    name: request.name,
    date: formatDate(Date.now()),
    messageId: `<${randomUUID()}@${sender.split('@')[1] ?? hostname()}>`,
    removesBcc: request.readsRecipients,
  });

  const settings = await loadSettings({ flags: {}, env });
  const smtp = await dialListener(settings, {
    timeoutMs: STEP_TIMEOUT_MS,
    trace: (line) => {
      if (request.verbose) context.note(line);
    },
  });
  try {
    const said = (reply: ParsedReply, command: 'MAIL' | 'RCPT' | 'DATA' | 'body', about: string): void => {
      if (!isGood(reply, command))
        throw new SendmailError(exitOf(reply, command), `${about}: ${formatReply(reply)}`);
    };
    const parameters = mailParameters(request, smtp, message, [sender, ...recipients]);
    said(await smtp.command(`MAIL FROM:<${sender}>${parameters}`, 'sender'), 'MAIL', sender || '<>');
    const { notify } = request.dsn;
    const asked = notify !== undefined && smtp.capabilities.dsn ? ` NOTIFY=${notify.toUpperCase()}` : '';
    // One refusal ends it: the caller would send to the others once more.
    for (const recipient of recipients)
      said(await smtp.command(`RCPT TO:<${recipient}>${asked}`, 'sender'), 'RCPT', recipient);
    said(await smtp.command('DATA', 'sender'), 'DATA', 'DATA');
    said(await smtp.content(stuffWhole(message), 'sender'), 'body', 'message');
    await smtp.quit();
  } finally {
    smtp.close();
  }
}

function mailParameters(
  { dsn: { ret, envid } }: SendmailRequest,
  { capabilities }: ClientDialogue,
  message: Buffer,
  addresses: readonly string[],
): string {
  let parameters = '';
  if (capabilities.eightBitMime && hasEightBit(message)) parameters += ' BODY=8BITMIME';
  if (addresses.some(hasNonAscii)) {
    if (!capabilities.smtpUtf8)
      throw new SendmailError(
        EX.data,
        'an address has letters outside ASCII, and the relay offers no SMTPUTF8 now',
      );
    parameters += ' SMTPUTF8';
  }
  if (capabilities.dsn && ret !== undefined) parameters += ` RET=${ret.toUpperCase()}`;
  if (capabilities.dsn && envid !== undefined) parameters += ` ENVID=${envid}`;
  return parameters;
}

/** The addresses behind a recipient. */
function reached(aliases: Aliases, name: string): readonly string[] {
  const bare = name.replace(/^.*<([^<>]*)>$/, '$1');
  const addresses = resolveAlias(aliases, bare);
  if (addresses.length === 0)
    throw new SendmailError(
      EX.noUser,
      `${bare}: no domain, and no address for that name in ${ALIASES_FILE} (add the line "${bare}: you@example.com")`,
    );
  return addresses;
}

/** -f with a domain, else the address in From:, else what the aliases say of the caller. */
function senderOf({ sender }: SendmailRequest, message: Buffer, aliases: Aliases): string {
  if (sender === '' || sender?.includes('@') === true) return sender;
  const [found] = [
    ...[fromOf(message)].filter((address) => address !== undefined),
    ...resolveAlias(aliases, sender ?? callerName()),
  ];
  if (found === undefined)
    throw new SendmailError(
      EX.configuration,
      `no sender: give -f with an address of an account, or the line "${sender ?? callerName()}: address" in ${ALIASES_FILE}`,
    );
  return found;
}

/** In a container the user may have no name. */
function callerName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? 'nobody');
  }
}

async function readAliases(env: SendmailContext['env']): Promise<Aliases> {
  const text = await readFile(readVariable(env, 'XOAUTH2_RELAY_ALIASES') ?? ALIASES_FILE, 'utf8').catch(
    () => '',
  );
  return parseAliases(text);
}
