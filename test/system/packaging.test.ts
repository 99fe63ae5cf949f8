/** What is published: packed, installed globally into an empty prefix, serving mail on the oldest and newest Node. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { runProgram } from '../support/program.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';

const INSTALL_TIMEOUT_MS = 300_000;

async function npm(...args: string[]): Promise<string> {
  const done = await runProgram('npm', args, { cwd: repositoryRoot, timeoutMs: INSTALL_TIMEOUT_MS });
  assert.equal(done.code, 0, done.output);
  return done.output;
}

test(
  'the package holds what runs and nothing else, and serves mail on Node 20 and 24',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'packaging-'));
    defer(() => rmSync(directory, { recursive: true, force: true }));
    // dist is compiled already, and doing it again would change it under other tests; the manual may be missing.
    const manual = await runProgram(process.execPath, [join(repositoryRoot, 'dist/cli.js'), 'manual']);
    writeFileSync(join(repositoryRoot, 'dist/xoauth2-relay.1'), manual.output);
    const packed = await npm(
      'pack',
      '--json',
      '--ignore-scripts',
      '--loglevel=silent',
      '--pack-destination',
      directory,
    );
    const [{ filename, files }] = JSON.parse(packed.slice(packed.indexOf('['))) as [
      { filename: string; files: { path: string }[] },
    ];
    const tops = new Set(files.map(({ path }) => path.split('/')[0]));
    assert.deepEqual([...tops].sort(), [
      'CHANGELOG.md',
      'LICENSE',
      'README.md',
      'accounts.example.json',
      'accounts.schema.json',
      'bin',
      'dist',
      'package.json',
    ]);
    const foreign = files.filter(({ path }) => /\.ts$|test|\.env|\.pem|\.key$/.test(path));
    assert.deepEqual(foreign, []);

    const prefix = join(directory, 'prefix');
    await npm(
      'install',
      '--global',
      '--prefix',
      prefix,
      '--no-audit',
      '--no-fund',
      join(directory, filename),
    );
    const bin = join(prefix, 'lib/node_modules/xoauth2-relay/bin/xoauth2-relay.js');
    assert.match(readFileSync(join(prefix, 'share/man/man1/xoauth2-relay.1'), 'utf8'), /^\.TH XOAUTH2/);
    const node24 = await npx24('command -v node');

    for (const node of [process.execPath, node24.trim().split('\n').at(-1) ?? '']) {
      const provider = await startProvider({ users: ['a@x.org'] });
      defer(() => provider.close());
      const relay = await startRelay({
        accounts: [provider.entry('a@x.org')],
        caFile: provider.caFile,
        bin,
        node,
      });
      defer(() => relay.stop());
      const sent = await runProgram(node, [
        bin,
        'send',
        'to@y.org',
        '--port',
        String(relay.smtpPort),
        '--accounts',
        relay.accountsFile,
      ]);
      assert.equal(sent.code, 0, sent.output);
      await provider.received(1);
      const { version } = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as {
        version: string;
      };
      assert.equal(
        (await runProgram(join(prefix, 'bin/xoauth2-relay'), ['--version'])).output.trim(),
        version,
      );
    }
  }),
);

async function npx24(command: string): Promise<string> {
  const done = await runProgram('npx', ['-y', '-p', 'node@24', '-c', command], {
    timeoutMs: INSTALL_TIMEOUT_MS,
  });
  assert.equal(done.code, 0, done.output);
  return done.output;
}

test('the bill of materials lists what runs, and no tool of development', async () => {
  const sbom = JSON.parse(await npm('run', '--silent', 'sbom')) as {
    bomFormat: string;
    components: { name: string; 'bom-ref': string }[];
  };
  assert.equal(sbom.bomFormat, 'CycloneDX');
  const names = sbom.components.map((component) => component.name);
  for (const name of ['smtp-server', 'nodemailer', 'undici', 'pino', 'zod'])
    assert(names.includes(name), name);
  for (const name of ['typescript', 'fast-check', 'playwright-core']) assert(!names.includes(name), name);
});
