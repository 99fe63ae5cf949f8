import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createAdmin } from '../../src/admin/admin.ts';
import { silentLog } from '../../src/log.ts';
import { createFakeAdminBackend } from '../support/fake-admin-backend.ts';
import { type Defer, leakless } from '../support/leak-check.ts';

async function start(defer: Defer): Promise<{ port: number; url: string }> {
  const admin = createAdmin(
    { backend: createFakeAdminBackend([{ email: 'a@example.com' }]), log: silentLog },
    { host: '127.0.0.1', port: 0, version: '1', tokenWrite: new Secret('a-token'), summaryEveryMs: 0 },
  );
  const { port } = await admin.listen();
  defer(() => admin.close());
  return { port, url: `http://127.0.0.1:${port}` };
}

const health = async (url: string): Promise<number> =>
  (await fetch(`${url}/healthz`, { headers: { connection: 'close' }, signal: AbortSignal.timeout(5_000) }))
    .status;

test(
  'four hundred open sockets of one address do not silence the port',
  leakless(async (_t, defer) => {
    const { port, url } = await start(defer);
    const sockets: Socket[] = [];
    defer(() => {
      for (const socket of sockets) socket.destroy();
    });
    for (let i = 0; i < 400; i++) {
      const socket = connect(port, '127.0.0.1').on('error', () => {});
      // Half of them have begun a request and never end it.
      socket.once(
        'connect',
        () => i % 2 === 0 && socket.write('GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n'),
      );
      sockets.push(socket);
    }
    assert.equal(await health(url), 200);
    assert.equal(await health(url), 200);
  }),
);

test(
  'the health check needs no token where one is set; everything else does',
  leakless(async (_t, defer) => {
    const { url } = await start(defer);
    assert.equal(await health(url), 200);
    for (const path of ['/readyz', '/metrics', '/admin/accounts', '/', '/healthz/../metrics', '//healthz'])
      assert.equal((await fetch(url + path, { headers: { connection: 'close' } })).status, 401, path);
    const posted = await fetch(`${url}/healthz`, { method: 'POST', headers: { connection: 'close' } });
    assert.equal(posted.status, 401);
  }),
);
