/**
 * Other programs that splice, as far as this machine has them. In: the upstream. Out: where they listen and their
 * process, or why they are left out.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testAuthority } from '../support/certificate.ts';
import { freePort } from '../support/free-port.ts';
import { waitFor } from '../support/wait-for.ts';
import { directory, isOpen, spawnChild } from './stage.ts';

export interface Peer {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
}

export interface Absent {
  readonly name: string;
  readonly why: string;
}

const isInstalled = (program: string): boolean => spawnSync(program, ['-v']).error === undefined;

/** HAProxy with one thread, plain in, TLS out: a splice written in C. */
async function startHaproxy(upstreamPort: number): Promise<Peer | Absent> {
  const name = 'HAProxy (TCP)';
  if (!isInstalled('haproxy')) return { name, why: 'not installed (Debian: haproxy)' };
  const port = await freePort();
  const file = join(directory, 'haproxy.cfg');
  writeFileSync(
    file,
    `global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:${port}
  default_backend out
backend out
  server sink 127.0.0.1:${upstreamPort} ssl verify required ca-file ${testAuthority().file} sni str(localhost) verifyhost localhost
`,
  );
  const pid = spawnChild('haproxy', ['-db', '-f', file]);
  await waitFor(() => isOpen(port), { what: 'HAProxy' });
  return { name, port, pid };
}

/** Those that are there run beside the relay. */
export const startPeers = async (upstreamPort: number): Promise<readonly (Peer | Absent)[]> => [
  await startHaproxy(upstreamPort),
];
