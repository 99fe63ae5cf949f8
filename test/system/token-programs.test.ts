// needs: msmtp, mbsync, neomutt, dovecot, sasl-xoauth2, git
/** `token` with the programs it is for: the recipes of docs/tokens-for-programs.md as a reader would copy them. */
import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Dovecot, startDovecot } from '../support/dovecot.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type ProgramResult, runProgram } from '../support/program.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { readRecipe } from '../support/recipe.ts';
import { type RelayProcess, repositoryRoot, startRelay } from '../support/relay-process.ts';

const ALICE = 'alice@example.com';
const recipes = readRecipe('tokens-for-programs.md');
/** Dovecot changes users. */
const root = { skip: process.getuid?.() === 0 ? false : 'Dovecot needs root' };

interface Stage {
  readonly provider: Provider;
  readonly relay: RelayProcess;
  readonly directory: string;
  /** Runs a program as the recipes mean it: `xoauth2-relay` is on the path, the socket in the environment. */
  run(command: string, args: readonly string[], input?: string): Promise<ProgramResult>;
}

async function setUp(defer: Defer, flavour: 'gmail' | 'microsoft'): Promise<Stage> {
  const provider = await startProvider({ flavour, users: [ALICE] });
  defer(() => provider.close());
  const directory = mkdtempSync(join(tmpdir(), 'token-programs-'));
  defer(() => rmSync(directory, { recursive: true }));
  const socket = join(directory, 'token.sock');
  const relay = await startRelay({
    accounts: [provider.entry(ALICE)],
    caFile: provider.caFile,
    args: ['--token-socket', socket],
  });
  defer(() => relay.stop());
  mkdirSync(join(directory, 'bin'));
  symlinkSync(join(repositoryRoot, 'bin/xoauth2-relay.js'), join(directory, 'bin/xoauth2-relay'));
  const env = {
    ...process.env,
    PATH: `${join(directory, 'bin')}:${process.env.PATH}`,
    HOME: directory,
    SSL_CERT_FILE: provider.caFile,
    XOAUTH2_RELAY_TOKEN_SOCKET: socket,
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_TERMINAL_PROMPT: '0',
    TERM: 'xterm',
  };
  return {
    provider,
    relay,
    directory,
    run: (command, args, input) =>
      runProgram(command, args, { env, cwd: directory, ...(input === undefined ? {} : { input }) }),
  };
}

async function openDovecot(defer: Defer, { provider }: Stage): Promise<Dovecot> {
  const dovecot = await startDovecot((token) => {
    const found = provider.token.read(token);
    // Microsoft's tokens for SMTP are none for IMAP.
    const isForImap = provider.flavour === 'gmail' || found?.scope.includes('IMAP.AccessAsUser.All');
    return found !== undefined && isForImap ? [...found.users][0] : undefined;
  });
  defer(() => dovecot.close());
  return dovecot;
}

test(
  'msmtp sends with a token of the relay',
  leakless(async (_t, defer) => {
    const { provider, relay, directory, run } = await setUp(defer, 'gmail');
    const recipe = recipes
      .block('passwordeval')
      .replace('smtp.gmail.com', 'localhost')
      .replace('port 587', `port ${provider.smtp.port}`);
    const file = join(directory, '.msmtprc');
    writeFileSync(file, recipe.replace('tls on\n', `tls on\ntls_trust_file ${provider.caFile}\n`), {
      mode: 0o600,
    });
    const sent = await run('msmtp', ['--debug', 'you@example.net'], 'Subject: hello\n\nhello\n');
    assert.equal(sent.code, 0, sent.output);
    assert.match(sent.output, /AUTH XOAUTH2/);
    const [message] = await provider.received(1);
    assert.equal(message?.user, ALICE);
    assert.equal(relay.lines.filter((line) => line.event === 'token_given').length, 1);
    assert.equal(provider.token.count(), 1, 'the token of the relay, not another');
  }),
);

for (const flavour of ['gmail', 'microsoft'] as const)
  test(
    `mbsync fetches mail from Dovecot with a token for IMAP (${flavour})`,
    root,
    leakless(async (_t, defer) => {
      const stage = await setUp(defer, flavour);
      const dovecot = await openDovecot(defer, stage);
      dovecot.deliver(ALICE, 'From: bob@example.org\r\nSubject: by IMAP\r\n\r\nhello\r\n');
      const { directory, provider } = stage;
      const recipe = recipes
        .block('AuthMechs XOAUTH2')
        .replace('imap.gmail.com', 'localhost')
        .replace('Port 993', `Port ${dovecot.port}\nCertificateFile ${provider.caFile}`);
      writeFileSync(join(directory, '.mbsyncrc'), recipe, { mode: 0o600 });
      mkdirSync(join(directory, 'Mail'));
      const synced = await stage.run('mbsync', ['-V', '-a']);
      assert.equal(synced.code, 0, `${synced.output}\n${dovecot.log()}`);
      const [name = ''] = readdirSync(join(directory, 'Mail/INBOX/new'));
      assert.match(readFileSync(join(directory, 'Mail/INBOX/new', name), 'utf8'), /Subject: by IMAP/);
      assert.deepEqual(dovecot.logins, [ALICE]);
      assert.equal(provider.token.count(), flavour === 'gmail' ? 1 : 2);
    }),
  );

test(
  'neomutt reads and sends with tokens of the relay',
  root,
  leakless(async (_t, defer) => {
    const stage = await setUp(defer, 'gmail');
    const dovecot = await openDovecot(defer, stage);
    dovecot.deliver(ALICE, 'From: bob@example.org\r\nSubject: for mutt\r\n\r\nhello\r\n');
    const { directory, provider } = stage;
    const recipe = recipes
      .block('imap_oauth_refresh_command')
      .replace('imaps://imap.gmail.com/', `imaps://localhost:${dovecot.port}/`)
      .replace('smtp.gmail.com:587', `localhost:${provider.smtp.port}`);
    const file = join(directory, 'neomuttrc');
    writeFileSync(
      file,
      `${recipe}\nset ssl_ca_certificates_file = "${provider.caFile}"\nset ssl_starttls = yes\nset ssl_force_tls = yes\nset from = "${ALICE}"\nset copy = no\nset pager_stop = yes\n`,
    );
    const sent = await stage.run(
      'neomutt',
      ['-F', file, '-n', '-s', 'from mutt', '--', 'you@example.net'],
      'hello\n',
    );
    assert.equal(sent.code, 0, sent.output);
    const [message] = await provider.received(1);
    assert.equal(message?.user, ALICE);
    const kept = join(directory, 'kept');
    const keys = `<save-message>${kept}<enter><exit>`;
    const read = await stage.run('script', [
      '-qec',
      `neomutt -F ${file} -n -e 'set confirmcreate=no confirmappend=no delete=yes mbox_type=mbox' -e 'push "${keys}"'`,
      '/dev/null',
    ]);
    assert.match(readFileSync(kept, 'utf8'), /Subject: for mutt/, read.output);
    assert.deepEqual([...new Set(dovecot.logins)], [ALICE]);
  }),
);
