/** `check` and `send --direct` where what the provider has given cannot be saved at once, and where it comes late. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { awaitAnswers } from '../../src/commands/await-answers.ts';
import { createFileStore } from '../../src/tokens/store-file.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { type CliRun, startCli } from '../support/run-cli.ts';
import { startTrial } from '../support/token-trial.ts';
import { waitFor } from '../support/wait-for.ts';

const USER = 'user@outlook.example';

/** The command has asked, and the directory is away when the answer comes. */
async function withoutDirectory(defer: Defer, words: readonly string[]) {
  const provider = await startProvider({ flavour: 'microsoft', users: [USER] });
  defer(() => provider.close());
  provider.token.rotation = 'revoke-old';
  provider.token.delayMs = 300;
  const directory = mkdtempSync(join(tmpdir(), 'unsaved-'));
  defer(() => rmSync(directory, { recursive: true }));
  const accounts = join(directory, 'accounts.json');
  const state = join(directory, 'state');
  writeFileSync(accounts, JSON.stringify([provider.entry(USER)]), { mode: 0o600 });
  const run = startCli([...words, '--accounts', accounts, '--state-dir', state], {
    env: { NODE_EXTRA_CA_CERTS: provider.caFile },
  });
  const given = provider.token.account(USER)?.refreshToken;
  await waitFor(() => provider.token.count() === 1, { what: 'the request' });
  renameSync(state, `${state}.away`);
  await waitFor(() => provider.token.account(USER)?.refreshToken !== given, { what: 'the answer' });
  const newest = provider.token.account(USER)?.refreshToken ?? '';
  return {
    provider,
    run,
    bringBack: () => renameSync(`${state}.away`, state),
    isSaved: () =>
      readdirSync(state).some(
        (name) => name.endsWith('.grant') && readFileSync(join(state, name), 'utf8').includes(newest),
      ),
  };
}

/** The check is over but for what is not saved. */
const checked = (run: CliRun): Promise<unknown> => run.seen(/^user@outlook\.example {2}.*ms/m);

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  test(
    `${signal} while a check offers the store again what it did not take: it ends when that is taken`,
    leakless(async (_t, defer) => {
      const { run, bringBack, isSaved } = await withoutDirectory(defer, ['check']);
      await checked(run);
      run.signal(signal);
      const isOver = await Promise.race([run.exited.then(() => true), turn(1000)]);
      assert.equal(isOver, false);
      bringBack();
      assert.equal((await run.exited).code, null);
      assert.equal(isSaved(), true);
    }),
  );

test(
  'a terminal that is closed says so twice: the check still ends when what it brought is taken',
  leakless(async (_t, defer) => {
    const { run, bringBack, isSaved } = await withoutDirectory(defer, ['check']);
    await checked(run);
    run.signal('SIGHUP');
    await run.seen(/a second signal ends at once/);
    run.signal('SIGHUP');
    const isOver = await Promise.race([run.exited.then(() => true), turn(500)]);
    assert.equal(isOver, false);
    bringBack();
    assert.equal((await run.exited).code, null);
    assert.equal(isSaved(), true);
  }),
);

test(
  'a second signal does not wait',
  leakless(async (_t, defer) => {
    const { run, bringBack, isSaved } = await withoutDirectory(defer, ['check']);
    await checked(run);
    run.signal('SIGTERM');
    await run.seen(/a second signal ends at once/);
    run.signal('SIGTERM');
    assert.equal((await run.exited).code, null);
    bringBack();
    assert.equal(isSaved(), false);
  }),
);

test(
  'a check whose reader goes away offers the store again what it did not take',
  leakless(async (_t, defer) => {
    const { run, bringBack, isSaved } = await withoutDirectory(defer, ['check']);
    run.closeStdout();
    await Promise.race([run.exited, turn(2000)]);
    bringBack();
    assert.equal((await run.exited).code, 0);
    assert.equal(isSaved(), true);
  }),
);

test(
  'what could not be saved is told in a line, with the result of the check; by a signal, too',
  leakless(async (_t, defer) => {
    const loss = /refresh tokens of 1 account\(s\) could not be saved: user@outlook\.example; .*\*\.tmp/;
    const plain = await withoutDirectory(defer, ['check']);
    const { code, stdout, stderr } = await plain.run.exited;
    assert.equal(code, 1);
    assert.match(stdout, /1 of 1 accounts can send/);
    assert.match(stderr, loss);
    assert.doesNotMatch(stderr, /^ +at /m);
    const ended = await withoutDirectory(defer, ['check']);
    await checked(ended.run);
    ended.run.signal('SIGINT');
    assert.match((await ended.run.exited).stderr, loss);
    const sent = await withoutDirectory(defer, ['send', 'to@y.org', '--direct', USER]);
    const result = await sent.run.exited;
    assert.equal(result.code, 1);
    assert.match(result.stderr, loss);
    assert.doesNotMatch(result.stderr, /^ +at /m);
  }),
);

test('an answer that comes after the command has given up on it is read to its end and kept', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'late-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const trial = await startTrial(2, (log) => createFileStore(directory, { log, sealer: undefined }));
  t.after(() => trial.close());
  const service = await trial.serve({}, { answerTimeoutMs: 100, lateMs: 10_000 });
  trial.endpoint.delayMs = 1500;
  const notes: string[] = [];
  await awaitAnswers((line) => notes.push(line))(service, (tokens) =>
    Promise.allSettled(trial.users.map((user) => tokens.refresh(user))),
  );
  assert.match(notes.join('\n'), /^waiting until what a token endpoint answers/);
  assert.deepEqual(await trial.lost(), []);
});

const turn = (ms: number): Promise<false> => new Promise((resume) => setTimeout(resume, ms, false));
