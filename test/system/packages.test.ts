// needs: dpkg-deb
/** What `npm run package` makes, installed, run and removed again. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { sendMail } from '../support/dialogue.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { runProgram } from '../support/program.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';

const TIMEOUT_MS = 280_000;
const directory = mkdtempSync(join(tmpdir(), 'packages-'));
const version = (
  JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as { version: string }
).version;
const made = (name: string): string => join(directory, name);

async function run(program: string, ...args: readonly string[]): Promise<string> {
  const done = await runProgram(program, [...args], { timeoutMs: TIMEOUT_MS });
  assert.equal(done.code, 0, `${program} ${args.join(' ')}: ${done.output}`);
  return done.output;
}

delete process.env.DEBEMAIL;
delete process.env.DEBFULLNAME;
before(() => run(process.execPath, join(repositoryRoot, 'scripts/package.mjs'), '--out', directory));
after(() => rmSync(directory, { recursive: true, force: true }));

async function relaysMail(defer: Defer, bin: string): Promise<void> {
  const provider = await startProvider({ users: ['a@x.org'] });
  defer(() => provider.close());
  const relay = await startRelay({ accounts: [provider.entry('a@x.org')], caFile: provider.caFile, bin });
  defer(() => relay.stop());
  assert.equal((await sendMail(relay.smtpPort, { from: 'a@x.org' })).code, 250);
}

/** Waits for whoever else installs something. */
const apt = (...args: readonly string[]): Promise<string> =>
  run('apt-get', '-qq', '-y', '-o', 'DPkg::Lock::Timeout=120', ...args);

const isRoot = (t: TestContext): boolean => {
  if (process.getuid?.() === 0) return true;
  t.skip('needs root');
  return false;
};

test(
  'the .deb installs, relays mail, has its papers, and leaves nothing after a purge',
  leakless(async (t, defer) => {
    if (!isRoot(t)) return;
    defer(() => runProgram('dpkg', ['--purge', 'xoauth2-relay']));
    await apt('install', '--no-install-recommends', '--reinstall', made(`xoauth2-relay_${version}_all.deb`));
    assert.equal((await run('/usr/bin/xoauth2-relay', '--version')).trim(), version);
    const offline = await runProgram('/usr/bin/xoauth2-relay', ['check', '--offline']);
    assert.match(offline.output, /\/etc\/xoauth2-relay\/accounts\.json/);
    for (const path of [
      '/lib/systemd/system/xoauth2-relay.service',
      '/usr/share/man/man1/xoauth2-relay.1.gz',
      '/usr/share/bash-completion/completions/xoauth2-relay',
      '/usr/share/doc/xoauth2-relay/copyright',
      '/etc/xoauth2-relay/state-key',
    ])
      assert(existsSync(path), path);
    const key = readFileSync('/etc/xoauth2-relay/state-key', 'utf8');
    await relaysMail(defer, '/usr/lib/xoauth2-relay/bin/xoauth2-relay.js');
    // An upgrade keeps the key that seals the tokens.
    await apt('install', '--no-install-recommends', '--reinstall', made(`xoauth2-relay_${version}_all.deb`));
    assert.equal(readFileSync('/etc/xoauth2-relay/state-key', 'utf8'), key);
    await apt('purge', 'xoauth2-relay');
    for (const path of ['/usr/bin/xoauth2-relay', '/usr/lib/xoauth2-relay', '/etc/xoauth2-relay'])
      assert(!existsSync(path), path);
  }),
);

test('the .deb names the project as its maintainer', async () => {
  const file = made(`xoauth2-relay_${version}_all.deb`);
  const { author } = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as {
    author: string;
  };
  const field = (await run('dpkg-deb', '-f', file, 'Maintainer')).trim();
  assert.equal(field, author);
  assert.match(field, /^[^<>]+ <[^@\s]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}>$/);
});

test(
  'the tarball unpacks into a prefix and relays mail',
  leakless(async (_t, defer) => {
    const prefix = made('prefix');
    mkdirSync(prefix);
    await run('tar', '-C', prefix, '--strip-components=1', '-xzf', made(`xoauth2-relay-${version}.tar.gz`));
    assert.equal((await run(join(prefix, 'bin/xoauth2-relay'), '--version')).trim(), version);
    await relaysMail(defer, join(prefix, 'lib/xoauth2-relay/bin/xoauth2-relay.js'));
  }),
);

test(
  'the image is a whole OCI layout, and what is in it runs with nothing else',
  leakless(async (t) => {
    const layout = made('layout');
    mkdirSync(layout);
    await run('tar', '-C', layout, '-xf', made(`xoauth2-relay-${version}.oci.tar`));
    interface Descriptor {
      readonly mediaType: string;
      readonly digest: string;
      readonly size: number;
    }
    const blob = ({ digest, size }: Descriptor): Buffer => {
      const content = readFileSync(join(layout, 'blobs', digest.replace(':', '/')));
      assert.deepEqual(
        [`sha256:${createHash('sha256').update(content).digest('hex')}`, content.length],
        [digest, size],
      );
      return content;
    };
    const json = <T>(content: Buffer): T => JSON.parse(content.toString()) as T;
    assert.deepEqual(json(readFileSync(join(layout, 'oci-layout'))), { imageLayoutVersion: '1.0.0' });
    const index = json<{ schemaVersion: number; manifests: Descriptor[] }>(
      readFileSync(join(layout, 'index.json')),
    );
    const manifest = json<{ config: Descriptor; layers: Descriptor[] }>(
      blob(index.manifests[0] as Descriptor),
    );
    const config = json<{ config: { User: string; Entrypoint: string[] }; rootfs: { diff_ids: string[] } }>(
      blob(manifest.config),
    );
    assert.equal(manifest.layers.length, config.rootfs.diff_ids.length);
    assert.match(config.config.User, /^[1-9]\d+:/);
    const layer = manifest.layers[0] as Descriptor;
    blob(layer);
    if (!isRoot(t)) return;
    const tree = made('image');
    mkdirSync(tree);
    await run('tar', '-C', tree, '-xzpf', join(layout, 'blobs', layer.digest.replace(':', '/')));
    const inside = [
      'chroot',
      `--userspec=${config.config.User}`,
      tree,
      '/usr/bin/node',
      ...config.config.Entrypoint.slice(1),
    ];
    assert.equal((await run('env', ...inside, '--version')).trim(), version);
  }),
);
