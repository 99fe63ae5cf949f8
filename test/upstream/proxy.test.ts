/** SMTP through proxies: HTTP CONNECT and SOCKS5. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import type { Account } from '../../src/accounts/account.ts';
import { parseSmtpProxy, proxyOfSetting } from '../../src/accounts/smtp-proxy.ts';
import { findWayCause } from '../../src/protocol/causes/book.ts';
import { AccessToken } from '../../src/tokens/access-token.ts';
import { createDialer, type Dial } from '../../src/upstream/dial.ts';
import type { UpstreamError } from '../../src/upstream/failure.ts';
import { createOpenConnection } from '../../src/upstream/open.ts';
import { ProxyError } from '../../src/upstream/proxy.ts';
import { createTestClock } from '../support/clock.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startRoom } from '../support/relay-room.ts';
import { startTunnelProxy, type TunnelProxy, type TunnelProxyOptions } from '../support/tunnel-proxy.ts';
import { within } from '../support/wait-for.ts';

const LOGIN = { user: 'relay', password: 'hunter2 @:%' };
const KINDS = ['http', 'socks5'] as const;

async function proxied(
  defer: Defer,
  options: TunnelProxyOptions,
  { connectTimeoutMs = 15_000, ...account }: { connectTimeoutMs?: number; smtp_proxy?: string } = {},
) {
  const proxy = await startTunnelProxy(options);
  defer(() => proxy.close());
  const room = await startRoom(defer, {
    warm: false,
    account: { smtp_proxy: proxy.url, ...account },
    open: { connectTimeoutMs },
  });
  return { proxy, room };
}

/** Why an account behind it gets no connection, and what was told on the way. */
async function failedAttempt(
  proxy: Pick<TunnelProxy, 'url'>,
  { dial, connectTimeoutMs = 200 }: { dial?: Dial; connectTimeoutMs?: number } = {},
): Promise<UpstreamError & { readonly lines: readonly string[] }> {
  const lines: string[] = [];
  const open = createOpenConnection({
    connectTimeoutMs,
    loginTimeoutMs: 0,
    proxy: proxyOfSetting({ reveal: () => proxy.url }),
    ...(dial && { dial }),
  });
  const account = { id: 'ann', user: 'ann', upstream: { host: 'localhost', port: 587, tls: 'starttls' } };
  const token = new AccessToken('abcdefghijklmnop', Date.now() + 60_000, Date.now());
  const observer = { line: (_who: string, text: string) => lines.push(text) };
  return open(account as Account, token, { observer }).then(
    () => assert.fail('opened'),
    (error: UpstreamError) => Object.assign(error, { lines }),
  );
}

for (const kind of KINDS) {
  for (const mood of ['well', 'early', 'drips'] as const)
    test(
      `${kind}: mail leaves through it, also where the greeting comes with the proxy's answer (${mood})`,
      leakless(async (_t, defer) => {
        const { proxy, room } = await proxied(defer, { kind, ...LOGIN });
        proxy.mood = mood;
        assert.equal((await room.send()).final?.code, 250);
        // The name is for the proxy to resolve.
        assert.deepEqual(proxy.asked, [`localhost:${room.provider.smtp.port}`]);
      }),
    );

  test(
    `${kind}: a wrong login, a refusal, a closed or garbled answer wait with 451, are told apart, and the proxy's password is in none`,
    leakless(async (_t, defer) => {
      const { proxy, room } = await proxied(defer, { kind, user: 'relay', password: 'other' });
      const good = parseSmtpProxy(proxy.url);
      assert.notEqual(good, 'none');
      const dial = createDialer();
      const failure = async (url: string): Promise<{ said: string; id: string }> => {
        const target = { host: 'localhost', port: room.provider.smtp.port, proxy: parseSmtpProxy(url) };
        if (target.proxy === 'none') throw new Error('none');
        const error = await dial(target as never, new AbortController().signal).then(
          ({ stream }) => {
            stream.destroy();
            throw new Error('a tunnel');
          },
          (e: Error) => e,
        );
        assert.doesNotMatch(inspect(error, { depth: 9, showHidden: true }), /hunter2/);
        return { said: error.message, id: findWayCause('tcp', error.message).id };
      };
      const at = `127.0.0.1:${proxy.port}`;
      const wrong = `${kind}://relay:hunter2@${at}`;
      assert.equal((await failure(wrong)).id, 'proxy-login');
      assert.equal((await failure(`${kind}://${at}`)).id, 'proxy-login');
      for (const mood of ['refuses', 'closes', 'garbage', 'garbles'] as const) {
        proxy.mood = mood;
        const { id, said } = await failure(
          proxy.url.replace('other', mood === 'refuses' || mood === 'garbles' ? 'other' : 'hunter2'),
        );
        assert.equal(id, 'proxy-refuses', mood);
        assert.doesNotMatch(said, /undefined/);
      }
      assert.equal((await failure(`${kind}://u:hunter2@127.0.0.1:1`)).id, 'proxy-unreachable');
      const heard = await room.send();
      assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.4.1']);
    }),
  );

  test(
    `${kind}: a silent proxy costs the one limit of an attempt`,
    leakless(async (_t, defer) => {
      const { proxy, room } = await proxied(defer, { kind }, { connectTimeoutMs: 300 });
      proxy.mood = 'silent';
      const heard = await within(room.send(), 10_000, 'an answer to MAIL');
      assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.4.1']);
      assert.match(
        heard.mail.text,
        new RegExp(`${kind}://127.0.0.1:${proxy.port} made no connection in time`),
      );
      assert.equal((await failedAttempt(proxy)).verdict.cause, 'proxy-silent');
    }),
  );

  test(
    `${kind}: a proxy that grants and is gone at once does not cost the limit of an attempt`,
    leakless(async (_t, defer) => {
      const { proxy, room } = await proxied(defer, { kind }, { connectTimeoutMs: 600_000 });
      proxy.mood = 'resets';
      const heard = await room.send();
      assert.deepEqual([heard.mail.code, heard.mail.enhanced], [451, '4.4.1']);
    }),
  );

  for (const password of [LOGIN.password, 'pw@12', 'a:b'])
    test(
      `${kind}: who repeats the proxy's login in the greeting does not get it into the answer (${password.length} characters)`,
      leakless(async (_t, defer) => {
        const proxy = await startTunnelProxy({ kind, user: LOGIN.user, password });
        defer(() => proxy.close());
        proxy.mood = 'greets';
        const pair = `${LOGIN.user}:${password}`;
        const secrets = [
          pair,
          `${LOGIN.user}:${encodeURIComponent(password)}`,
          Buffer.from(pair).toString('base64'),
        ];
        // One that short is known by its user alone.
        if (password.length >= 4)
          secrets.push(password, encodeURIComponent(password), Buffer.from(password).toString('base64'));
        for (const secret of secrets)
          for (const code of [220, 421, 535]) {
            proxy.greeting = `${code}-4.7.0 hello ${secret} there\r\n${code} ${secret}\r\n500 ${secret}\r\n`;
            const { message, verdict, lines } = await failedAttempt(proxy, { connectTimeoutMs: 10_000 });
            const told = [message, verdict.answer.text, ...lines];
            assert.ok(lines.length > 0);
            assert.ok(!told.join().includes(secret), told.join());
          }
      }),
    );
}

test('a proxy whose name speaks of TLS is no fault of TLS', async () => {
  const url = 'http://tls.example:3128';
  const dial: Dial = async () => {
    throw new ProxyError(`${url} cannot be reached (ENOTFOUND)`);
  };
  assert.equal((await failedAttempt({ url }, { dial })).verdict.cause, 'proxy-unreachable');
});

test(
  'the limit of an attempt is kept by its own clock alone',
  leakless(async (_t, defer) => {
    for (const kind of KINDS) {
      const proxy = await startTunnelProxy({ kind });
      defer(() => proxy.close());
      proxy.mood = 'silent';
      const dial = createDialer({ clock: createTestClock() });
      const abort = new AbortController();
      const target = { host: 'x.example', port: 587, proxy: proxyOfSetting({ reveal: () => proxy.url }) };
      const dialed = dial(target, abort.signal);
      abort.abort(new Error('over'));
      await assert.rejects(dialed, /^Error: over$/);
    }
  }),
);

test(
  'an account names its own, or none where the relay has one; a proxy that is down stops nobody who does not use it',
  leakless(async (_t, defer) => {
    const common = await startTunnelProxy({ kind: 'socks5' });
    defer(() => common.close());
    for (const [account, asked] of [
      [{}, 1],
      [{ smtp_proxy: 'none' }, 0],
    ] as const) {
      const before = common.asked.length;
      const room = await startRoom(defer, {
        account,
        open: { proxy: proxyOfSetting({ reveal: () => common.url }) },
      });
      assert.equal((await room.send()).final?.code, 250);
      assert.equal(common.asked.length - before, asked);
    }
    const { room } = await proxied(defer, { kind: 'http' }, { smtp_proxy: 'http://127.0.0.1:1' });
    for (let i = 0; i < 8; i++) await room.send();
    const names = room.upstreams.breakers().map(({ name }) => name);
    assert.deepEqual(names, [`localhost:${room.provider.smtp.port} through http://127.0.0.1:1`]);
  }),
);

test('what is no proxy is refused without being quoted', () => {
  for (const text of [
    'socks4://hunter2@h:1',
    'https://u:hunter2@h',
    'h:3128',
    'http://',
    'http://h/hunter2',
    'http://h?hunter2',
    'http://h:99999999',
    'socks5://u:%zz@h',
    `socks5://u:${'x'.repeat(256)}@h`,
  ])
    assert.throws(
      () => parseSmtpProxy(text),
      (error: Error) => !/hunter2|zz|xxx/.test(error.message),
      text,
    );
  const proxy = parseSmtpProxy('socks5h://re%40lay:p%3Aw@[::1]');
  assert.notEqual(proxy, 'none');
  if (proxy === 'none') return;
  assert.deepEqual([proxy.kind, proxy.host, proxy.port], ['socks5', '::1', 1080]);
  assert.deepEqual([proxy.login?.user, proxy.login?.password.reveal()], ['re@lay', 'p:w']);
  assert.doesNotMatch(JSON.stringify(proxy) + inspect(proxy), /p:w/);
});
