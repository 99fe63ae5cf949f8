/** `npm run package`, see `HELP`. In: dist, node_modules, deploy. Out: files in packages/. */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { readCommandLine } from './command-line.mjs';
import { writeImage } from './oci.mjs';

const HELP = `npm run package -- [--out DIR]

The .deb, the tarball, the npm package and an OCI image layout, from what "npm run build" made and the packages the
lock file names. The .deb needs dpkg-deb and is left out with a word where that is missing.

  --out DIR  default: packages
`;

const root = fileURLToPath(new URL('../', import.meta.url));
const { version, description, author } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const { DEBFULLNAME, DEBEMAIL } = process.env;
const [, name, address] = /^(.*) <(.*)>$/.exec(author);
/** Whoever builds it may answer for it, as with dpkg's own tools. */
const maintainer = `${DEBFULLNAME ?? name} <${DEBEMAIL ?? address}>`;
const { values } = readCommandLine('package', HELP, { out: { type: 'string' } });
const out = resolve(values.out ?? join(root, 'packages'));
const deploy = join(root, 'deploy/debian');
const ACCOUNTS = '/etc/xoauth2-relay/accounts.json';

const run = (program, args, options = {}) =>
  execFileSync(program, args, { encoding: 'utf8', cwd: root, ...options });
const cli = (...args) => run(process.execPath, [join(root, 'bin/xoauth2-relay.js'), ...args]);
const has = (program) => {
  try {
    run('sh', ['-c', `command -v ${program}`]);
    return true;
  } catch {
    return false;
  }
};
const write = (path, content, mode = 0o644) => {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  writeFileSync(path, content, { mode });
  chmodSync(path, mode);
};

/** Program, its runtime packages and its papers below `prefix` of `tree`. */
function stage(tree, prefix, { wrapper }) {
  const lib = join(tree, prefix, 'lib/xoauth2-relay');
  const copy = (from, to, filter = () => true) => {
    mkdirSync(dirname(to), { recursive: true });
    cpSync(from, to, { recursive: true, filter });
  };
  for (const name of ['bin', 'dist', 'package.json', 'LICENSE']) copy(join(root, name), join(lib, name));
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const runtime = Object.entries(lock.packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && dev !== true && devOptional !== true)
    .map(([path]) => path)
    // A package within another has come with it.
    .filter((path) => path.lastIndexOf('node_modules/') === 0 && existsSync(join(root, path)));
  for (const path of runtime) copy(join(root, path), join(lib, path), isRun);
  const share = join(tree, prefix, 'share');
  write(join(share, 'man/man1/xoauth2-relay.1.gz'), gzipSync(cli('manual')));
  write(join(share, 'bash-completion/completions/xoauth2-relay'), cli('completion', 'bash'));
  write(join(share, 'zsh/vendor-completions/_xoauth2-relay'), cli('completion', 'zsh'));
  const doc = join(share, 'doc/xoauth2-relay');
  for (const name of ['README.md', 'CHANGELOG.md', 'SECURITY.md']) copy(join(root, name), join(doc, name));
  write(join(doc, 'copyright'), readFileSync(join(root, 'LICENSE')));
  write(join(doc, 'examples/accounts.json'), readFileSync(join(root, 'accounts.example.json')));
  if (wrapper) {
    write(
      join(tree, prefix, 'bin/xoauth2-relay'),
      `#!/bin/sh\n# Commands speak of the service's accounts, unless told otherwise.\n: "\${XOAUTH2_RELAY_ACCOUNTS:=${ACCOUNTS}}"\nexport XOAUTH2_RELAY_ACCOUNTS\nexec node /${prefix}/lib/xoauth2-relay/bin/xoauth2-relay.js "$@"\n`,
      0o755,
    );
  } else {
    mkdirSync(join(tree, prefix, 'bin'), { recursive: true });
    symlinkSync('../lib/xoauth2-relay/bin/xoauth2-relay.js', join(tree, prefix, 'bin/xoauth2-relay'));
  }
}

/** The unit, for a program in `bin`, that waits until there are accounts. */
const unit = (bin) =>
  readFileSync(join(root, 'deploy/systemd/xoauth2-relay.service'), 'utf8')
    .replace(/^# \/etc\/systemd[\s\S]*?(?=^# "systemd-analyze)/m, '')
    .replace('/usr/local/bin/xoauth2-relay', `${bin}/xoauth2-relay`)
    .replace('\n[Service]', `\nConditionPathExists=${ACCOUNTS}\n\n[Service]`);

/** Maps, types and the builds for browsers are most of a package, and nothing of them runs. */
const isRun = (path) =>
  !/\.(?:map|d\.[cm]?ts)$|node_modules\/@opentelemetry\/[^/]+\/build\/(?:esm|esnext)$/.test(path);

function buildDeb(work) {
  const tree = join(work, 'deb');
  stage(tree, 'usr', { wrapper: true });
  write(join(tree, 'lib/systemd/system/xoauth2-relay.service'), unit('/usr/bin'));
  mkdirSync(join(tree, 'etc/xoauth2-relay'), { recursive: true });
  chmodSync(join(tree, 'etc/xoauth2-relay'), 0o700);
  const kilobytes = run('du', ['-sk', tree]).split('\t')[0];
  write(
    join(tree, 'DEBIAN/control'),
    `${[
      'Package: xoauth2-relay',
      `Version: ${version}`,
      'Architecture: all',
      `Maintainer: ${maintainer}`,
      `Installed-Size: ${kilobytes}`,
      'Depends: nodejs (>= 20.19)',
      'Recommends: ca-certificates',
      'Section: mail',
      'Priority: optional',
      `Description: ${description.replace(/ \(.*/, '')}`,
      ' Any mail server, application or device hands mail to it over SMTP on this',
      ' machine; it sends it through Gmail or Microsoft 365 with OAuth2 (XOAUTH2).',
    ].join('\n')}\n`,
  );
  for (const name of ['postinst', 'prerm', 'postrm'])
    write(join(tree, 'DEBIAN', name), readFileSync(join(deploy, name)), 0o755);
  const file = join(out, `xoauth2-relay_${version}_all.deb`);
  run('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', tree, file]);
  return file;
}

function buildTarball(work) {
  const name = `xoauth2-relay-${version}`;
  stage(join(work, name), '', { wrapper: false });
  write(join(work, name, 'lib/systemd/system/xoauth2-relay.service'), unit('/usr/local/bin'));
  const file = join(out, `${name}.tar.gz`);
  run('tar', ['--owner=0', '--group=0', '--sort=name', '-czf', file, '-C', work, name]);
  return file;
}

const work = mkdtempSync(join(tmpdir(), 'xoauth2-package-'));
try {
  if (!existsSync(join(root, 'dist/cli.js'))) throw new Error('dist is missing: npm run build');
  mkdirSync(out, { recursive: true });
  const made = [buildTarball(work)];
  if (has('dpkg-deb')) made.push(buildDeb(work));
  else console.error('left out: the .deb (needs dpkg-deb)');
  write(join(root, 'dist/xoauth2-relay.1'), cli('manual'));
  const packed = run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', out]).trim();
  made.push(join(out, packed.split('\n').at(-1)));
  if (process.platform === 'linux')
    made.push(
      writeImage(join(work, `xoauth2-relay-${version}`), join(out, `xoauth2-relay-${version}.oci.tar`), {
        work,
        version,
        description,
      }),
    );
  else console.error('left out: the image (needs Linux)');
  for (const file of made) console.log(file);
} finally {
  rmSync(work, { recursive: true, force: true });
}
