// needs: redis-server
/** The Redis of the compose file asks for the password that the relay is given. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { leakless } from '../support/leak-check.ts';
import { repositoryRoot } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';

interface Compose {
  readonly services: Readonly<
    Record<string, { command?: readonly string[]; healthcheck?: { test: readonly string[] } }>
  >;
}

test(
  'without the password of the secret Redis answers nothing; its health check has it',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'compose-'));
    defer(() => rmSync(directory, { recursive: true }));
    const store = join(directory, 'store');
    writeFileSync(store, 'redis://:0123456789abcdef@redis:6379\n');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));

    const { redis } = (
      parse(readFileSync(join(repositoryRoot, 'deploy/docker/compose.yaml'), 'utf8')) as Compose
    ).services;
    // As compose reads it: `$$` is a dollar.
    const local = (line = ''): string => line.replaceAll('$$', '$').replaceAll('/run/secrets/store', store);
    const command = local(redis?.command?.[2])
      .replace('docker-entrypoint.sh ', 'exec ')
      .replace('--appendonly yes', `--port ${port} --dir ${directory}`);
    const child = spawn('sh', ['-c', command], { stdio: 'ignore', detached: true });
    const ended = new Promise((resolve) => child.once('close', resolve));
    defer(async () => {
      process.kill(-(child.pid ?? 0), 'SIGKILL');
      await ended;
    });
    const cli = (...words: string[]): string => {
      try {
        return execFileSync('redis-cli', ['-p', `${port}`, ...words], {
          encoding: 'utf8',
          stdio: ['ignore', 'pipe', 'pipe'],
        });
      } catch (error) {
        return String((error as { stdout?: string }).stdout);
      }
    };
    await waitFor(() => /NOAUTH/.test(cli('ping')), { what: 'Redis refusing' });
    assert.match(cli('--no-auth-warning', '-a', '0123456789abcdef', 'ping'), /PONG/);
    const check = local(redis?.healthcheck?.test[1]).replace('redis-cli', `redis-cli -p ${port}`);
    execFileSync('sh', ['-c', check], { stdio: 'ignore' });
    const processes = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' });
    assert.doesNotMatch(processes.replace(/.*\b(?:ps|sed)\b.*/g, ''), /0123456789abcdef/);
  }),
);
