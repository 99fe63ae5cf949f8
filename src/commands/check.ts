/**
 * `check`: settings and accounts file, then every account's way to its provider, in parallel. In: settings.
 * Out: a live table, and for each failure what it means and what to do. Nothing is sent.
 */
import { isCalled } from '../accounts/account.ts';
import { readAccountsFile } from '../accounts/accounts-file.ts';
import type { LoadedAccount } from '../accounts/build-account.ts';
import { type Problem, problemRow } from '../accounts/schema.ts';
import { proxyOfSetting } from '../accounts/smtp-proxy.ts';
import type { Settings } from '../config.ts';
import type { ProbeStage } from '../enrol/explain.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { type ProbeDeps, type ProbeStep, probeAccount, tokensOf } from '../enrol/probe.ts';
import { eachAtOnce } from '../semaphore.ts';
import { GrantsUnsavedError } from '../tokens/grants-unsaved.ts';
import type { TokenStore } from '../tokens/token-store.ts';
import { createAdminClient } from './admin-client.ts';
import { awaitAnswers } from './await-answers.ts';
import { borrowTokenStore } from './borrowed-store.ts';
import {
  type CommandDefinition,
  EXIT_CONFIGURATION,
  isSet,
  option,
  textOption,
  timeoutOf,
  timeoutOption,
} from './definition.ts';
import { noteOtherFile } from './other-file.ts';
import { reportSender, type SenderReport } from './sender-report.ts';
import { commandSettings, settingOptions } from './setting-options.ts';
import { formatTable, printJson, printTable, type Terminal } from './terminal.ts';
import { type StartTrial, tryStart } from './try-start.ts';

/** Accounts probed at once: enough for a screen, gentle to a provider that counts logins. */
const PARALLEL = 10;
/** For each step, ms: a check is watched by a person. */
const DEFAULT_TIMEOUT_MS = 15_000;

interface Row {
  readonly loaded: LoadedAccount;
  readonly steps: ProbeStep[];
  isDone: boolean;
}

export const check: CommandDefinition = {
  name: 'check',
  summary: 'check settings, accounts file and the way of every account to its provider',
  details: [
    'For each account: token, DNS, TCP, TLS, EHLO, AUTH, MAIL FROM as each of its senders, then RSET; for one that sends by Microsoft Graph: token, and a draft that is created and deleted. Nothing is sent. Of an access token that is a JWT only aud, scp, roles and exp are shown.',
    'With --offline and the settings of serve: whatever would keep serve from starting is told in its words. Each address is opened for a moment, unless a relay that runs has it; nothing is left behind. Run it as the user the relay runs as.',
  ],
  arguments: [{ name: '[accounts...]', help: 'ids or addresses; default all' }],
  options: [
    option(
      '--offline',
      'ask no provider; find what serve would refuse: settings, accounts file, keys, addresses, directories',
    ),
    option(
      '--sender <address>',
      'only say which account takes mail from this address (<> for the null sender), and why',
    ),
    option('--json', 'print the result as JSON'),
    timeoutOption('for each step', DEFAULT_TIMEOUT_MS),
    ...settingOptions(),
  ],
  examples: [
    'xoauth2-relay check',
    'xoauth2-relay check alice@example.com --accounts /etc/xoauth2-relay/accounts.json',
    'xoauth2-relay check --offline',
    'xoauth2-relay check --offline --config /etc/xoauth2-relay/relay.json',
    'xoauth2-relay check --sender root@host',
  ],
  exitCodes: {
    0: 'all is well',
    1: 'some account cannot send, or a refresh token that came could not be saved',
    2: 'settings or accounts file wrong; with --offline: serve would not start, or not serve every account',
  },
  async run(context) {
    const { terminal } = context;
    const settings = await commandSettings(context);
    const asJson = isSet(context, 'json');
    const trial = isSet(context, 'offline') ? await tryStart(settings, context.env) : undefined;
    if (!asJson) showTrial(terminal, trial);
    const file = await readAccountsFile(settings.accounts, context.env);
    await noteOtherFile(settings, terminal);
    if (!asJson) showProblems(terminal, settings.accounts, file.problems, file.warnings);
    const isWrong = file.problems.length > 0;

    const sender = textOption(context, 'sender');
    if (sender !== undefined) {
      const report = reportSender(sender, file, settings.listeners);
      if (asJson) printJson(terminal, report);
      else showSender(terminal, report);
      if (isWrong) return EXIT_CONFIGURATION;
      return report.accounts.length > 0 ? 0 : 1;
    }

    if (trial !== undefined) {
      const { problems, warnings } = trial;
      const asSettings = (message: string): Problem => ({ key: 'settings', message });
      if (asJson)
        printJson(terminal, {
          problems: [...problems.map(asSettings), ...file.problems].map(problemRow),
          warnings: [...warnings.map(asSettings), ...file.warnings].map(problemRow),
          accounts: [],
        });
      else
        terminal.print(
          `${file.accounts.length} of ${file.accounts.length + file.unusable.length} accounts can be served${problems.length > 0 ? ', but serve would not start' : ''}`,
        );
      return isWrong || problems.length > 0 ? EXIT_CONFIGURATION : 0;
    }

    const rows = select(file.accounts, context.arguments).map(
      (loaded): Row => ({ loaded, steps: [], isDone: false }),
    );
    const isKept = await probeAll(rows, await borrowTokenStore(settings, terminal.note, file.accounts), {
      timeoutMs: timeoutOf(context, DEFAULT_TIMEOUT_MS),
      heloName: settings.heloName,
      proxy: proxyOfSetting(settings.smtpProxy),
      terminal,
      live: !asJson,
    });

    const retried = await tellRelay(rows, settings);
    const failing = rows.filter((row) => row.steps.some((step) => !step.ok));
    if (asJson) {
      const accounts = rows.map(({ loaded, steps }) => ({
        id: loaded.account.id,
        ok: steps.every((step) => step.ok),
        steps,
      }));
      printJson(terminal, {
        problems: file.problems.map(problemRow),
        warnings: file.warnings.map(problemRow),
        accounts,
      });
    } else {
      for (const row of rows) showDetails(terminal, row);
      terminal.print();
      terminal.print(`${rows.length - failing.length} of ${rows.length} accounts can send`);
      if (retried.length > 0) terminal.print(`the running relay tries again at once: ${retried.join(', ')}`);
    }
    if (isWrong) return EXIT_CONFIGURATION;
    return failing.length > 0 || !isKept ? 1 : 0;
  },
};

/** A relay that runs with these settings need not wait out a pause that is proved wrong. The accounts it was told of. */
async function tellRelay(rows: readonly Row[], settings: Settings): Promise<readonly string[]> {
  const well = new Set(
    rows.filter((row) => row.steps.every((step) => step.ok)).map((row) => row.loaded.account.id),
  );
  const told: string[] = [];
  try {
    const relay = createAdminClient(settings);
    for (const { id, status } of await relay.accounts()) {
      if (status === 'ready' || !well.has(id)) continue;
      await relay.retry(id);
      told.push(id);
    }
  } catch (error) {
    // None runs, or it is not for us to tell: what was checked is true all the same.
    if (!(error instanceof OperatorError)) throw error;
  }
  return told;
}

function showTrial({ note, paint }: Terminal, trial: StartTrial | undefined): void {
  for (const problem of trial?.problems ?? []) note(`${paint.red('error')} ${problem}`);
  for (const warning of trial?.warnings ?? []) note(`${paint.yellow('warning')} ${warning}`);
}

function showSender(terminal: Terminal, { sender, accounts, without_auth, cure }: SenderReport): void {
  if (cure !== undefined) {
    terminal.print(`${terminal.paint.red('nobody')} takes mail from ${sender}: ${cure}`);
    return;
  }
  const rows = accounts.map(({ account, leaves_as, why }) => [account, leaves_as, why]);
  printTable(terminal, [['account', 'MAIL FROM', 'why'], ...rows]);
  for (const { listener, accounts: ids, reply } of without_auth)
    if (reply !== null || without_auth.length > 1 || ids.length < accounts.length)
      terminal.print(`${listener} without AUTH: ${reply ?? ids.join(', ')}`);
}

function select(accounts: readonly LoadedAccount[], names: readonly string[]): readonly LoadedAccount[] {
  if (names.length === 0) return accounts;
  return names.map((name) => {
    const found = accounts.find(({ account }) => isCalled(account, name));
    if (found === undefined)
      throw new OperatorError(`no usable account ${name} in the accounts file`, EXIT_CONFIGURATION);
    return found;
  });
}

/** Problems and warnings of the accounts file, one line each. */
export function showProblems(
  terminal: Terminal,
  path: string,
  problems: readonly Problem[],
  warnings: readonly Problem[],
): void {
  const show = (label: string, problem: Problem): void => {
    const { path: key, line, message } = problemRow(problem);
    const place = line === undefined ? '' : `${path}:${line}: `;
    terminal.note(`${label} ${place}${key === '' ? '' : `${key} `}${message}`);
  };
  for (const problem of problems) show(terminal.paint.red('error'), problem);
  for (const warning of warnings) show(terminal.paint.yellow('warning'), warning);
}

/** `live`: it is shown as it goes. Whether all that came is kept, too; where not it has been noted. */
async function probeAll(
  rows: readonly Row[],
  store: TokenStore,
  {
    terminal,
    live,
    ...options
  }: Omit<ProbeDeps, 'tokens' | 'onStep'> & { readonly terminal: Terminal; readonly live: boolean },
): Promise<boolean> {
  const borrowed = tokensOf(
    store,
    rows.map(({ loaded }) => loaded),
  );
  const table = live ? createLiveTable(terminal, rows) : undefined;
  try {
    await awaitAnswers(terminal.note)(borrowed, (tokens) =>
      eachAtOnce(PARALLEL, rows, async (row) => {
        const { loaded, steps } = row;
        const onStep = (step: ProbeStep): void => {
          steps.push(step);
          table?.update();
        };
        await probeAccount(loaded, { ...options, tokens, onStep });
        row.isDone = true;
        table?.update();
      }).finally(() => table?.end()),
    );
    return true;
  } catch (error) {
    if (!(error instanceof GrantsUnsavedError)) throw error;
    terminal.note(`${terminal.paint.red('error')} ${error.message}`);
    return false;
  }
}

const STAGES: readonly ProbeStage[] = ['token', 'dns', 'tcp', 'tls', 'ehlo', 'auth', 'sender', 'graph'];

function formatRow({ loaded, steps, isDone }: Row, { paint }: Terminal): string[] {
  const cells = STAGES.map((stage) => {
    const own = steps.filter(
      (step) => step.stage === stage || (stage === 'ehlo' && step.stage === 'greeting'),
    );
    if (own.length === 0) return paint.dim(isDone ? '-' : '…');
    if (own.some((step) => !step.ok)) return paint.red('failed');
    return paint.green(`${own.reduce((sum, step) => sum + step.ms, 0)} ms`);
  });
  return [loaded.account.id, ...cells];
}

/** On a terminal a table redrawn in place (a counter, where it is too long for that); elsewhere one line per account when it is done. */
function createLiveTable(terminal: Terminal, rows: readonly Row[]) {
  const header = ['account', ...STAGES.map((stage) => (stage === 'sender' ? 'senders' : stage))];
  const render = (): string[] => formatTable([header, ...rows.map((row) => formatRow(row, terminal))]);
  if (!terminal.isLive)
    return { update: () => {}, end: () => void render().map((line) => terminal.print(line)) };
  let drawn = 0;
  const draw = (): void => {
    const lines = render();
    const up = drawn === 0 ? '' : `\x1b[${drawn}A`;
    terminal.write(`${up}${lines.map((line) => `\x1b[2K${line}\n`).join('')}`);
    drawn = lines.length;
  };
  draw();
  return { update: draw, end: draw };
}

function showDetails(terminal: Terminal, { loaded, steps }: Row): void {
  const { paint } = terminal;
  for (const step of steps) {
    if (step.doubt !== undefined)
      terminal.print(`\n${paint.yellow('warning')} ${loaded.account.id}: ${step.doubt}`);
    if (step.ok || step.explanation === undefined) continue;
    terminal.print(
      `\n${paint.red('failed')} ${loaded.account.id} at ${step.stage}: ${step.explanation.what}`,
    );
    terminal.print(`  said: ${step.detail}`);
    terminal.print(`  cure: ${step.explanation.cure}`);
  }
}
