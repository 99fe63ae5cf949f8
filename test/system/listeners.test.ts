import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { issueCertificate, serialAt, testAuthority } from '../support/certificate.ts';
import { greeted } from '../support/dialogue.ts';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';

const PLAIN = (password: string): string =>
  `AUTH PLAIN ${Buffer.from(`\0ann@example.com\0${password}`).toString('base64')}`;

test(
  'several listeners in one process: clear text, STARTTLS, implicit TLS and LMTP on a UNIX socket',
  leakless(async (_t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'listeners-test-'));
    defer(() => rm(directory, { recursive: true }));
    const at = (name: string): string => join(directory, name);
    const renew = async (): Promise<void> => {
      const { certPem, keyPem } = issueCertificate();
      await writeFile(at('cert.pem'), certPem);
      await writeFile(at('key.pem'), keyPem);
    };
    await renew();
    const tls = { cert_file: 'cert.pem', key_file: 'key.pem' };
    const listeners = [
      { host: '127.0.0.1', port: 0 },
      { host: '127.0.0.1', port: 0, tls: 'starttls', auth_required: true, ...tls },
      { host: '127.0.0.1', port: 0, tls: 'implicit', ...tls },
      { path: 'lmtp.sock', lmtp: true },
    ];
    await writeFile(at('config.json'), JSON.stringify({ listeners }));
    const provider = await startProvider({ users: ['ann@example.com', 'bob@example.com'] });
    defer(() => provider.close());
    const accounts = [
      provider.entry('ann@example.com', { password: 'sesame', login_interval_ms: 0 }),
      provider.entry('bob@example.com', { login_interval_ms: 0 }),
    ];
    const relay = await startRelay({
      accounts,
      caFile: provider.caFile,
      args: ['--config', at('config.json')],
    });
    defer(() => relay.stop());
    const { listeners: opened } = await relay.event('listening');
    const [plain, starttls, implicit] = (opened as { port: number }[]).map((l) => l.port);
    assert.ok(plain !== undefined && starttls !== undefined && implicit !== undefined);

    const first = await greeted(plain);
    defer(() => first.socket.destroy());
    await first.expect('MAIL FROM:<ann@example.com>', '530 5.7.0');
    await first.expect('MAIL FROM:<bob@example.com>', 250);
    await first.expect('RCPT TO:<to@example.net>', 250);
    await first.expect('DATA', 354);
    assert.equal((await first.body('Subject: one\r\n\r\nplain')).code, 250);

    const second = await greeted(starttls);
    defer(() => second.socket.destroy());
    await second.startTls(testAuthority().certPem);
    await second.expect('EHLO client.test', 250);
    await second.expect('MAIL FROM:<bob@example.com>', '530 5.7.0');
    await second.expect(PLAIN('not-the-one'), '535 5.7.8');
    await second.expect(PLAIN('sesame'), '235 2.7.0');
    await second.expect('MAIL FROM:<bob@example.com>', '550 5.7.1');

    const before = await serialAt(implicit);
    await renew();
    const reloaded = await relay.reload(accounts);
    assert.equal(reloaded.event, 'reloaded');
    assert.notEqual(await serialAt(implicit), before);
    // The session from before the reload is still logged in.
    await second.expect('MAIL FROM:<ann@example.com>', 250);
    await second.expect('RCPT TO:<to@example.net>', 250);
    await second.expect('DATA', 354);
    assert.equal((await second.body('Subject: two\r\n\r\ntls')).code, 250);

    const lmtp = connect(at('lmtp.sock'));
    defer(() => lmtp.destroy());
    let heard = '';
    lmtp.on('data', (chunk) => {
      heard += chunk;
    });
    lmtp.write(
      'LHLO c\r\nMAIL FROM:<bob@example.com>\r\nRCPT TO:<x@example.net>\r\nRCPT TO:<y@example.net>\r\n',
    );
    lmtp.write('DATA\r\nSubject: three\r\n\r\nlmtp\r\n.\r\nQUIT\r\n');
    await waitFor(() => heard.includes('\r\n221 '), { what: 'the end of the LMTP session' });
    assert.equal(heard.match(/^250 2\.0\.0 OK {2}/gm)?.length, 2, heard);

    assert.equal(provider.messages.length, 3);
    const metrics = await (
      await fetch(`${relay.adminUrl}/metrics`, { headers: { connection: 'close' } })
    ).text();
    assert.match(metrics, /^xoauth2_relay_listener_auth_failures_total 1$/m);
    assert.match(metrics, /^xoauth2_relay_listener_limit_hits_total\{limit="idle"\} 0$/m);
    assert.match(metrics, /^xoauth2_relay_listener_held_bytes 0$/m);
    assert.doesNotMatch(relay.output(), /sesame|not-the-one|bob@example\.com> is not/);
  }),
);

test(
  'listens on a socket that was handed over, as socket activation does',
  leakless(async (_t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'listeners-test-'));
    defer(() => rm(directory, { recursive: true }));
    const config = join(directory, 'config.json');
    await writeFile(config, JSON.stringify({ listeners: [{ fd: 3, allow: ['127.0.0.1'] }] }));
    const provider = await startProvider({ users: ['ann@example.com'] });
    defer(() => provider.close());
    const activator = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => activator.once('listening', resolve));
    const address = activator.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    const { fd } = (activator as unknown as { _handle: { fd: number } })._handle;
    const relay = await startRelay({
      accounts: [provider.entry('ann@example.com')],
      caFile: provider.caFile,
      args: ['--config', config],
      descriptors: [fd],
    });
    defer(() => relay.stop());
    await new Promise((resolve) => activator.close(resolve));
    assert.equal(relay.smtpPort, port);
    const client = await greeted(port);
    defer(() => client.socket.destroy());
    await client.expect('MAIL FROM:<ann@example.com>', 250);
  }),
);
