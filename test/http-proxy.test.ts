/** Requests to the web through a proxy in trouble: it is named, its login is not told, and it is not asked without end. */
import assert from 'node:assert/strict';
import { createServer as createWebServer } from 'node:http';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { systemClock } from '../src/clock.ts';
import { createHttp } from '../src/http.ts';
import { HttpProxySettingError } from '../src/http-proxy.ts';
import { silentLog } from '../src/log.ts';
import { findTokenCauseInText, findWayCause } from '../src/protocol/causes/book.ts';
import { createMask } from '../src/protocol/masking.ts';
import { createTokenEndpoints } from '../src/tokens/token-endpoint.ts';
import { type Defer, leakless } from './support/leak-check.ts';
import { startTunnelProxy } from './support/tunnel-proxy.ts';
import { within } from './support/wait-for.ts';

const PASSWORD = 'hunter2-and-more';

/** Does `act` once it was asked for a tunnel. */
async function startTrouble(defer: Defer, act: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const proxy = { connections: 0, url: '', name: '' };
  const server = createServer((socket) => {
    proxy.connections += 1;
    sockets.add(socket);
    socket.on('error', () => {}).once('data', () => act(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  defer(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  proxy.name = `proxy http://127.0.0.1:${port}`;
  proxy.url = `http://relay:${PASSWORD}@127.0.0.1:${port}`;
  return proxy;
}

const TROUBLES: Readonly<Record<string, { act: (socket: Socket) => void; words: string }>> = {
  'asks for another login': {
    act: (s) => s.end(`HTTP/1.1 407 ${PASSWORD}\r\nx: ${PASSWORD}\r\ncontent-length: 0\r\n\r\n`),
    words: 'answered HTTP 407',
  },
  'closes without an answer': { act: (s) => s.destroy(), words: 'closed the connection' },
  'ends without an answer': { act: (s) => s.end(), words: 'closed the connection' },
  'is none': { act: (s) => s.end(`220 ${PASSWORD}\r\n`), words: 'is no HTTP proxy' },
  'is silent': { act: () => {}, words: 'made no connection in time' },
};

for (const [trouble, { act, words }] of Object.entries(TROUBLES))
  test(
    `a proxy that ${trouble}: told as such, once asked, of Graph and of the token endpoint`,
    leakless(async (_t, defer) => {
      const proxy = await startTrouble(defer, act);
      const env = { HTTPS_PROXY: proxy.url };
      const http = createHttp({ connectTimeoutMs: 1_000, env });
      defer(() => http.close());
      const asked = { method: 'POST', url: 'https://graph.test/', headers: {}, timeoutMs: 600_000 } as const;
      const answer = await within(http.request(asked), 30_000, 'the end of a request');
      assert.equal(answer.kind, 'lost');
      if (answer.kind !== 'lost') return;
      assert.equal(answer.detail, `${proxy.name} ${words}`);
      assert.equal(answer.maybeSent, false);
      assert.equal(findWayCause('tcp', answer.detail ?? '').id, 'web-proxy');
      assert.equal(proxy.connections, 1);

      const endpoints = createTokenEndpoints(
        { log: silentLog, clock: systemClock },
        { connectTimeoutMs: 1_000, answerTimeoutMs: 600_000, env },
      );
      defer(() => endpoints.close());
      const form = { tokenUrl: 'https://login.test/token', form: 'a=b', secrets: [] };
      const { outcome } = await within(endpoints.exchange(form), 30_000, 'the end of a token request');
      assert.ok(!outcome.ok);
      assert.equal(outcome.failure.message, `token endpoint login.test: ${proxy.name} ${words}`);
      assert.equal(outcome.failure.cause, 'token-proxy');
      assert.equal(findTokenCauseInText(outcome.failure.message).id, 'token-proxy');
      assert.equal(proxy.connections, 2);
    }),
  );

test(
  'who answers in the place of a token endpoint does not get the login of the proxy into our words',
  leakless(async (_t, defer) => {
    const proxy = await startTunnelProxy({ kind: 'http', user: 'relay', password: PASSWORD });
    defer(() => proxy.close());
    const answer = { error: 'access_denied', error_description: `relay:${PASSWORD} may not` };
    const server = createWebServer(
      (_request, response) => void response.writeHead(400).end(JSON.stringify(answer)),
    );
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    defer(() => new Promise((resolve) => server.close(resolve)));
    const endpoints = createTokenEndpoints(
      { log: silentLog, clock: systemClock },
      { env: { HTTP_PROXY: proxy.url } },
    );
    defer(() => endpoints.close());
    const tokenUrl = `http://login.test:${(server.address() as AddressInfo).port}/token`;
    const form = { tokenUrl, form: 'a=b', secrets: [] };
    const { outcome } = await endpoints.exchange(form);
    assert.ok(!outcome.ok);
    assert.match(outcome.failure.message, /access_denied: relay:\[secret\] may not/);
  }),
);

test('a variable that holds no proxy is refused by its name without being quoted', () => {
  for (const url of [
    `http://relay:${PASSWORD}@h:99999`,
    `ftp://${PASSWORD}@h`,
    `socks5://relay:${PASSWORD}@h`,
    `http://${PASSWORD}%zz:x@h`,
    `http://`,
    `${PASSWORD} @:`,
  ])
    assert.throws(
      () => createHttp({ env: { HTTPS_PROXY: url } }),
      (error: Error) =>
        error instanceof HttpProxySettingError &&
        error.message.includes('HTTPS_PROXY') &&
        !error.message.includes(PASSWORD),
      url,
    );
});

test(
  'a proxy without a scheme is one by HTTP, as curl has it',
  leakless(async (_t, defer) => {
    const proxy = await startTrouble(defer, (s) => s.end('HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n'));
    const http = createHttp({ env: { HTTPS_PROXY: proxy.url.replace('http://', '') } });
    defer(() => http.close());
    const asked = { method: 'GET', url: 'https://graph.test/', headers: {}, timeoutMs: 600_000 } as const;
    const answer = await http.request(asked);
    assert.equal(answer.kind === 'lost' && answer.code, 'PROXY_REFUSED');
  }),
);

test('of a login with a short password the two of them together are a secret, however they are spelled', () => {
  const mask = createMask(createHttp({ env: { HTTPS_PROXY: 'http://relay:a%3Ab@proxy.test:1' } }).secrets);
  const basic = Buffer.from('relay:a:b').toString('base64');
  assert.equal(mask(`relay:a:b or ${basic} of relay, a:b`), '[secret] or [secret] of relay, a:b');
});
