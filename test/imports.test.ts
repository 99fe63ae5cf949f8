/** Holds the import table: which room may import which, and that each npm package has one owner. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { repositoryRoot } from './support/relay-process.ts';

/** Files beside the rooms that know none of them, at most the pure rules of protocol: whoever needs one imports it. */
const LEAVES: Record<string, readonly string[]> = {
  log: [],
  setting: [],
  semaphore: [],
  breaker: [],
  clock: [],
  'event-loop': [],
  slices: [],
  soon: [],
  'time-text': [],
  agenda: [],
  activity: [],
  'or-make': [],
  heap: [],
  'drop-oldest': [],
  // How an answer is kept small.
  http: ['protocol'],
  // What must not be told of a login.
  'http-proxy': ['protocol'],
  redis: [],
  'kept-state': [],
  'write-file': [],
  'unix-socket': [],
  directories: [],
  version: [],
};
/** A directory of src, or a file beside them. Each may import itself, the rooms named, and the leaves. */
const TABLE: Record<string, readonly string[]> = {
  ...LEAVES,
  closers: [],
  tracing: [],
  protocol: [],
  accounts: ['protocol'],
  tokens: ['protocol', 'accounts'],
  upstream: ['protocol', 'accounts', 'tokens'],
  relay: ['protocol', 'accounts', 'upstream'],
  listener: ['protocol', 'accounts', 'relay'],
  // Beyond the pure rules of protocol types only, see below: the narrow interfaces it needs are its own.
  admin: ['protocol'],
  // What several relays agree on: the limiter of the relay, held over all of them.
  fleet: ['protocol', 'relay'],
  // What a listener can be told stands in its room.
  config: ['protocol', 'accounts', 'listener'],
  app: [
    'protocol',
    'accounts',
    'tokens',
    'upstream',
    'relay',
    'listener',
    'admin',
    'programs',
    'config',
    'app-admin',
    'app-view',
    'app-state',
    'app-accounts',
    'app-sign-ins',
    'app-trial',
    'app-warm-up',
    'app-ways',
    'closers',
  ],
  // Sign-in and proof of an account: the one room beside the command line that a person talks to.
  enrol: ['protocol', 'accounts', 'tokens', 'upstream'],
  // Tokens for programs beside the relay: of tokens the seam alone.
  programs: ['protocol', 'accounts', 'tokens'],
  'app-sign-ins': ['protocol', 'accounts', 'tokens', 'enrol', 'config', 'admin'],
  'app-trial': [],
  'app-warm-up': ['tokens', 'upstream'],
  'app-accounts': ['accounts', 'tokens', 'upstream', 'listener', 'admin'],
  'app-state': ['config', 'fleet', 'relay', 'upstream'],
  'app-admin': ['admin', 'config', 'tracing'],
  'app-ways': ['protocol', 'config', 'tokens', 'upstream', 'admin'],
  'app-view': ['protocol', 'accounts', 'tokens', 'upstream', 'relay', 'listener', 'admin', 'fleet'],
  // Of admin the shapes: what its client reads is what the relay answers. Of listener and relay the rule whose mail it is.
  commands: [
    'protocol',
    'accounts',
    'tokens',
    'relay',
    'listener',
    'enrol',
    'programs',
    'config',
    'app',
    'admin',
  ],
  cli: ['accounts', 'config', 'commands', 'enrol', 'tokens'],
};
/** Rooms that must never see a credential: of tokens only the seam is theirs. */
const WITHOUT_CREDENTIALS = ['upstream', 'relay', 'listener', 'admin', 'programs'];
const TOKEN_SEAM = 'tokens/access-token.ts';

/** Packages that have more than one owner, and why that is right. */
const SHARED: Record<string, readonly string[]> = {
  // Settings, the accounts file and the admin API are each described where they are declared.
  zod: ['accounts/schema.ts', 'setting.ts', 'config/settings.ts', 'listener/options.ts', 'admin/shapes.ts'],
  // Connections are one thing, composing a test message another, reading address lists a third.
  nodemailer: ['upstream/nodemailer-seam.ts', 'commands/send.ts', 'protocol/address-list.ts'],
  // Token forms have redirects, limits and judgements of their own.
  undici: ['http.ts', 'http-proxy.ts', 'tokens/http-post.ts'],
};

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

const source = join(repositoryRoot, 'src');
const STATEMENT =
  /^\s*(?:import|export)\s+(type\s)?[^'";]*?from\s+'([^']+)'|^\s*import\s+'([^']+)'|import\('([^']+)'\)/gm;

const files = readdirSync(source, { recursive: true })
  .map(String)
  .filter((path) => path.endsWith('.ts'));
const imports: Import[] = files.flatMap((from) =>
  [...readFileSync(join(source, from), 'utf8').matchAll(STATEMENT)].map((match) => ({
    from,
    to: match[2] ?? match[3] ?? match[4] ?? '',
    typeOnly: match[1] !== undefined,
  })),
);
const roomOf = (path: string): string => path.split('/')[0]?.replace(/\.ts$/, '') ?? '';
const inside = imports
  .filter((i) => i.to.startsWith('.'))
  .map((i) => ({ ...i, to: relative(source, join(source, dirname(i.from), i.to)) }));

test('the parser of imports sees them', () => {
  assert.ok(
    inside.some((i) => i.from === 'accounts/directory.ts' && i.to === 'accounts/account.ts' && i.typeOnly),
  );
  assert.ok(imports.some((i) => i.from === 'log.ts' && i.to === 'pino' && !i.typeOnly));
});

test('rooms import only in the direction of the table', () => {
  const wrong = inside.filter(({ from, to, typeOnly }) => {
    const [room, target] = [roomOf(from), roomOf(to)];
    if (room === target || Object.hasOwn(LEAVES, target)) return false;
    if (room === 'admin' && typeOnly) return false;
    return !(TABLE[room] ?? []).includes(target);
  });
  assert.deepEqual(
    wrong.map((i) => `${i.from} imports ${i.to}`),
    [],
  );
  assert.deepEqual(
    [...new Set(files.map(roomOf))].filter((room) => TABLE[room] === undefined),
    [],
  );
});

test('each permission of the table is used, and each leaf', () => {
  const isUsed = (room: string, target: string): boolean =>
    inside.some(
      ({ from, to, typeOnly }) =>
        roomOf(from) === room && roomOf(to) === target && !(room === 'admin' && typeOnly),
    );
  assert.deepEqual(
    Object.entries(TABLE).flatMap(([room, targets]) =>
      targets.filter((target) => !isUsed(room, target)).map((target) => `${room} may import ${target}`),
    ),
    [],
  );
  assert.deepEqual(
    Object.keys(LEAVES).filter(
      (leaf) => !Object.keys(TABLE).some((room) => room !== leaf && isUsed(room, leaf)),
    ),
    [],
  );
});

test('no files import one another in a circle, types included', () => {
  const imported = new Map(
    files.map((path) => [path, inside.filter((i) => i.from === path).map((i) => i.to)]),
  );
  const done = new Set<string>();
  const circle = (path: string, way: readonly string[]): readonly string[] | undefined => {
    if (way.includes(path)) return [...way.slice(way.indexOf(path)), path];
    if (done.has(path)) return undefined;
    for (const next of imported.get(path) ?? []) {
      const found = circle(next, [...way, path]);
      if (found !== undefined) return found;
    }
    done.add(path);
    return undefined;
  };
  assert.deepEqual(
    files.map((path) => circle(path, [])).filter((found) => found !== undefined),
    [],
  );
});

test('no file is longer than one owner can hold, and a file name stands for one thing', () => {
  const tooLong = files.filter((path) => readFileSync(join(source, path), 'utf8').split('\n').length > 401);
  assert.deepEqual(tooLong, [], 'divide it: a file has at most 400 lines');
  const names = files.map((path) => path.split('/').at(-1));
  assert.deepEqual(
    files.filter(
      (path) => names.indexOf(path.split('/').at(-1)) !== names.lastIndexOf(path.split('/').at(-1)),
    ),
    [],
  );
});

test('no credential is visible to upstream, relay, listener and admin', () => {
  const wrong = inside.filter(
    ({ from, to }) =>
      WITHOUT_CREDENTIALS.includes(roomOf(from)) &&
      (to === 'accounts/credential.ts' || (roomOf(to) === 'tokens' && to !== TOKEN_SEAM)),
  );
  assert.deepEqual(
    wrong.map((i) => `${i.from} imports ${i.to}`),
    [],
  );
});

test('each npm package is imported by one file', () => {
  const owners = new Map<string, Set<string>>();
  for (const { from, to } of imports) {
    if (to.startsWith('.') || to.startsWith('node:')) continue;
    const name = to
      .split('/')
      .slice(0, to.startsWith('@') ? 2 : 1)
      .join('/');
    owners.set(name, (owners.get(name) ?? new Set()).add(from));
  }
  const shared = [...owners].filter(
    ([name, of]) => of.size > 1 && [...of].some((file) => !SHARED[name]?.includes(file)),
  );
  assert.deepEqual(
    shared.map(([name, of]) => `${name}: ${[...of].join(', ')}`),
    [],
  );
});
