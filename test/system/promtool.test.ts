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
  const backend = createFakeAdminBackend([
    { email: 'ann@example.com', tokenLifeS: 1800, busy: 1 },
    { email: 'bob@example.com', tokenLifeS: 900, status: 'needs_consent' },
  ]);
  backend.breakerRows = [
    { name: 'x', kind: 'upstream', state: 'open', failures: 1, opened_at: null, retry_at: null },
    { name: 'y', kind: 'token_endpoint', state: 'closed', failures: 0, opened_at: null, retry_at: null },
  ];
  const metrics = createMetrics(backend, { version: '9.9.9' });
  for (const account of ['ann@example.com', 'bob@example.com']) {
    metrics.recordTransaction(fakeRecord({ account, replayed: true, chosenBy: 'room' }));
    metrics.recordTransaction(fakeRecord({ account, chosenBy: 'preference' }));
    for (const result of ['other', 'none'] as const) metrics.observePassedOver(account, result);
  }
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

interface Target {
  readonly type: string;
  readonly expr: string;
  /** What a line is called: text and `{{label}}`s. */
  readonly legend: string;
}

/** Every expression of the Grafana dashboard, with what stands for its variables. */
function targets(): Target[] {
  const dashboard = JSON.parse(readFileSync(join(root, 'deploy/grafana/xoauth2-relay.json'), 'utf8')) as {
    panels: { type: string; targets: { expr: string; legendFormat?: string }[] }[];
  };
  return dashboard.panels.flatMap(({ type, targets: of }) =>
    of.map(({ expr, legendFormat = '' }) => ({
      type,
      legend: legendFormat,
      expr: expr.replaceAll('$__rate_interval', '5m').replaceAll(/\$(instance|account)/g, '.*'),
    })),
  );
}

/** The exposition as series that were scraped every minute for a quarter of an hour; counters grow. */
function scraped(exposed: string): string {
  const kinds = new Map([...exposed.matchAll(/^# TYPE (\S+) (\S+)/gm)].map(([, name, kind]) => [name, kind]));
  return exposed
    .split('\n')
    .flatMap((line) => {
      const [, name = '', labels = '', value = ''] = /^([a-z]\w*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      if (name === '' || !Number.isFinite(Number(value))) return [];
      const kind = kinds.get(name) ?? kinds.get(name.replace(/_(?:bucket|sum|count)$/, ''));
      const series = `${name}{${labels}${labels === '' ? '' : ','}instance="relay:9090",job="xoauth2-relay"}`;
      const values = kind === 'gauge' ? `${value}x15` : `${value}+${value}x15`;
      return [`      - { series: ${JSON.stringify(series)}, values: ${JSON.stringify(values)} }`];
    })
    .join('\n');
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

  it('gets a value for every expression of the Grafana dashboard, and each line a name of its own', () => {
    const tests = targets().flatMap(({ type, expr, legend }) => [
      `count(${expr}) > bool 0`,
      // What names the lines tells them apart; rows of a table show all labels.
      ...(type === 'table'
        ? []
        : [
            `count(${expr}) == bool count(count by (${[...legend.matchAll(/\{\{(\w+)\}\}/g)].map(([, l]) => l).join()}) (${expr}))`,
          ]),
    ]);
    const lines = tests.map(
      (expr) =>
        `      - { expr: ${JSON.stringify(expr)}, eval_time: 15m, exp_samples: [{ labels: '{}', value: 1 }] }`,
    );
    assert.ok(lines.length > 20);
    const file = join(dir, 'panels.yml');
    writeFileSync(
      file,
      `tests:\n  - interval: 1m\n    input_series:\n${scraped(exposed)}\n    promql_expr_test:\n${lines.join('\n')}\n`,
    );
    promtool(['test', 'rules', file]);
  });

  it('finds no rule or panel that asks for a metric the relay does not have', () => {
    const offered = new Set(namesIn(exposed));
    const asked = namesIn(
      `${readFileSync(rulesFile, 'utf8')}\n${targets()
        .map(({ expr }) => expr)
        .join('\n')}`,
    );
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
