/** The pages of the repository: pictures are current, links lead somewhere, the first screen stays short. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { accountKeys, fillKeys } from '../src/commands/account-keys.ts';
import { formatReplyPage } from '../src/commands/reply-codes.ts';
import { repositoryRoot } from './support/relay-process.ts';

interface Script {
  parseSequence(source: string): { readonly lanes: readonly unknown[]; readonly steps: readonly unknown[] };
  drawSequence(sequence: unknown): string;
}

const read = (path: string): string => readFileSync(join(repositoryRoot, path), 'utf8');
const pages = [
  'README.md',
  'SECURITY.md',
  ...readdirSync(join(repositoryRoot, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

test('the picture of a message’s way is what `npm run diagram` draws of its source', async () => {
  const url = pathToFileURL(join(repositoryRoot, 'scripts/diagram.mjs')).href;
  const { parseSequence, drawSequence } = (await import(url)) as Script;
  const sequence = parseSequence(read('docs/way-of-a-message.txt'));
  assert(sequence.lanes.length >= 3 && sequence.steps.length >= 6);
  const drawn = drawSequence(sequence);
  assert.equal(read('docs/way-of-a-message.svg'), drawn);
  assert.match(drawn, /@media \(prefers-color-scheme: dark\)/);
  assert.throws(() => parseSequence('lane a A\nlane b B\na -> c nobody\n'), /line 3: no two lanes/);
  assert.throws(() => parseSequence('lane a A\nsomething else\n'), /line 2: cannot read/);
});

interface PerformanceScript {
  readonly PAGES: readonly { readonly path: string; readonly isShort: boolean }[];
  formatRun(run: unknown, form: { readonly isShort: boolean }): string;
  fillPage(page: string, text: string): string;
}

test('what README and docs say of performance is what `npm run performance` makes of a saved run', async () => {
  const url = pathToFileURL(join(repositoryRoot, 'scripts/performance.mjs')).href;
  const { PAGES, formatRun, fillPage } = (await import(url)) as PerformanceScript;
  const run = JSON.parse(read('docs/performance.json'));
  for (const { path, isShort } of PAGES)
    assert.equal(read(path), fillPage(read(path), formatRun(run, { isShort })), path);
  assert.throws(() => fillPage('a page', 'tables'), /no <!-- measured -->/);
});

test('README shows the diagram and one screenshot of modest size, in at most 280 lines', () => {
  const readme = read('README.md');
  const pictures = [...readme.matchAll(/!\[[^\]]+\]\(([^)]+)\)/g)].map(([, path = '']) => path);
  assert.deepEqual(pictures, ['docs/way-of-a-message.svg', 'docs/dashboard.png']);
  assert(statSync(join(repositoryRoot, 'docs/dashboard.png')).size < 150_000);
  assert(readme.split('\n').length <= 281);
});

/** As GitHub makes them of headings. */
const anchors = (page: string): ReadonlySet<string> =>
  new Set(
    [...read(page).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_ -]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );

for (const page of pages)
  test(`every link of ${page} leads to a file and a heading that are there`, () => {
    const prose = read(page).replace(/^```[\s\S]*?^```/gm, '');
    for (const [, target = ''] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path = '', anchor] = target.split('#');
      const file = path === '' ? page : join(dirname(page), path);
      assert(existsSync(join(repositoryRoot, file)), `${target}: no such file`);
      if (anchor !== undefined) assert(anchors(file).has(anchor), `${target}: no such heading`);
    }
  });

test('the index names every page of docs/', () => {
  const index = read('docs/README.md');
  for (const page of pages.filter((name) => name.startsWith('docs/') && name !== 'docs/README.md'))
    assert(index.includes(`](${page.slice('docs/'.length)})`), page);
});

test('docs/replies.md is the table of the manual page', () => {
  assert.equal(read('docs/replies.md'), formatReplyPage(), 'run: npm run replies');
});

test('docs/accounts.md has every key of the accounts file, and what the schema says of it', () => {
  assert.equal(read('docs/accounts.md'), fillKeys(read('docs/accounts.md')), 'run: npm run accounts');
  const { account, provider } = accountKeys();
  for (const { key, help } of [...account, ...provider]) {
    assert.match(read('docs/accounts.md'), new RegExp(`^\\| \`${key}\` \\| `, 'm'));
    assert.notEqual(help, '', `${key} says what it is for`);
  }
  assert(account.length > 40 && provider.length > 20);
});

test('every attack of docs/attacks.md is carried out by a test of that name, and the figures are its rows', () => {
  const rows = [...read('docs/attacks.md').matchAll(/^\| (.+) \| `([\w/-]+)` \| (.+) \|$/gm)];
  for (const [, attack = '', file = '', names = ''] of rows) {
    const source = read(`test/${file}.test.ts`);
    for (const name of names.split('; ')) assert.ok(source.includes(name), `${attack}: ${name}`);
  }
  for (const page of ['README.md', 'SECURITY.md'])
    assert.equal(/(\d+) classes of attack/.exec(read(page))?.[1], String(rows.length), page);
  const { attacks } = (JSON.parse(read('package.json')) as { scripts: Record<string, string> }).scripts;
  const files = new Set(rows.map(([, , file = '']) => file));
  assert.deepEqual(attacks?.split(' ').slice(2).sort(), [...files].sort());
});
