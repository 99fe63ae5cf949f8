/** Requests over a proxy that says nothing, and waits that end although nothing was ever connected. */
import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { createHttp } from '../src/http.ts';
import { type Defer, leakless } from './support/leak-check.ts';

/** Takes connections and never answers. */
async function startSilent(defer: Defer): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).resume();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  defer(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const asked = { method: 'POST', url: 'https://graph.test/', headers: {}, body: 'x' } as const;

test(
  'a proxy that is silent about CONNECT: nothing was sent',
  leakless(async (_t, defer) => {
    const proxy = await startSilent(defer);
    const http = createHttp({ connectTimeoutMs: 1_000, env: { HTTPS_PROXY: proxy } });
    defer(() => http.close());
    const answer = await http.request({ ...asked, timeoutMs: 60_000 });
    assert.deepEqual(answer, { kind: 'lost', maybeSent: false, code: 'UND_ERR_HEADERS_TIMEOUT' });
  }),
);

test(
  'the time of a request is up before there is a connection',
  leakless(async (_t, defer) => {
    const proxy = await startSilent(defer);
    const http = createHttp({ connectTimeoutMs: 60_000, env: { HTTPS_PROXY: proxy } });
    defer(() => http.close());
    const answer = await http.request({ ...asked, timeoutMs: 50 });
    assert.deepEqual(answer, { kind: 'lost', maybeSent: true, code: 'TIMEOUT' });
  }),
);

test(
  'an answer in time, without and with a proxy variable that does not concern it',
  leakless(async (_t, defer) => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.end('HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n'));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    defer(() => new Promise((resolve) => server.close(resolve)));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    for (const env of [{}, { HTTPS_PROXY: 'http://127.0.0.1:1', NO_PROXY: '127.0.0.1' }]) {
      const http = createHttp({ env });
      defer(() => http.close());
      const answer = await http.request({ ...asked, url, timeoutMs: 10_000 });
      assert.equal(answer.kind === 'answer' && answer.status, 202);
    }
  }),
);
