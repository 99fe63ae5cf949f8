/**
 * The command line that programs expect of `/usr/sbin/sendmail`. In: the words after the program's name.
 * Out: what they ask for, or a `SendmailError`. Options that mean something to a queue only are taken and
 * left aside. Pure.
 */
import { MAIL_SYNTAX, RCPT_SYNTAX } from '../protocol/esmtp-parameters.ts';
import { EX, SendmailError } from './sysexits.ts';

export interface SendmailRequest {
  /** What `-f` or `-r` named last; undefined where none did. `<>` and an empty word are the null sender `''`. */
  readonly sender: string | undefined;
  /** `-F`: the name in a From: that has to be added. */
  readonly name: string | undefined;
  readonly recipients: readonly string[];
  /** `-t`: To, Cc and Bcc name recipients, too, and Bcc is taken out. */
  readonly readsRecipients: boolean;
  /** Without `-i` or `-oi` a line with a dot alone ends the message. */
  readonly endsAtDot: boolean;
  /** `-v`: the dialogue on stderr. */
  readonly verbose: boolean;
  /** RFC 3461, passed on where the server offers DSN. */
  readonly dsn: {
    readonly notify: string | undefined;
    readonly ret: string | undefined;
    readonly envid: string | undefined;
  };
  /** `-bp`, `-q`, `-bi`: there is no queue and no database to do this to. */
  readonly nothingToDo: 'queue' | 'aliases' | undefined;
}

/** Letters that take a value, attached or as the next word; the rest stands alone. */
const WITH_VALUE = new Set('BbCFfhLMNOopRrVX');
/** Letters whose value, if any, is attached. */
const WITH_ATTACHED = new Set('deq');
const ALONE = new Set('AcGiImnsTtUvx');

/** These go into commands as they are. */
const { NOTIFY } = RCPT_SYNTAX;
const { RET, ENVID } = MAIL_SYNTAX;

function checked(letter: string, value: string, form: RegExp, expected: string): string {
  if (form.test(value)) return value;
  throw new SendmailError(
    EX.usage,
    `-${letter} ${JSON.stringify(value.slice(0, 100))}: expected ${expected}`,
  );
}

export function parseSendmailArguments(words: readonly string[]): SendmailRequest {
  let sender: string | undefined;
  let name: string | undefined;
  let readsRecipients = false;
  let endsAtDot = true;
  let verbose = false;
  let nothingToDo: SendmailRequest['nothingToDo'];
  const dsn: { notify?: string; ret?: string; envid?: string } = {};
  const recipients: string[] = [];

  const take = (letter: string, value: string): void => {
    switch (letter) {
      case 'f':
      case 'r':
        sender = value.replace(/^<(.*)>$/, '$1');
        break;
      case 'F':
        name = value;
        break;
      case 'i':
        endsAtDot = false;
        break;
      case 't':
        readsRecipients = true;
        break;
      case 'v':
        verbose = true;
        break;
      case 'o':
        if (value === 'i' || value === 'itrue') endsAtDot = false;
        break;
      case 'O':
        if (/^IgnoreDots(=t.*)?$/i.test(value)) endsAtDot = false;
        break;
      case 'q':
        nothingToDo = 'queue';
        break;
      case 'N':
        dsn.notify = checked(letter, value, NOTIFY, 'never, or success, failure, delay with commas');
        break;
      case 'R':
        dsn.ret = checked(letter, value, RET, 'full or hdrs');
        break;
      case 'V':
        dsn.envid = checked(letter, value, ENVID, 'at most 100 printable characters, as xtext (RFC 3461)');
        break;
      case 'b':
        if (value === 'p') nothingToDo = 'queue';
        else if (value === 'i') nothingToDo = 'aliases';
        else if (value !== 'm')
          throw new SendmailError(
            EX.usage,
            `-b${value} is not offered here: only mail from standard input (-bm). A program that wants to speak SMTP connects to the relay's port`,
          );
        break;
    }
  };

  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? '';
    if (word === '--') {
      recipients.push(...words.slice(at + 1));
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      recipients.push(word);
      continue;
    }
    for (let i = 1; i < word.length; i++) {
      const letter = word.charAt(i);
      const rest = word.slice(i + 1);
      if (WITH_VALUE.has(letter)) {
        // An empty word is a value, too: -f ''.
        const value = rest === '' ? words[++at] : rest;
        if (value === undefined) throw new SendmailError(EX.usage, `-${letter}: a value is missing`);
        take(letter, value);
        break;
      }
      if (WITH_ATTACHED.has(letter)) {
        take(letter, rest);
        break;
      }
      if (!ALONE.has(letter)) throw new SendmailError(EX.usage, `-${letter}: unknown option`);
      take(letter, '');
    }
  }
  const { notify, ret, envid } = dsn;
  return {
    sender,
    name,
    recipients: recipients
      .flatMap((word) => word.split(','))
      .map((word) => word.trim())
      .filter(Boolean),
    readsRecipients,
    endsAtDot,
    verbose,
    dsn: { notify, ret, envid },
    nothingToDo,
  };
}
