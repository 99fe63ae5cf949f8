/** `npm run dependencies`, see `HELP`. In: package.json, the lock file, the words below. Out: the page. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { readCommandLine } from './command-line.mjs';

const HELP = `npm run dependencies

Writes docs/dependencies.md from package.json and the lock file. Fails for a direct dependency that nobody has explained
in scripts/dependencies.mjs.
`;

/** What each direct dependency earns its place with. */
const PURPOSE = {
  '@opentelemetry/api': 'traces, loaded only where OTEL_EXPORTER_OTLP_ENDPOINT is set',
  '@opentelemetry/exporter-trace-otlp-http': 'traces, sent by OTLP/HTTP',
  '@opentelemetry/resources': 'traces, who sends them',
  '@opentelemetry/sdk-trace-base': 'traces, made and gathered',
  '@hono/node-server': 'HTTP server of the admin API and dashboard',
  commander: 'command line',
  'generic-pool': 'upstream connections per account',
  hono: 'routes of the admin API',
  jose: 'signed assertions for service accounts and certificates',
  nodemailer: 'opening and authenticating upstream connections; composing test messages',
  opossum: 'circuit breakers of endpoints',
  'openid-client': 'signing in: device code, browser with PKCE',
  pino: 'log',
  'prom-client': 'metrics',
  redis: 'shared token store and fleet limits',
  'smtp-server': 'wire of the listener',
  socks: 'SMTP through a SOCKS5 proxy',
  tinyqueue: 'which of thousands of accounts is due next',
  undici: 'token requests, through a proxy where one is set',
  uplot: 'charts of the dashboard',
  zod: 'settings, accounts file, API shapes',
};

/** Runtime packages that nobody keeps any more, and what to do about each. */
const UNKEPT = {
  'generic-pool':
    'no release for years. Small, without dependencies, and only `src/upstream/pool.ts` knows it. Proposal: keep while it works; replaced there at the first fault.',
  bintrees:
    'no release for years; under prom-client by way of tdigest, reached only by summaries, which the relay does not use. Proposal: none of ours; gone with a prom-client without it.',
  'atomic-sleep':
    'no release for years; under pino’s own file destination, which the relay does not use. Proposal: none.',
};

export function formatDependencies(manifest, lock) {
  const packages = lock.packages;
  const direct = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies });
  const isDirect = new Set(direct);
  const reasons = new Map();
  const resolve = (from, name) => {
    for (let place = from; ; place = place.slice(0, Math.max(0, place.lastIndexOf('/node_modules/')))) {
      const path = `${place === '' ? '' : `${place}/`}node_modules/${name}`;
      if (packages[path] !== undefined) return path;
      if (place === '') return undefined;
    }
  };
  const walk = (path, root, seen) => {
    if (path === undefined || seen.has(path)) return;
    seen.add(path);
    reasons.set(path, (reasons.get(path) ?? new Set()).add(root));
    const { dependencies = {}, optionalDependencies = {}, peerDependencies = {} } = packages[path];
    const optional = packages[path].peerDependenciesMeta ?? {};
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies }))
      walk(resolve(path, name), root, seen);
    for (const name of Object.keys(peerDependencies))
      if (optional[name]?.optional !== true) walk(resolve(path, name), root, seen);
  };
  for (const name of direct) walk(resolve('', name), name, new Set());
  const nameOf = (path) => path.slice(path.lastIndexOf('node_modules/') + 13);
  const rows = [...reasons.keys()]
    .sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1))
    .map((path) => {
      const name = nameOf(path);
      const { version, license = 'not stated' } = packages[path];
      const isOwn = isDirect.has(name) && path === `node_modules/${name}`;
      if (isOwn && PURPOSE[name] === undefined)
        throw new Error(`scripts/dependencies.mjs: say what ${name} is for`);
      const purpose = isOwn ? PURPOSE[name] : `under ${[...reasons.get(path)].sort().join(', ')}`;
      return { name, version, license, purpose, isOwn };
    });
  const table = (list) => [
    '| package | version | licence | what for |',
    '| --- | --- | --- | --- |',
    ...list.map((r) => `| ${r.name} | ${r.version} | ${r.license} | ${r.purpose} |`),
  ];
  const present = Object.entries(UNKEPT).filter(([name]) => rows.some((row) => row.name === name));
  return [
    '# Runtime dependencies',
    '',
    'Made by `npm run dependencies` from the lock file. `npm run sbom` prints the same as CycloneDX.',
    '',
    '## Asked for by the relay',
    '',
    ...table(rows.filter((row) => row.isOwn)),
    '',
    '## Brought along by these',
    '',
    ...table(rows.filter((row) => !row.isOwn)),
    '',
    '## Kept by nobody any more',
    '',
    ...present.map(([name, words]) => `- **${name}**: ${words}`),
    '',
  ].join('\n');
}

const root = fileURLToPath(new URL('../', import.meta.url));
export const readJson = (name) => JSON.parse(readFileSync(root + name, 'utf8'));
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  readCommandLine('dependencies', HELP);
  writeFileSync(
    `${root}docs/dependencies.md`,
    formatDependencies(readJson('package.json'), readJson('package-lock.json')),
  );
}
