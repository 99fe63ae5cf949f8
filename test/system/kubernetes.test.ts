// needs: kubectl
/** The manifests of deploy/kubernetes: built by kustomize, judged by the schemas of the Kubernetes API. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { SETTINGS, settingVariable } from '../../src/config/settings.ts';
import { repositoryRoot } from '../support/relay-process.ts';

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec?: Record<string, unknown>;
}

const place = join(repositoryRoot, 'deploy/kubernetes');

function built(): readonly Manifest[] {
  const directory = mkdtempSync(join(tmpdir(), 'kustomize-'));
  try {
    cpSync(place, directory, { recursive: true });
    const ignored = readFileSync(join(place, '.gitignore'), 'utf8').trim().split('\n');
    for (const name of ignored) writeFileSync(join(directory, name), 'x');
    const text = execFileSync('kubectl', ['kustomize', directory], { encoding: 'utf8' });
    return parseAllDocuments(text).map((document) => document.toJS() as Manifest);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Throws with what the API server would say. */
async function validate(manifest: Manifest): Promise<void> {
  const { apiVersion, kind } = manifest;
  const { [kind]: Model } = (await import(`kubernetes-models/${apiVersion}/${kind}`)) as Record<
    string,
    new (
      body: object,
    ) => { validate(): void }
  >;
  assert.ok(Model, `${apiVersion} ${kind}`);
  const { apiVersion: _v, kind: _k, ...body } = manifest;
  new Model(body).validate();
}

test('kustomize builds the manifests and every one fits the schema of its kind', async () => {
  const manifests = built();
  assert.deepEqual(
    manifests.map((m) => `${m.kind}/${m.metadata.name.replace(/-[a-z0-9]{10}$/, '')}`).sort(),
    [
      'Deployment/relay',
      'Namespace/xoauth2-relay',
      'NetworkPolicy/redis',
      'NetworkPolicy/relay',
      'PodDisruptionBudget/relay',
      'Secret/relay-secrets',
      'Service/redis',
      'Service/relay',
      'StatefulSet/redis',
    ],
  );
  for (const manifest of manifests) await validate(manifest);
});

test('the validator refuses what the API would refuse', async () => {
  const deployment = built().find((m) => m.kind === 'Deployment');
  assert.ok(deployment);
  await assert.rejects(
    validate({ ...deployment, spec: { ...deployment.spec, replicas: 'two' } }),
    /replicas/,
  );
  await assert.rejects(validate({ ...deployment, spec: { replicas: 1 } }), /selector|template/);
});

test('the relay gets settings that exist, time to drain, a token-less probe and no rights', () => {
  const text = readFileSync(join(place, 'deployment.yaml'), 'utf8');
  const variables = new Set(
    Object.keys(SETTINGS).flatMap((name) => [settingVariable(name), `${settingVariable(name)}_FILE`]),
  );
  const named = [...text.matchAll(/XOAUTH2_RELAY_[A-Z_]+/g)].map(([name]) => name);
  assert.ok(named.length >= 8);
  for (const name of named) assert.ok(variables.has(name), name);
  const grace = Number(/terminationGracePeriodSeconds: (\d+)/.exec(text)?.[1]);
  const sleep = Number(/\["sleep", "(\d+)"\]/.exec(text)?.[1]);
  const deadline = SETTINGS.stopDeadlineMs.fallback / 1000;
  assert.ok(grace > sleep + deadline, 'the pod is not killed while it drains');
  assert.match(text, /readOnlyRootFilesystem: true/);
  assert.match(text, /drop: \["ALL"\]/);
  assert.match(text, /readinessProbe:\s+httpGet:\s+path: \/readyz/);
});
