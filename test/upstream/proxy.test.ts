/** SMTP through proxies: HTTP CONNECT and SOCKS5. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { parseSmtpProxy, proxyOfSetting } from '../../src/accounts/smtp-proxy.ts';
import { findWayCause } from '../../src/protocol/causes/book.ts';
import { createDialer } from '../../src/upstream/dial.ts';
import { createTestClock } from '../support/clock.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startRoom } from '../support/relay-room.ts';
import { startTunnelProxy, type TunnelProxyOptions } from '../support/tunnel-proxy.ts';
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

for (const kind of KINDS) {
  for (const mood of ['well', 'early'] as const)
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
      for (const mood of ['refuses', 'closes', 'garbage'] as const) {
        proxy.mood = mood;
        assert.equal(
          (await failure(proxy.url.replace('other', mood === 'refuses' ? 'other' : 'hunter2'))).id,
          'proxy-refuses',
          mood,
        );
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
    }),
  );
}

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
