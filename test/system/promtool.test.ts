// needs: promtool
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createMetrics } from '../../src/admin/metrics.ts';
import { createFakeAdminBackend, fakeRecord } from '../support/fake-admin-backend.ts';

const root = join(import.meta.dirname, '../../..');
const rulesFile = join(root, 'deploy/prometheus/alerts.yml');

/** promtool's output; fails the test where its verdict is not `success`. */
function promtool(args: readonly string[], input?: string): string {
  const run = spawnSync('promtool', args, { encoding: 'utf8', ...(input === undefined ? {} : { input }) });
  assert.equal(run.status, 0, `${run.stdout}${run.stderr}`);
  return run.stdout;
}

/** An exposition in which every metric has a value. */
async function exposition(): Promise<string> {
  const backend = createFakeAdminBackend([{ email: 'ann@example.com', tokenLifeS: 1800, busy: 1 }]);
  backend.breakerRows = [
    { name: 'x', kind: 'upstream', state: 'open', failures: 1, opened_at: null, retry_at: null },
  ];
  const metrics = createMetrics(backend, { version: '9.9.9' });
  metrics.recordTransaction(fakeRecord({ replayed: true }));
  metrics.recordTransaction(fakeRecord({ outcome: 'aborted', flights: 0 }));
  metrics.observeRefresh({ account: 'a', provider: 'gmail', result: 'success', durationMs: 250 });
  metrics.observeLimit({ account: 'a', limit: 'messages_at_once', waitedMs: 100, refused: false });
  metrics.countAttention('needs_consent', 'gmail');
  metrics.countUnclear();
  let text = '';
  for await (const chunk of metrics.render()) text += chunk;
  return text;
}

/** Metric names an expression asks for. */
const namesIn = (text: string): string[] =>
  [...text.matchAll(/\b(?:xoauth2_relay|nodejs|process)_[a-z0-9_]+/g)].map(([name]) => name);

/** Every Grafana panel's expressions. */
function expressions(): string[] {
  const dashboard = JSON.parse(readFileSync(join(root, 'deploy/grafana/xoauth2-relay.json'), 'utf8')) as {
    panels: { targets: { expr: string }[] }[];
  };
  return dashboard.panels.flatMap((panel) => panel.targets.map((target) => target.expr));
}

describe('promtool', () => {
  let dir: string;
  let exposed: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'promtool-'));
    exposed = await exposition();
  });
  after(() => rmSync(dir, { recursive: true }));

  it('takes the exposition without a complaint', () => {
    const own = exposed
      .split('\n')
      .filter((line) => /^(# (HELP|TYPE) )?xoauth2_relay_/.test(line))
      .join('\n');
    assert.equal(promtool(['check', 'metrics'], `${own}\n`), '');
  });

  it('takes the alert rules and the scrape configuration', () => {
    promtool(['check', 'rules', rulesFile]);
    promtool(['check', 'config', join(root, 'deploy/prometheus/prometheus.yml')]);
  });

  it('sees each alert fire when it should and not before', () => {
    promtool(['test', 'rules', join(root, 'deploy/prometheus/alerts.test.yml')]);
  });

  it('can parse every expression of the Grafana dashboard', () => {
    const rules = expressions().map((expr, i) => {
      const plain = expr.replaceAll('$__rate_interval', '5m').replaceAll(/\$(instance|account)/g, '.*');
      return `      - { record: 'panel:${i}', expr: ${JSON.stringify(plain)} }`;
    });
    assert.ok(rules.length > 0);
    const file = join(dir, 'panels.yml');
    writeFileSync(file, `groups:\n  - name: panels\n    rules:\n${rules.join('\n')}\n`);
    promtool(['check', 'rules', file]);
  });

  it('finds no rule or panel that asks for a metric the relay does not have', () => {
    const offered = new Set(namesIn(exposed));
    const asked = namesIn(`${readFileSync(rulesFile, 'utf8')}\n${expressions().join('\n')}`);
    assert.ok(asked.length > 20);
    assert.deepEqual(
      [...new Set(asked)].filter((name) => !offered.has(name)),
      [],
    );
  });

  it('finds every metric of the relay in docs/admin.md', () => {
    const page = readFileSync(join(root, 'docs/admin.md'), 'utf8');
    const own = [...exposed.matchAll(/^# TYPE xoauth2_relay_([a-z0-9_]+)/gm)].map(([, name = '']) => name);
    assert.deepEqual(
      own.filter((name) => !page.includes(`\`${name}\``)),
      [],
    );
  });
});
