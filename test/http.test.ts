/** Requests over a proxy that says nothing, and waits that end although nothing was ever connected. */
import assert from 'node:assert/strict';
import { createServer as createWebServer } from 'node:http';
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

const MIB = 1024 * 1024;

const asked = { method: 'POST', url: 'https://graph.test/', headers: {}, body: 'x' } as const;

test(
  'a proxy that is silent about CONNECT: nothing was sent',
  leakless(async (_t, defer) => {
    const proxy = await startSilent(defer);
    const http = createHttp({ connectTimeoutMs: 1_000, env: { HTTPS_PROXY: proxy } });
    defer(() => http.close());
    const answer = await http.request({ ...asked, timeoutMs: 60_000 });
    const detail = `proxy ${proxy} made no connection in time`;
    assert.deepEqual(answer, { kind: 'lost', maybeSent: false, code: 'PROXY_UNREACHABLE', detail });
  }),
);

test(
  'the time of a request is up before there is a connection',
  leakless(async (_t, defer) => {
    const proxy = await startSilent(defer);
    const http = createHttp({ connectTimeoutMs: 60_000, env: { HTTPS_PROXY: proxy } });
    defer(() => http.close());
    const answer = await http.request({ ...asked, timeoutMs: 50 });
    assert.deepEqual(answer, { kind: 'lost', maybeSent: false, code: 'TIMEOUT' });
  }),
);

test(
  'a connection that never came about sent nothing, whatever the error is called; one that broke may have',
  leakless(async (_t, defer) => {
    // Cut in the middle of the handshake, and somebody who does not speak TLS.
    for (const end of [
      (socket: Socket) => socket.resetAndDestroy(),
      (socket: Socket) => socket.end('HTTP/1.0 400 Bad Request\r\n\r\n'),
    ]) {
      const server = createServer((socket) => {
        socket.on('error', () => {}).once('data', () => end(socket));
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      defer(() => new Promise((resolve) => server.close(resolve)));
      const { port } = server.address() as AddressInfo;
      for (const scheme of ['https', 'http']) {
        const http = createHttp({ env: {} });
        defer(() => http.close());
        const url = `${scheme}://127.0.0.1:${port}/`;
        const answer = await http.request({ ...asked, url, timeoutMs: 10_000 });
        assert.equal(answer.kind === 'lost' && answer.maybeSent, scheme === 'http' && answer.kind === 'lost');
      }
    }
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

test(
  'of a long answer is held what can be of use',
  leakless(async (_t, defer) => {
    const text = '\\u0000'.repeat(2_400_000);
    const answer = Buffer.from(`{"body":{"content":"${text}"},"id":"AA","isDraft":true}`);
    const server = createWebServer((_request, response) => void response.end(answer));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    defer(() => new Promise((resolve) => server.close(resolve)));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const http = createHttp({ env: {}, keepAliveMs: 1 });
    defer(() => http.close());
    const one = await http.request({ ...asked, url, timeoutMs: 600_000 });
    assert.ok(one.kind === 'answer' && answer.length > 13 * MIB);
    assert.deepEqual(Object.keys(JSON.parse(one.body) as object), ['body', 'id', 'isDraft']);
    assert.ok(one.body.length < 16 * 1024, `${one.body.length} octets are kept`);
  }),
);

test(
  'an answer of many short texts is cut',
  leakless(async (_t, defer) => {
    const answer = Buffer.from(`[${'"short",'.repeat(MIB)}"last"]`);
    const server = createWebServer((_request, response) => void response.end(answer));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    defer(() => new Promise((resolve) => server.close(resolve)));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const http = createHttp({ env: {}, keepAliveMs: 1 });
    defer(() => http.close());
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => http.request({ ...asked, url, timeoutMs: 600_000 })),
    );
    const octets = answers.map((a) => (a.kind === 'answer' ? a.body.length : 0));
    assert.ok(Math.max(...octets) < 5 * MIB && Math.min(...octets) > 0);
  }),
);
