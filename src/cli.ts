/**
 * The command line. In: arguments, environment, terminal. Out: an exit code. The only file that ends the
 * process; everything a command rejects with becomes words on stderr here.
 */
import { AccountsFileError } from './accounts/accounts-file.ts';
import { explainFileError } from './accounts/secret-source.ts';
import { accountAdd } from './commands/account-add.ts';
import { accountImport, accountList, accountRemove } from './commands/account-entries.ts';
import {
  accountDrain,
  accountInvite,
  accountRefresh,
  accountResume,
  accountShow,
} from './commands/account-running.ts';
import { check } from './commands/check.ts';
import { createCompletion } from './commands/completion.ts';
import { type CommandDefinition, EXIT_CONFIGURATION } from './commands/definition.ts';
import { hashPassword } from './commands/hash-password.ts';
import { logs } from './commands/logs.ts';
import { createManual } from './commands/manual.ts';
import { schema } from './commands/print-schema.ts';
import { runProgram } from './commands/program.ts';
import { reload, stop } from './commands/running.ts';
import { send } from './commands/send.ts';
import { runSendmail, sendmailWords } from './commands/sendmail.ts';
import { serve } from './commands/serve.ts';
import { start } from './commands/start.ts';
import { status } from './commands/status.ts';
import { createTerminal, NoTerminalError } from './commands/terminal.ts';
import { token } from './commands/token.ts';
import { unclearAgain, unclearDelivered, unclearList } from './commands/unclear.ts';
import { SettingsError } from './config.ts';
import { OperatorError } from './enrol/operator-error.ts';
import { HttpProxySettingError } from './http-proxy.ts';
import { GrantsUnsavedError } from './tokens/grants-unsaved.ts';
import { version } from './version.ts';

const terminal = createTerminal(process);

function fail(error: unknown): number {
  if (
    error instanceof SettingsError ||
    error instanceof AccountsFileError ||
    error instanceof HttpProxySettingError
  ) {
    terminal.note(error.message);
    return EXIT_CONFIGURATION;
  }
  if (error instanceof GrantsUnsavedError) {
    terminal.note(error.message);
    return 1;
  }
  if (error instanceof OperatorError) {
    terminal.note(error.message);
    return error.exitCode;
  }
  if (error instanceof NoTerminalError) {
    terminal.note(`${error.message} (nobody is there to ask: --help says how else to give it)`);
    return EXIT_CONFIGURATION;
  }
  // A defect of ours: the stack helps, and our errors hold no secret.
  terminal.note(error instanceof Error ? (error.stack ?? error.message) : String(error));
  return 1;
}

const COMMANDS: readonly CommandDefinition[] = [
  serve,
  accountAdd,
  accountList,
  accountRemove,
  accountImport,
  accountShow,
  accountRefresh,
  accountDrain,
  accountResume,
  accountInvite,
  check,
  send,
  token,
  status,
  reload,
  start,
  stop,
  logs,
  unclearList,
  unclearDelivered,
  unclearAgain,
  hashPassword,
  createCompletion(() => COMMANDS),
  createManual(() => COMMANDS, version),
  schema,
];

let isCut = false;
terminal.unread.addEventListener('abort', () => {
  const error: NodeJS.ErrnoException = terminal.unread.reason;
  // A reader such as `head` that has seen enough is no failure.
  if (error.code === 'EPIPE') return;
  isCut = true;
  terminal.note(`cannot write standard output: ${explainFileError(error)}`);
});
// Nobody is left who could be told: what is done has its exit code all the same.
process.stderr.on('error', () => {});

const words = process.argv.slice(2);
const sendmail = sendmailWords(process.argv[1] ?? '', words);
const exitCode =
  sendmail === undefined
    ? await runProgram(COMMANDS, words, { version, env: process.env, terminal }).catch(fail)
    : await runSendmail(sendmail, {
        env: process.env,
        stdin: process.stdin,
        note: terminal.note,
        print: terminal.print,
      });
// That a disk is full is heard in the turn after the write.
await new Promise((resume) => setImmediate(resume));
process.exit(isCut ? exitCode || 1 : exitCode);
