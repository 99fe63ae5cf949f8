/** The image and compose file, as far as they can be judged without an engine. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { SETTINGS, settingVariable } from '../src/config/settings.ts';
import { repositoryRoot } from './support/relay-process.ts';

const read = (path: string): string => readFileSync(join(repositoryRoot, path), 'utf8');
const dockerfile = read('deploy/docker/Dockerfile').replace(/\\\n\s*/g, ' ');
const variables = new Set(
  Object.keys(SETTINGS).flatMap((name) => [settingVariable(name), `${settingVariable(name)}_FILE`]),
);

test('the image copies what is there and its build context lets it through', () => {
  const ignored = read('deploy/docker/Dockerfile.dockerignore').split('\n');
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(
    ([, paths]) => paths?.split(' ') ?? [],
  );
  assert(copied.length >= 5);
  for (const path of copied) {
    assert(existsSync(join(repositoryRoot, path)), path);
    assert(ignored.includes(`!${path}`), `${path} in .dockerignore`);
  }
});

test('the image runs pinned, unprivileged, with a health check and a stop signal', () => {
  for (const [, image] of dockerfile.matchAll(/^FROM (\S+)/gm)) assert.match(image ?? '', /:\d+-\w+/);
  const last = dockerfile.slice(dockerfile.lastIndexOf('\nFROM '));
  const [, user] = /^USER (\S+)$/m.exec(last) ?? [];
  assert.equal(user, 'node');
  assert(last.indexOf('USER node') < last.indexOf('ENTRYPOINT'));
  assert.match(last, /^HEALTHCHECK .*\/healthz/m);
  assert.match(last, /^STOPSIGNAL SIGTERM$/m);
  assert.match(last, /^ENTRYPOINT \["node"/m);
  assert.doesNotMatch(dockerfile, /^ADD |sudo|curl|:latest/m);
});

for (const path of [
  'deploy/docker/Dockerfile',
  'deploy/docker/compose.yaml',
  'deploy/systemd/xoauth2-relay.service',
])
  test(`${path} names only settings that exist`, () => {
    const named = [...read(path).matchAll(/XOAUTH2_RELAY_[A-Z_]+/g)].map(([name]) => name);
    assert(named.length > 0);
    for (const name of named.filter((n) => !n.endsWith('_'))) assert(variables.has(name), name);
  });
