/** `npm run performance`, see `HELP`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { readCommandLine } from './command-line.mjs';

const HELP = `npm run performance

Writes what "npm run bench -- --save docs/performance.json" (and "… scale --save …") measured into README.md and
docs/performance.md, between their marks.
`;

const root = new URL('..', import.meta.url);
const START = '<!-- measured -->';
const END = '<!-- /measured -->';
/** Of the tables those that the README shows, by the beginning of their title. */
const IN_README = ['CPU', 'Relays', 'Time of', 'Many accounts'];

const isNumber = (cell) => /^[±+-]?[\d.,]/.test(cell);

function formatTable({ title, rows: [head, ...rows] }) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const rule = head.map((_, i) =>
    i > 0 && rows.every((row) => row[i] === '' || isNumber(row[i])) ? '--:' : '---',
  );
  return [`${title}:`, '', line(head), line(rule), ...rows.map(line)].join('\n');
}

/** Markdown of the tables of a saved run. */
export function formatRun(run, { isShort }) {
  const tables = run.tables.filter(
    ({ title }) => !isShort || IN_README.some((beginning) => title.startsWith(beginning)),
  );
  const missing = isShort ? [] : run.absent.map((each) => `Left out: ${each}.`);
  return [`${run.machine}, Node ${run.node}.`, ...tables.map(formatTable), ...missing].join('\n\n');
}

/** `page` with what stands between its marks replaced. */
export function fillPage(page, text) {
  const start = page.indexOf(START);
  const end = page.indexOf(END);
  if (start < 0 || end < start) throw new Error(`no ${START} … ${END}`);
  return `${page.slice(0, start + START.length)}\n${text}\n${page.slice(end)}`;
}

/** The pages with measured tables, and whether they have the short form. */
export const PAGES = [
  { path: 'README.md', isShort: true },
  { path: 'docs/performance.md', isShort: false },
];

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  readCommandLine('performance', HELP);
  const run = JSON.parse(readFileSync(new URL('docs/performance.json', root), 'utf8'));
  for (const { path, isShort } of PAGES) {
    const file = new URL(path, root);
    writeFileSync(file, fillPage(readFileSync(file, 'utf8'), formatRun(run, { isShort })));
  }
}
