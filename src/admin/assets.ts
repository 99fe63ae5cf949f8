/** The dashboard's files and the page on troubles, read once. Out: path → body, type and validator. uPlot comes from its package. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { formatTroubleshootingPage } from './troubleshooting.ts';

export interface Asset {
  readonly body: Buffer;
  readonly contentType: string;
  readonly etag: string;
}

const TYPES = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
} as const;

const TYPE_NAMES = Object.keys(TYPES) as (keyof typeof TYPES)[];

interface File {
  readonly read: () => Buffer;
  readonly type: keyof typeof TYPES;
}

/** Files that are a page. */
const PAGES: Readonly<Record<string, string>> = { 'index.html': '/', 'sign-in.html': '/sign-in' };

const HERE = new URL('./dashboard/', import.meta.url);

const onDisk = (url: URL, type: keyof typeof TYPES): File => ({ read: () => readFileSync(url), type });

/** The page's own files: all in the build's folder, so a new module needs no list. No path is ever built from a request. */
function ownFiles(): (readonly [string, File])[] {
  const names = existsSync(HERE) ? readdirSync(HERE) : [];
  return names.flatMap((name) => {
    const type = TYPE_NAMES.find((t) => name.endsWith(`.${t}`));
    if (type === undefined) return [];
    const path = PAGES[name] ?? `/assets/${name}`;
    return [[path, onDisk(new URL(name, HERE), type)] as const];
  });
}

const uplotFile = (name: string): URL => new URL(`./${name}`, import.meta.resolve('uplot'));

/** Looks an asset up; undefined for an unknown path. Read once, at the first request. */
export function createAssets(): (path: string) => Asset | undefined {
  const loaded = new Map<string, Asset>();
  const files = new Map<string, File>([
    ...ownFiles(),
    // What the page shares with the server; compiled beside it.
    ...['/protocol/vocabulary.js', '/or-make.js'].map(
      (path) => [path, onDisk(new URL(`..${path}`, import.meta.url), 'js')] as const,
    ),
    // Where the page's causes lead.
    ['/troubleshooting', { read: () => Buffer.from(formatTroubleshootingPage()), type: 'html' }],
    ['/assets/uplot.js', onDisk(uplotFile('uPlot.esm.js'), 'js')],
    ['/assets/uplot.css', onDisk(uplotFile('uPlot.min.css'), 'css')],
  ]);
  return (path) => {
    const known = loaded.get(path);
    if (known !== undefined) return known;
    const file = files.get(path);
    if (file === undefined) return undefined;
    const body = file.read();
    const asset = {
      body,
      contentType: TYPES[file.type],
      etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 20)}"`,
    };
    loaded.set(path, asset);
    return asset;
  };
}
