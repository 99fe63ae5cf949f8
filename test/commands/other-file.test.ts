/** Commands on another accounts file than the running relay's. */
import assert from 'node:assert/strict';
import { mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';

test(
  'every command that names another accounts file than the running relay says so, and asks for no reload',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['ann@x.org', 'ben@x.org'] });
    defer(() => provider.close());
    const [ann, ben] = [provider.entry('ann@x.org'), provider.entry('ben@x.org')];
    const relay = await startRelay({ accounts: [ann], caFile: provider.caFile });
    defer(() => relay.stop());
    const directory = mkdtempSync(join(tmpdir(), 'other-file-'));
    defer(() => rmSync(directory, { recursive: true }));
    const own = join(directory, 'own.json');
    const source = join(directory, 'source.json');
    writeFileSync(own, JSON.stringify([ann]), { mode: 0o600 });
    writeFileSync(source, JSON.stringify([ben]), { mode: 0o600 });
    const run = (args: readonly string[], file: string) =>
      runCli([...args, '--accounts', file, '--admin-port', String(relay.adminPort)], {
        env: { NODE_EXTRA_CA_CERTS: provider.caFile },
      });
    const told = `the running relay serves ${realpathSync(relay.accountsFile)}, not ${own}: --accounts`;

    for (const args of [
      ['account', 'list'],
      ['check'],
      ['check', '--offline'],
      ['check', '--json'],
      ['account', 'import', source],
      ['account', 'remove', 'ben@x.org', '--yes'],
      ['account', 'add', 'new@x.org', '--provider', 'none'],
    ]) {
      const { stdout, stderr } = await run(args, own);
      assert.ok(stderr.includes(told), `${args.join(' ')}: ${stderr}`);
      assert.ok(!stdout.includes('the running relay'), args.join(' '));
      assert.doesNotMatch(stderr, /^reloaded/m);
    }

    // By another name it is the same file.
    const link = join(directory, 'link.json');
    symlinkSync(relay.accountsFile, link);
    const same = await run(['account', 'import', source], link);
    assert.equal(same.code, 0, same.stderr);
    assert.doesNotMatch(same.stderr, /the running relay serves/);
    assert.match(same.stderr, /reloaded: 1 added/);
  }),
);
