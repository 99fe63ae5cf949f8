/**
 * A container image without an engine: an OCI image layout (image-spec 1.1) in a tar, with one layer that holds
 * Node, the libraries it is linked with, the authorities of this machine and the relay. In: the staged program.
 * Out: what `skopeo copy oci-archive:…`, `podman load` and `docker load` read.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

const AUTHORITIES = '/etc/ssl/certs/ca-certificates.crt';
const USER = 65_532;

export function writeImage(program, file, { work, version, description }) {
  const tree = join(work, 'image');
  const put = (from, to) => {
    mkdirSync(dirname(join(tree, to)), { recursive: true });
    cpSync(from, join(tree, to), { recursive: true, dereference: true });
  };
  put(join(program, 'lib/xoauth2-relay'), 'app');
  const node = realpathSync(process.execPath);
  put(node, 'usr/bin/node');
  for (const [library] of execFileSync('ldd', [node], { encoding: 'utf8' }).matchAll(/\/\S+/g))
    put(library, library);
  // Asked for at run time, when names are looked up.
  for (const name of ['libnss_dns.so.2', 'libnss_files.so.2', 'libresolv.so.2']) {
    const path = `/lib/x86_64-linux-gnu/${name}`;
    if (existsSync(path)) put(path, path);
  }
  if (existsSync(AUTHORITIES)) put(AUTHORITIES, AUTHORITIES);
  const text = {
    passwd: `relay:x:${USER}:${USER}::/:/\n`,
    group: `relay:x:${USER}:\n`,
    'nsswitch.conf': 'hosts: files dns\n',
  };
  mkdirSync(join(tree, 'etc'), { recursive: true });
  for (const [name, content] of Object.entries(text)) writeFileSync(join(tree, 'etc', name), content);
  for (const path of ['tmp', 'var/lib/xoauth2-relay']) mkdirSync(join(tree, path), { recursive: true });

  const layer = join(work, 'layer.tar');
  const tar = ['--sort=name', '--mtime=@0', '--numeric-owner', '-cf', layer, '-C', tree];
  const state = ['./tmp', './var/lib/xoauth2-relay'];
  execFileSync('tar', [
    '--owner=0',
    '--group=0',
    ...tar,
    ...state.flatMap((path) => ['--exclude', path]),
    '.',
  ]);
  execFileSync('tar', [
    `--owner=${USER}`,
    `--group=${USER}`,
    '--mode=0700',
    '--mtime=@0',
    '--numeric-owner',
    '-rf',
    layer,
    '-C',
    tree,
    ...state,
  ]);

  const layout = join(work, 'layout');
  const blobs = join(layout, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const digest = (content) => createHash('sha256').update(content).digest('hex');
  const blob = (mediaType, content) => {
    const hex = digest(content);
    writeFileSync(join(blobs, hex), content);
    return { mediaType, digest: `sha256:${hex}`, size: content.length };
  };
  const json = (value) => Buffer.from(JSON.stringify(value));
  const plain = readFileSync(layer);
  const layerBlob = blob('application/vnd.oci.image.layer.v1.tar+gzip', gzipSync(plain));
  const architecture = { x64: 'amd64', arm64: 'arm64' }[process.arch] ?? process.arch;
  const labels = {
    'org.opencontainers.image.title': 'xoauth2-relay',
    'org.opencontainers.image.description': description,
    'org.opencontainers.image.version': version,
    'org.opencontainers.image.licenses': 'MIT',
  };
  const config = blob(
    'application/vnd.oci.image.config.v1+json',
    json({
      architecture,
      os: 'linux',
      config: {
        User: `${USER}:${USER}`,
        ExposedPorts: { '2525/tcp': {} },
        Env: [
          'PATH=/usr/bin',
          'NODE_ENV=production',
          `SSL_CERT_FILE=${AUTHORITIES}`,
          'XOAUTH2_RELAY_ACCOUNTS=/etc/xoauth2-relay/accounts.json',
          'XOAUTH2_RELAY_STATE_DIR=/var/lib/xoauth2-relay',
          'XOAUTH2_RELAY_HOST=0.0.0.0',
        ],
        Entrypoint: ['node', '/app/bin/xoauth2-relay.js'],
        Cmd: ['serve'],
        Volumes: { '/var/lib/xoauth2-relay': {} },
        WorkingDir: '/app',
        Labels: labels,
        StopSignal: 'SIGTERM',
      },
      rootfs: { type: 'layers', diff_ids: [`sha256:${digest(plain)}`] },
      history: [{ created: '1970-01-01T00:00:00Z', created_by: 'npm run package' }],
    }),
  );
  const manifest = blob(
    'application/vnd.oci.image.manifest.v1+json',
    json({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config,
      layers: [layerBlob],
      annotations: labels,
    }),
  );
  writeFileSync(join(layout, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }));
  writeFileSync(
    join(layout, 'index.json'),
    json({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [
        {
          ...manifest,
          platform: { architecture, os: 'linux' },
          annotations: { 'org.opencontainers.image.ref.name': version },
        },
      ],
    }),
  );
  execFileSync('tar', [
    '--owner=0',
    '--group=0',
    '--sort=name',
    '--mtime=@0',
    '-cf',
    file,
    '-C',
    layout,
    '.',
  ]);
  return file;
}
