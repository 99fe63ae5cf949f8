/** docs/dependencies.md says what the lock file says. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { repositoryRoot } from './support/relay-process.ts';

interface Script {
  formatDependencies(manifest: unknown, lock: unknown): string;
  readJson(name: string): {
    dependencies: Record<string, string>;
    packages: Record<string, { dev?: boolean }>;
  };
}

test('the page of dependencies is what `npm run dependencies` makes', async () => {
  const url = pathToFileURL(join(repositoryRoot, 'scripts/dependencies.mjs')).href;
  const { formatDependencies, readJson } = (await import(url)) as Script;
  const [manifest, lock] = [readJson('package.json'), readJson('package-lock.json')];
  const page = formatDependencies(manifest, lock);
  assert.equal(readFileSync(join(repositoryRoot, 'docs/dependencies.md'), 'utf8'), page);
  const runtime = Object.entries(lock.packages).filter(([path, facts]) => path !== '' && facts.dev !== true);
  for (const [path] of runtime)
    assert(page.includes(`| ${path.slice(path.lastIndexOf('node_modules/') + 13)} |`), path);
  assert.throws(
    () =>
      formatDependencies(
        { dependencies: { unexplained: '1' } },
        { packages: { 'node_modules/unexplained': { version: '1' } } },
      ),
    /say what unexplained is for/,
  );
});
