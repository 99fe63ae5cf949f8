// needs: postfix
/** The recipe for devices as it stands in docs/, with this machine's address in place of the example's. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { issueCertificate, testAuthority } from '../support/certificate.ts';
import { leakless } from '../support/leak-check.ts';
import { startPostfix } from '../support/postfix.ts';
import { runProgram } from '../support/program.ts';
import { type AccountEntry, startProvider } from '../support/provider.ts';
import { readRecipe } from '../support/recipe.ts';
import { startRelay } from '../support/relay-process.ts';
import { smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const recipe = readRecipe('printers.md');
/** An address of this machine that is not loopback: packets to it stay on the machine all the same. */
const OWN = Object.values(networkInterfaces())
  .flatMap((list) => list ?? [])
  .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;

test(
  'a printer with LOGIN over STARTTLS, an old one without anything, and a Postfix on loopback at the same time',
  { skip: OWN === undefined ? 'this machine has only loopback' : false },
  leakless(async (_t, defer) => {
    const host = OWN ?? '';
    const directory = mkdtempSync(join(tmpdir(), 'printers-test-'));
    defer(() => rmSync(directory, { recursive: true }));
    const { certPem, keyPem } = issueCertificate();
    writeFileSync(join(directory, 'relay.crt'), certPem);
    writeFileSync(join(directory, 'relay.key'), keyPem);
    const config = recipe
      .block('"listeners"')
      .replaceAll('192.0.2.10', host)
      .replaceAll('192.0.2.50', host)
      .replace(/"port": \d+/g, '"port": 0');
    writeFileSync(join(directory, 'relay.json'), config);

    const provider = await startProvider({ users: ['scanner@example.com', 'office@example.com'] });
    defer(() => provider.close());
    const accounts = (JSON.parse(recipe.block('SCANNER_PASSWORD')) as AccountEntry[]).map(
      ({ email, client_id, client_secret, refresh_token, provider: _, ...more }) =>
        provider.entry(email, more),
    );
    const relay = await startRelay({
      accounts,
      caFile: provider.caFile,
      args: ['--config', join(directory, 'relay.json')],
      env: { SCANNER_PASSWORD: 'sesame' },
    });
    defer(() => relay.stop());
    const { listeners } = await relay.event('listening');
    const [local, printers, old] = (listeners as { port: number }[]).map(({ port }) => port);
    assert.ok(local !== undefined && printers !== undefined && old !== undefined);

    const printer = await smtpClient(printers, { host });
    defer(() => printer.socket.destroy());
    await printer.expect(undefined, 220);
    assert.doesNotMatch((await printer.send('EHLO printer')).text, /AUTH/);
    await printer.expect('MAIL FROM:<scanner@example.com>', '530 5.7.0');
    await printer.startTls(testAuthority().certPem);
    assert.match((await printer.send('EHLO printer')).text, /AUTH PLAIN LOGIN/);
    await printer.expect('AUTH LOGIN', 334);
    await printer.expect(Buffer.from('scanner@example.com').toString('base64'), 334);
    await printer.expect(Buffer.from('sesame').toString('base64'), 235);
    await printer.expect('MAIL FROM:<scanner@example.com>', 250);
    await printer.expect('RCPT TO:<you@example.net>', 250);
    await printer.expect('DATA', 354);
    assert.equal(
      (await printer.body('From: scanner@example.com\r\nSubject: scan 1\r\n\r\npage\r\n')).code,
      250,
    );

    const plain = await smtpClient(old, { host });
    defer(() => plain.socket.destroy());
    await plain.expect(undefined, 220);
    await plain.expect('HELO Old Printer', 250);
    await plain.expect('MAIL FROM:< scan@device.local >', 250);
    await plain.expect('RCPT TO:<you@example.net>', 250);
    await plain.expect('DATA', 354);
    assert.equal(
      (await plain.body('From: Scanner <scan@device.local>\r\nSubject: scan 2\r\n\r\npage\r\n')).code,
      250,
    );

    const postfix = await startPostfix({ relayPort: local });
    defer(() => postfix.stop());
    await runProgram(
      'sendmail',
      ['-C', postfix.configDirectory, '-f', 'root@mta.example.org', 'you@example.net'],
      {
        input: 'From: root (Cron Daemon)\nSubject: cron\n\ntest\n',
      },
    );
    const messages = await provider.received(3, 20_000);
    assert.deepEqual(
      messages.map(({ user, sender }) => [user, sender]),
      [
        ['scanner@example.com', 'scanner@example.com'],
        ['office@example.com', 'office@example.com'],
        ['office@example.com', 'office@example.com'],
      ],
    );
    const [first, second, third] = messages.map(({ body }) => body.toString());
    assert.match(first ?? '', /^From: scanner@example\.com\r\nSubject: scan 1\r\n\r\npage\r\n$/);
    assert.match(
      second ?? '',
      /^Date: .*\r\nMessage-ID: <.*@example\.com>\r\nFrom: "Scanner \(scan@device\.local\)" <office@example\.com>\r\nReply-To: Scanner <scan@device\.local>\r\nSubject: scan 2\r\n\r\npage\r\n$/,
    );
    assert.match(third ?? '', /^From: ".*" <office@example\.com>\r\n/m);
    await waitFor(() => /status=sent/.test(postfix.log()) || undefined, {
      what: `status=sent in ${postfix.log()}`,
    });
  }),
);
