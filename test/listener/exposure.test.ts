import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkExposure } from '../../src/listener/exposure.ts';
import { type ListenerSettings, resolveOptions } from '../../src/listener/options.ts';
import { account } from './stage.ts';

const open = account('open@x.test');
const closed = account('closed@x.test', { clientPassword: { hash: 'scrypt$…' } });

const free: readonly [string, ListenerSettings][] = [
  ['loopback', {}],
  ['localhost by name', { host: 'localhost' }],
  ['IPv6 loopback', { host: '::1' }],
  ['a UNIX socket', { path: '/run/relay.sock', host: '0.0.0.0' }],
  ['named clients', { host: '0.0.0.0', allow: ['10.0.0.0/8'] }],
];
for (const [what, settings] of free) {
  test(`${what} may serve accounts without a password`, () => {
    assert.equal(checkExposure(resolveOptions(settings), [open]), undefined);
  });
}

const exposed: readonly [string, ListenerSettings][] = [
  ['every address', { host: '0.0.0.0' }],
  ['every IPv6 address', { host: '::' }],
  ['an address of the host', { host: '192.0.2.1' }],
  ['a name', { host: 'relay.test' }],
  ['loopback behind a proxy', { proxyProtocol: true }],
  ['loopback behind named proxies', { proxyProtocol: ['127.0.0.1'] }],
  ['a handed-over descriptor', { fd: 3 }],
];
for (const [what, settings] of exposed) {
  test(`${what} needs passwords and TLS, and the error says so`, () => {
    const bare = checkExposure(resolveOptions(settings), [open, closed]);
    assert.match(bare ?? '', /`tls`.*`password` for open@x\.test.*`allow`/);
    const plain = checkExposure(resolveOptions(settings), [closed]);
    assert.match(plain ?? '', /`tls`/);
    assert.doesNotMatch(plain ?? '', /`password`/);
    const withTls = resolveOptions({ ...settings, tls: 'starttls' });
    assert.match(checkExposure(withTls, [open, closed]) ?? '', /`password` for open@x\.test,/);
    assert.equal(checkExposure(withTls, [closed]), undefined);
    assert.equal(checkExposure(resolveOptions({ ...settings, tls: 'implicit' }), [closed]), undefined);
  });
}

test('many accounts without a password are counted, not listed', () => {
  const accounts = Array.from({ length: 50 }, (_, i) => account(`a${i}@x.test`));
  const message = checkExposure(resolveOptions({ host: '0.0.0.0' }), accounts) ?? '';
  assert.match(message, /a0@x\.test, a1@x\.test, a2@x\.test and 47 more/);
});
