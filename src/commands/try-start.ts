/**
 * What `serve` would refuse, without serving. In: settings, environment. Out: errors and doubts in the words of
 * `serve`. Opens what a relay opens for a moment and leaves nothing behind.
 */
import { mkdtemp, rmdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { createApp } from '../app.ts';
import { type Settings, unknownVariables } from '../config.ts';
import { makeDirectories } from '../directories.ts';
import { refuseTaken } from '../log/file.ts';
import { silentLog } from '../log.ts';
import { createTokenStore } from '../tokens/open-store.ts';
import { createAdminClient, TokenWantedError } from './admin-client.ts';
import { explainLogFile, explainStart } from './start-error.ts';

export interface StartTrial {
  /** One line each: what, why, cure. */
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
}

export async function tryStart(
  settings: Settings,
  env: Readonly<Record<string, string | undefined>>,
): Promise<StartTrial> {
  const problems: string[] = [];
  const warnings = unknownVariables(env).map((name) => `${name} is no setting: see serve --help`);
  const attempt = async (what: () => Promise<void>): Promise<void> => {
    try {
      await what();
    } catch (error) {
      problems.push(wordsOf(error, settings));
    }
  };
  const isRunning = await relayRuns(settings);
  await attempt(async () => {
    for (const error of await createApp({ settings, log: mute }).trial()) {
      const { code } = ((error as Error).cause ?? error) as NodeJS.ErrnoException;
      if (!(isRunning && code === 'EADDRINUSE')) problems.push(wordsOf(error, settings));
    }
  });
  const { logFile, stateDir } = settings;
  if (logFile !== undefined)
    await inPlace(dirname(logFile), async () => {
      refuseTaken(logFile);
      await rmdir(await mkdtemp(`${dirname(logFile)}/.check-`));
    }).catch((error: unknown) => problems.push(explainLogFile(logFile, error)));
  if (stateDir !== undefined)
    await attempt(async () => {
      const doubt = await tryStateDirectory(settings, stateDir, isRunning);
      if (doubt !== undefined) warnings.push(doubt);
    });
  if (isRunning) warnings.push('a relay runs with these settings: the addresses that it has count as free');
  return { problems: [...new Set(problems)], warnings };
}

const wordsOf = (error: unknown, settings: Settings): string =>
  ((explainStart(error, settings) as Error).message ?? String(error)).replaceAll('\n', ' ');

const mute = {
  ...silentLog,
  level: 'silent',
  isLevelEnabled: () => false,
  line: () => {},
  dropped: 0,
  waiting: 0,
};

/** A relay answers in milliseconds; another program may never do. */
const RELAY_ANSWERS_MS = 3_000;

/** Whether somebody answers as a relay at the admin address. */
async function relayRuns(settings: Settings): Promise<boolean> {
  if (settings.adminPort === 0) return false;
  const answers = createAdminClient(settings)
    .accounts()
    .then(
      () => true,
      // A relay that wants its token is one.
      (error: unknown) => error instanceof TokenWantedError,
    );
  return Promise.race([answers, setTimeout(RELAY_ANSWERS_MS, false, { ref: false })]);
}

/** As the store opens it; what is made for it is removed again. The doubt where only its own user could tell. */
async function tryStateDirectory(
  settings: Settings,
  directory: string,
  isRunning: boolean,
): Promise<string | undefined> {
  const before = await stat(directory).catch(() => undefined);
  if (before?.isDirectory() === true && before.uid !== process.getuid?.())
    return `the state directory ${directory} belongs to another user (${before.uid}): check as that user tells whether it can be used`;
  const { stateKey } = settings;
  // A guest writes nothing, and claims nothing of the relay that has it.
  const role = isRunning || before === undefined ? 'guest' : 'owner';
  await inPlace(directory, async () => {
    const store = createTokenStore({ stateDir: directory, stateKey, role, log: silentLog });
    await store.open();
    await store.close();
  });
  return undefined;
}

/** Makes the directory, does something in it and takes away what was made. Where it cannot be made, what is done says so. */
async function inPlace(path: string, work: () => Promise<void>): Promise<void> {
  const first = madeAt(path);
  try {
    await work();
  } finally {
    for (let made = path; first !== undefined && made.length >= first.length; made = dirname(made))
      await rmdir(made);
  }
}

function madeAt(path: string): string | undefined {
  try {
    return makeDirectories(path);
  } catch {
    return undefined;
  }
}
