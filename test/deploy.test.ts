/** The image and compose file, as far as they can be judged without an engine. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { SETTINGS, settingVariable } from '../src/config/settings.ts';
import { repositoryRoot } from './support/relay-process.ts';

const read = (path: string): string => readFileSync(join(repositoryRoot, path), 'utf8');
const COMPOSE_FILES = ['deploy/docker/compose.yaml', 'deploy/docker/compose.uptime-kuma.yaml'];
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

for (const path of ['deploy/docker/Dockerfile', ...COMPOSE_FILES, 'deploy/systemd/xoauth2-relay.service'])
  test(`${path} names only settings that exist`, () => {
    const named = [...read(path).matchAll(/XOAUTH2_RELAY_[A-Z_]+/g)].map(([name]) => name);
    assert(named.length > 0);
    for (const name of named.filter((n) => !n.endsWith('_'))) assert(variables.has(name), name);
  });

interface Compose {
  readonly services: Readonly<
    Record<
      string,
      {
        image?: string;
        build?: { context: string; dockerfile: string };
        environment?: Record<string, string>;
        secrets?: readonly string[];
        volumes?: readonly string[];
        networks?: readonly string[];
        depends_on?: Record<string, unknown>;
        ports?: readonly string[];
      }
    >
  >;
  readonly networks: Readonly<Record<string, { ipam: { config: readonly { subnet: string }[] } }>>;
  readonly volumes: Readonly<Record<string, unknown>>;
  readonly secrets: Readonly<Record<string, { file: string }>>;
}

for (const path of COMPOSE_FILES)
  test(`${path} is whole: what services name is there, and the relay takes mail of its network alone`, () => {
    const { services, networks, volumes, secrets } = parse(read(path)) as Compose;
    for (const [name, service] of Object.entries(services)) {
      assert(service.build !== undefined || /:\d/.test(service.image ?? ''), `${name}: pinned image`);
      for (const secret of service.secrets ?? []) assert(secrets[secret], `${name}: secret ${secret}`);
      for (const network of service.networks ?? []) assert(networks[network], `${name}: network ${network}`);
      for (const other of Object.keys(service.depends_on ?? {})) assert(services[other], `${name}: ${other}`);
      for (const volume of service.volumes ?? [])
        assert((volume.split(':')[0] ?? '') in volumes, `${name}: volume ${volume}`);
      for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:/, `${name}: ${port}`);
    }
    const { relay } = services;
    const build = join(repositoryRoot, path, '..', relay?.build?.context ?? '');
    assert(existsSync(join(build, relay?.build?.dockerfile ?? '')));
    assert.equal(relay?.environment?.XOAUTH2_RELAY_ALLOW, networks.mail?.ipam.config[0]?.subnet);
    const own = Object.entries(relay?.environment ?? {}).filter(([, value]) =>
      value.startsWith('/run/secrets/'),
    );
    assert(own.length > 0);
    for (const [name, value] of own)
      assert(relay?.secrets?.includes(value.slice('/run/secrets/'.length)), `${name}: ${value}`);
  });
