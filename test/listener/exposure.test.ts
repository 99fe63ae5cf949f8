import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkExposure, describeUnusable } from '../../src/listener/exposure.ts';
import { type PartialListenerOptions, resolveOptions } from '../../src/listener/options.ts';
import { account } from './stage.ts';

const open = account('open@x.test');
const closed = account('closed@x.test', { clientPassword: { hash: 'scrypt$…' } });

const free: readonly [string, PartialListenerOptions][] = [
  ['loopback', {}],
  ['localhost by name', { host: 'localhost' }],
  ['IPv6 loopback', { host: '::1' }],
  ['a UNIX socket', { path: '/run/relay.sock', host: '0.0.0.0' }],
  ['named clients', { host: '0.0.0.0', allow: ['10.0.0.0/8'] }],
];
for (const [what, settings] of free) {
  test(`${what} may serve accounts without a password`, () => {
    const options = resolveOptions(settings);
    assert.equal(checkExposure(options), undefined);
    assert.equal(describeUnusable(options, [open]), undefined);
    assert.match(
      describeUnusable({ ...options, authRequired: true }, [open, closed]) ?? '',
      /: open@x\.test cannot/,
    );
  });
}

const exposed: readonly [string, PartialListenerOptions][] = [
  ['every address', { host: '0.0.0.0' }],
  ['every IPv6 address', { host: '::' }],
  ['an address of the host', { host: '192.0.2.1' }],
  ['a name', { host: 'relay.test' }],
  ['loopback behind a proxy', { proxyProtocol: true }],
  ['loopback behind named proxies', { proxyProtocol: ['127.0.0.1'] }],
  ['a handed-over descriptor', { fd: 3 }],
];
for (const [what, settings] of exposed) {
  test(`${what} needs TLS, and an account without a password is merely unusable there`, () => {
    assert.match(checkExposure(resolveOptions(settings)) ?? '', /`tls`.*`allow`/);
    for (const tls of ['starttls', 'implicit'] as const) {
      const options = resolveOptions({ ...settings, tls });
      assert.equal(checkExposure(options), undefined);
      assert.match(
        describeUnusable(options, [open, closed]) ?? '',
        /`password`.*: open@x\.test cannot be used there/,
      );
      assert.equal(describeUnusable(options, [closed]), undefined);
    }
  });
}

test('beyond loopback nobody speaks for others who is not named', () => {
  for (const place of [{ host: '0.0.0.0' }, { host: '192.0.2.1' }, { fd: 3 }] as const) {
    for (const more of [{ allow: ['10.0.0.0/8'] }, { tls: 'starttls' }] as const) {
      const options = { ...place, ...more, proxyProtocol: true };
      assert.match(checkExposure(resolveOptions(options)) ?? '', /`proxy_from`/);
      assert.equal(checkExposure(resolveOptions({ ...options, proxyFrom: ['192.0.2.9'] })), undefined);
    }
  }
  for (const place of [{ host: '127.0.0.1' }, { path: '/run/relay.sock' }])
    assert.equal(
      checkExposure(resolveOptions({ ...place, proxyProtocol: true, allow: ['10.0.0.0/8'] })),
      undefined,
    );
});

test('many accounts without a password are counted, not listed', () => {
  const accounts = Array.from({ length: 50 }, (_, i) => account(`a${i}@x.test`));
  const message = describeUnusable(resolveOptions({ host: '0.0.0.0' }), accounts) ?? '';
  assert.match(message, /a0@x\.test, a1@x\.test, a2@x\.test and 47 more/);
});
