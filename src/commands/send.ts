/**
 * `send`: a test message through the running relay, or directly as an account. In: recipient, options. Out:
 * the dialogue and the provider's id. nodemailer composes the message.
 */
import { hostname } from 'node:os';
import MailComposer from 'nodemailer/lib/mail-composer/index.js';
import { causeFacts, isCalled } from '../accounts/account.ts';
import { readAccountsFile } from '../accounts/accounts-file.ts';
import type { LoadedAccount } from '../accounts/build-account.ts';
import { proxyOfSetting } from '../accounts/smtp-proxy.ts';
import { readVariable } from '../config/variables.ts';
import type { Settings } from '../config.ts';
import { type ClientDialogue, expect, StepError } from '../enrol/client-dialogue.ts';
import { dialAccount } from '../enrol/dial-account.ts';
import { explain, explainToken } from '../enrol/explain.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { tokensOf } from '../enrol/probe.ts';
import type { CauseFacts } from '../protocol/causes/cause.ts';
import { stuffWhole } from '../protocol/dot-stuffing.ts';
import { createWatch, secretsOfLogin } from '../protocol/masking.ts';
import { fitsPath } from '../protocol/path.ts';
import { formatReply } from '../protocol/reply.ts';
import { TokenError } from '../tokens/access-token.ts';
import { awaitAnswers } from './await-answers.ts';
import { borrowTokenStore } from './borrowed-store.ts';
import {
  type CommandContext,
  type CommandDefinition,
  EXIT_CONFIGURATION,
  option,
  textOption,
} from './definition.ts';
import { dialListener } from './dial-listener.ts';
import { commandSettings, settingOptions } from './setting-options.ts';

/** An MTA waits longer; a person does not. */
const STEP_TIMEOUT_MS = 60_000;

export const send: CommandDefinition = {
  name: 'send',
  summary: 'send a test message and show the dialogue',
  details: [
    'Through the running relay (--from names the sender), or with --direct as an account straight to its provider, to tell the relay and the provider apart.',
    'With sendmail options (-t, -i, -oi, -f ADDRESS, -F NAME, …) it is a sendmail: it reads a message from standard input, sends it through the relay without a word, and ends with a code of sysexits.h (75: try again). So does a symbolic link named sendmail. Names without a domain are looked up in /etc/aliases.',
    'Where the relay wants a password it is asked for, or read from XOAUTH2_RELAY_CLIENT_PASSWORD.',
  ],
  arguments: [{ name: '<recipient>', help: 'address that gets the message' }],
  options: [
    option('--from <address>', 'sender; default the address of the first account'),
    option('--subject <text>', 'subject (default "Test message of xoauth2-relay")'),
    option('--text <text>', 'body'),
    option('--direct <account>', 'send as this account without the relay'),
    option('--auth <user>', 'log in to the relay as this user'),
    ...settingOptions(['accounts', 'host', 'port', 'tls', 'stateDir', 'stateKey', 'store']),
  ],
  examples: [
    'xoauth2-relay send me@example.net --from alice@example.com',
    'xoauth2-relay send me@example.net --direct alice@example.com',
    'xoauth2-relay send -t -oi -f alerts@example.com < message.eml',
  ],
  exitCodes: { 1: 'refused, or nobody answers' },
  async run(context) {
    const { terminal } = context;
    const settings = await commandSettings(context);
    const recipient = context.arguments[0] ?? '';
    const direct = textOption(context, 'direct');
    const { accounts } = await readAccountsFile(settings.accounts, context.env);
    const from =
      textOption(context, 'from') ?? (direct === undefined ? accounts[0]?.account.email : undefined);
    for (const address of [from ?? '', recipient])
      if (!fitsPath(address))
        throw new OperatorError(`not an address: ${JSON.stringify(address)}`, EXIT_CONFIGURATION);
    const trace = (line: string): void => terminal.print(terminal.paint.dim(line));
    let smtp: ClientDialogue | undefined;
    let facts: CauseFacts | undefined;
    try {
      let sender = from ?? '';
      if (direct === undefined) {
        if (from === undefined) throw new OperatorError('name the sender with --from', EXIT_CONFIGURATION);
        smtp = await connectToRelay(settings, context, trace);
      } else {
        const loaded = accounts.find(({ account }) => isCalled(account, direct));
        if (loaded === undefined) throw new OperatorError(`no usable account ${direct}`, EXIT_CONFIGURATION);
        sender = from ?? loaded.account.email;
        facts = { ...causeFacts(loaded.account), sender };
        smtp = await connectAs(loaded, settings, { trace, note: terminal.note });
      }
      const message = await compose(sender, recipient, context);
      const command = async (line: string): Promise<void> => {
        if (smtp !== undefined) expect(await smtp.command(line, 'sender'), 'sender', line);
      };
      await command(`MAIL FROM:<${sender}>`);
      await command(`RCPT TO:<${recipient}>`);
      await command('DATA');
      const verdict = expect(await smtp.content(stuffWhole(message), 'sender'), 'sender');
      await smtp.quit();
      terminal.print(`${terminal.paint.green('accepted')}: ${formatReply(verdict)}`);
      return 0;
    } catch (error) {
      if (!(error instanceof StepError) && !(error instanceof TokenError)) throw error;
      const stage = error instanceof StepError ? error.stage : 'token';
      const said = error.message;
      terminal.note(`${terminal.paint.red('failed')} at ${stage}: ${said}`);
      if (facts !== undefined) {
        const { what, cure } =
          error instanceof TokenError ? explainToken(error, facts) : explain({ stage, said, ...facts });
        terminal.note(`  ${what}\n  cure: ${cure}`);
      } else if (stage === 'tcp')
        terminal.note('  no relay listens there: start it, or name it with --host and --port');
      return 1;
    } finally {
      smtp?.close();
    }
  },
};

async function connectToRelay(
  settings: Settings,
  context: CommandContext,
  trace: (line: string) => void,
): Promise<ClientDialogue> {
  const options = { timeoutMs: STEP_TIMEOUT_MS, trace };
  const user = textOption(context, 'auth');
  if (user === undefined) return dialListener(settings, options);
  const password =
    readVariable(context.env, 'XOAUTH2_RELAY_CLIENT_PASSWORD') ??
    (await context.terminal.askSecret(`Password of ${user}`));
  const plain = Buffer.from(`\0${user}\0${password}`).toString('base64');
  const mask = createWatch([...secretsOfLogin(user, password), plain]);
  const smtp = await dialListener(settings, { ...options, mask });
  expect(await smtp.command(`AUTH PLAIN ${plain}`, 'auth', 'AUTH PLAIN (password)'), 'auth');
  return smtp;
}

async function connectAs(
  loaded: LoadedAccount,
  settings: Settings,
  { trace, note }: { readonly trace: (line: string) => void; readonly note: (line: string) => void },
): Promise<ClientDialogue> {
  const { account } = loaded;
  const borrowed = tokensOf(await borrowTokenStore(settings, note, [loaded]), [loaded]);
  return awaitAnswers(note)(borrowed, async (tokens) =>
    dialAccount(account, await tokens.get(account.id), {
      heloName: settings.heloName,
      proxy: proxyOfSetting(settings.smtpProxy),
      timeoutMs: STEP_TIMEOUT_MS,
      trace,
    }),
  );
}

async function compose(from: string, to: string, context: CommandContext): Promise<Buffer> {
  const composer = new MailComposer({
    from,
    to,
    subject: textOption(context, 'subject') ?? 'Test message of xoauth2-relay',
    text: textOption(context, 'text') ?? `Sent by "xoauth2-relay send" on ${hostname()}.\n`,
    newline: '\r\n',
  });
  return composer.compile().build();
}
