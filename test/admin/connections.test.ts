import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { createFakeAdminBackend, startAdmin } from '../support/fake-admin-backend.ts';
import { type Defer, leakless } from '../support/leak-check.ts';

async function start(defer: Defer): Promise<{ port: number; url: string }> {
  const { admin, port, url } = await startAdmin(createFakeAdminBackend([{ email: 'a@example.com' }]), {
    tokenWrite: new Secret('a-token'),
  });
  defer(() => admin.close());
  return { port, url };
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
  'who asks on a connection without waiting for the answer loses it; one after the other all are answered',
  leakless(async (_t, defer) => {
    const { port, url } = await start(defer);
    const headers = 'HTTP/1.1\r\nHost: 127.0.0.1\r\n';
    for (const ask of [
      `GET /assets/uplot.js ${headers}\r\n`,
      `POST /admin/reload ${headers}Content-Length: 2\r\n\r\n{}`,
      `GET /healthz ${headers}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
    ]) {
      const ahead = connect(port, '127.0.0.1', () => ahead.write(ask.repeat(1_000)));
      let text = '';
      ahead.on('error', () => {}).on('data', (chunk) => (text += chunk.toString('latin1')));
      await new Promise((resolve) => ahead.once('close', resolve));
      assert.ok(text.split('HTTP/1.1 ').length - 1 <= 1, ask);
    }
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    defer(() => agent.destroy());
    for (let i = 0; i < 20; i++) {
      const request = get(`${url}/assets/uplot.js`, { agent });
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      await once(response.resume(), 'end');
      assert.equal(response.statusCode, 200);
      assert.equal(request.reusedSocket, i > 0);
    }
    assert.equal(await health(url), 200);
  }),
);

test(
  'probes need no token where one is set, and tell no more than yes or no; everything else does',
  leakless(async (_t, defer) => {
    const { url } = await start(defer);
    const ask = (path: string, more: RequestInit = {}): Promise<Response> =>
      fetch(url + path, { headers: { connection: 'close' }, ...more });
    assert.equal(await health(url), 200);
    assert.deepEqual(await (await ask('/readyz')).json(), { ready: true });
    const withToken = { connection: 'close', authorization: 'Bearer a-token' };
    const told = await (await ask('/readyz', { headers: withToken })).json();
    assert.deepEqual(Object.keys(told as object), ['ready', 'warmed_up', 'usable', 'total']);
    for (const path of ['/metrics', '/admin/accounts', '/', '/healthz/../metrics', '//healthz', '/readyz/'])
      assert.equal((await ask(path)).status, 401, path);
    for (const path of ['/healthz', '/readyz'])
      assert.equal((await ask(path, { method: 'POST' })).status, 401, path);
  }),
);
