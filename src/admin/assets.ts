/** The dashboard's files, read once. Out: path → body, type and validator. uPlot comes from its package. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

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

const HERE = new URL('./dashboard/', import.meta.url);

/** URL path → where the file is. Nothing else is ever served, so no path is ever built from a request. */
const FILES: ReadonlyMap<string, { readonly url: () => URL; readonly type: keyof typeof TYPES }> = new Map([
  ['/', { url: () => new URL('index.html', HERE), type: 'html' }],
  ['/assets/dashboard.css', { url: () => new URL('dashboard.css', HERE), type: 'css' }],
  ['/assets/icon.svg', { url: () => new URL('icon.svg', HERE), type: 'svg' }],
  ...['main', 'accounts', 'charts', 'format', 'stream', 'transactions', 'actions'].map(
    (name) =>
      [`/assets/${name}.js`, { url: () => new URL(`${name}.js`, HERE), type: 'js' as const }] as const,
  ),
  ['/assets/uplot.js', { url: () => uplotFile('uPlot.esm.js'), type: 'js' }],
  ['/assets/uplot.css', { url: () => uplotFile('uPlot.min.css'), type: 'css' }],
]);

const uplotFile = (name: string): URL => new URL(`./${name}`, import.meta.resolve('uplot'));

/** Looks an asset up; undefined for an unknown path. Throws where the build has left the file out. */
export function createAssets(): (path: string) => Asset | undefined {
  const loaded = new Map<string, Asset>();
  return (path) => {
    const known = loaded.get(path);
    if (known !== undefined) return known;
    const file = FILES.get(path);
    if (file === undefined) return undefined;
    const body = readFileSync(fileURLToPath(file.url()));
    const asset = {
      body,
      contentType: TYPES[file.type],
      etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 20)}"`,
    };
    loaded.set(path, asset);
    return asset;
  };
}
