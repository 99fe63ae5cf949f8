/**
 * Makes a fresh clone runnable: npm packages, build, Debian packages of the system tests. Plain
 * JavaScript without dependencies, because it runs before any of them is there.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../', import.meta.url));
const eximRoot = join(root, 'build/exim');
const nullmailerRoot = join(root, 'build/nullmailer');
const dmaRoot = join(root, 'build/dma');

/** Runs a command; its output is shown only when it fails. */
function quietly(command, args, options = {}) {
  const done = spawnSync(command, args, { cwd: root, encoding: 'utf8', ...options });
  if (done.status === 0) return done.stdout;
  process.stderr.write(`${done.stdout ?? ''}${done.stderr ?? ''}${done.error ?? ''}\n`);
  throw new Error(`${command} ${args.join(' ')} failed`);
}

export function installNpmPackages() {
  if (existsSync(join(root, 'node_modules/typescript'))) return;
  console.log('installing npm packages (npm ci)');
  // prepare would build dist; build() does that.
  quietly('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts']);
}

/** Compiles src to dist, src and test to build. */
export function build() {
  // Compiled tests of sources that are gone must not run.
  for (const stale of ['src', 'test']) rmSync(join(root, 'build', stale), { recursive: true, force: true });
  for (const script of ['build', 'build:test']) quietly('npm', ['run', '-s', script]);
}

const onPath = (program) =>
  [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin', '/sbin'].some((d) =>
    existsSync(join(d, program)),
  );

function pythonMinor() {
  const said = spawnSync('python3', ['-c', 'import sys; print(sys.version_info[1])'], { encoding: 'utf8' });
  return /^\d+$/m.exec(said.stdout ?? '')?.[0] ?? '11';
}

/** What a `// needs:` line may name, by program: where it comes from and whether it is there. */
const programs = {
  postfix: { package: 'postfix', present: () => onPath('postfix') },
  swaks: { package: 'swaks', present: () => onPath('swaks') },
  'redis-server': { package: 'redis-server', present: () => onPath('redis-server') },
  chromium: { package: 'chromium', present: () => onPath('chromium') },
  promtool: { package: 'prometheus', present: () => onPath('promtool') },
  kubectl: { package: 'kubernetes-client', present: () => onPath('kubectl') },
  haproxy: { package: 'haproxy', present: () => onPath('haproxy') },
  zsh: { package: 'zsh', present: () => onPath('zsh') },
  msmtp: { package: 'msmtp', present: () => onPath('msmtp') },
  mbsync: { package: 'isync', present: () => onPath('mbsync') },
  microsocks: { package: 'microsocks', present: () => onPath('microsocks') },
  tinyproxy: { package: 'tinyproxy', present: () => onPath('tinyproxy') },
  neomutt: { package: 'neomutt', present: () => onPath('neomutt') },
  dovecot: { package: 'dovecot-imapd', present: () => onPath('dovecot') },
  git: { package: 'git', present: () => onPath('git') },
  'sasl-xoauth2': {
    package: 'libsasl2-modules-kdexoauth2',
    present: () => readdirSync('/usr/lib').some((d) => existsSync(`/usr/lib/${d}/sasl2/libkdexoauth2.so`)),
  },
  openssl: { package: 'openssl', present: () => onPath('openssl') },
  'systemd-analyze': { package: 'systemd', present: () => onPath('systemd-analyze') },
  'sasl-plain': {
    package: 'libsasl2-modules',
    present: () => readdirSync('/usr/lib').some((d) => existsSync(`/usr/lib/${d}/sasl2/libplain.so`)),
  },
  'swaks-tls': {
    package: 'libnet-ssleay-perl',
    present: () => spawnSync('perl', ['-MNet::SSLeay', '-e', '1']).status === 0,
  },
  's-nail': { package: 's-nail', present: () => onPath('s-nail') },
  'bsd-mailx': { package: 'bsd-mailx', present: () => onPath('bsd-mailx') },
  curl: { package: 'curl', present: () => onPath('curl') },
  python3: { package: 'python3', present: () => onPath('python3') },
  php: { package: 'php-cli', present: () => onPath('php') },
  // Libraries that applications send by: docs/applications.md.
  phpmailer: {
    package: 'libphp-phpmailer',
    present: () => existsSync('/usr/share/php/libphp-phpmailer/autoload.php'),
  },
  'symfony-mailer': {
    package: 'php-symfony-mailer',
    present: () => existsSync('/usr/share/php/Symfony/Component/Mailer/autoload.php'),
  },
  aiosmtplib: {
    package: 'python3-aiosmtplib',
    present: () => existsSync('/usr/lib/python3/dist-packages/aiosmtplib'),
  },
  'ruby-mail': { package: 'ruby-mail', present: () => spawnSync('ruby', ['-rmail', '-e', '1']).status === 0 },
  go: { package: 'golang-go', present: () => onPath('go') },
  'go-mail': {
    package: 'golang-gopkg-mail.v2-dev',
    present: () => existsSync('/usr/share/gocode/src/gopkg.in/mail.v2'),
  },
  perl: { package: 'perl', present: () => spawnSync('perl', ['-MNet::SMTP', '-e', '1']).status === 0 },
  // Messages odd enough to test mail programs with; whichever Python this Debian has.
  'odd-mail': {
    package: `libpython3.${pythonMinor()}-testsuite`,
    present: () => existsSync(`/usr/lib/python3.${pythonMinor()}/test/test_email/data`),
  },
  'sample-mail': {
    package: 'spamassassin',
    present: () => existsSync('/usr/share/doc/spamassassin/examples/sample-spam.txt'),
  },
  // These exclude Postfix as packages: unpacked beside, not installed.
  nullmailer: {
    package: undefined,
    present: () => existsSync(join(nullmailerRoot, 'usr/lib/nullmailer/smtp')),
  },
  'dpkg-deb': { package: 'dpkg', present: () => onPath('dpkg-deb') },
  dma: { package: undefined, present: () => existsSync(join(dmaRoot, 'usr/sbin/dma')) },
  exim: {
    package: undefined,
    present: () => onPath('exim4') || existsSync(join(eximRoot, 'usr/sbin/exim4')),
  },
};

/** The programs a compiled or source test names in its line `// needs: a, b`. */
export function needsOf(sourceFile) {
  const line = /^\/\/ needs: (.+)$/m.exec(readFileSync(sourceFile, 'utf8'));
  return line === null ? [] : line[1].split(',').map((name) => name.trim());
}

export function missingPrograms(names) {
  return [...new Set(names)].filter((name) => {
    const program = programs[name];
    if (program === undefined) throw new Error(`"needs: ${name}" is not a program test/prepare.mjs knows`);
    return !program.present();
  });
}

/** Installs what is missing where that is possible: as root on Debian or its kin. */
export function installSystemPackages(names) {
  const missing = missingPrograms(names);
  if (missing.length === 0 || process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return;
  const packages = missing.map((name) => programs[name].package).filter((name) => name !== undefined);
  try {
    if (packages.length > 0) withoutServices(() => aptInstall(packages));
    // Postfix takes away another MTA that was there.
    const beside = missingPrograms(names);
    if (beside.includes('exim')) unpackExim();
    if (beside.includes('nullmailer')) unpack('nullmailer', nullmailerRoot);
    if (beside.includes('dma')) unpack('dma', dmaRoot);
  } catch (error) {
    console.log(`not everything could be installed: ${error.message}`);
  }
}

const aptEnv = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };

/** The first try uses the lists at hand; a fresh machine has none or stale ones. */
function apt(args, options = {}) {
  const run = () => spawnSync('apt-get', args, { cwd: root, encoding: 'utf8', env: aptEnv, ...options });
  if (run().status === 0) return;
  quietly('apt-get', ['update', '-q'], { env: aptEnv });
  quietly('apt-get', args, { env: aptEnv, ...options });
}

function aptInstall(packages) {
  console.log(`installing Debian packages: ${packages.join(' ')}`);
  if (packages.includes('postfix') && onPath('debconf-set-selections')) {
    quietly('debconf-set-selections', [], { input: 'postfix postfix/main_mailer_type select Local only\n' });
  }
  apt(['install', '-y', '-q', '--no-install-recommends', ...packages]);
}

/** policy-rc.d keeps packages from starting their services while `install` runs. */
function withoutServices(install) {
  const policy = '/usr/sbin/policy-rc.d';
  const ours = !existsSync(policy);
  if (ours) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    install();
  } finally {
    if (ours) rmSync(policy, { force: true });
  }
}

function unpack(name, place) {
  console.log(`unpacking ${name} beside Postfix`);
  const downloads = join(root, 'build/debs');
  mkdirSync(downloads, { recursive: true });
  apt(['download', '-q', name], { cwd: downloads });
  mkdirSync(place, { recursive: true });
  for (const file of readdirSync(downloads))
    if (file.startsWith(`${name}_`)) execFileSync('dpkg', ['-x', join(downloads, file), place]);
}

function unpackExim() {
  console.log('unpacking exim4-daemon-light beside Postfix');
  const downloads = join(root, 'build/debs');
  mkdirSync(downloads, { recursive: true });
  apt(['download', '-q', 'exim4-daemon-light', 'exim4-base'], { cwd: downloads });
  mkdirSync(eximRoot, { recursive: true });
  for (const file of readdirSync(downloads)) {
    if (file.startsWith('exim4-')) execFileSync('dpkg', ['-x', join(downloads, file), eximRoot]);
  }
  const linked = spawnSync('ldd', [join(eximRoot, 'usr/sbin/exim4')], { encoding: 'utf8' }).stdout ?? '';
  if (linked.includes('not found')) {
    const depends = quietly('apt-cache', ['depends', 'exim4-daemon-light']);
    const libraries = [...depends.matchAll(/^ {2}Depends: (lib\S+)$/gm)].map((m) => m[1]);
    withoutServices(() => aptInstall(libraries));
  }
}
