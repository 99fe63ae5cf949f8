// needs: microsocks, tinyproxy
/** SMTP through the proxies people run: the relay and `check`, nothing told of the login. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { sendMail } from '../support/dialogue.ts';
import { freePort } from '../support/free-port.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@gmail.example';
const BEN = 'ben@gmail.example';
const LOGIN = 'relay:hunter2secret';

/** Runs a program until the test is over; resolves when the port answers. */
async function run(defer: Defer, port: number, command: string, args: readonly string[]): Promise<void> {
  const child = spawn(command, args, { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('close', resolve));
  defer(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const answers = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
      socket.once('close', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
  await waitFor(answers, { what: `${command} on port ${port}` });
}

test(
  'mail and check go through microsocks and tinyproxy; the login of neither is told anywhere',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'smtp-proxy-'));
    defer(() => rmSync(directory, { recursive: true }));
    const [socks, http] = [await freePort(), await freePort()];
    const [user = '', password = ''] = LOGIN.split(':');
    await run(defer, socks, 'microsocks', [
      '-i',
      '127.0.0.1',
      '-p',
      String(socks),
      '-u',
      user,
      '-P',
      password,
    ]);
    const conf = join(directory, 'tinyproxy.conf');
    writeFileSync(
      conf,
      `Listen 127.0.0.1\nPort ${http}\nBasicAuth ${user} ${password}\nMaxClients 20\nAllow 127.0.0.1\n`,
    );
    await run(defer, http, 'tinyproxy', ['-d', '-c', conf]);

    const provider = await startProvider({ users: [ANN, BEN] });
    defer(() => provider.close());
    const common = `http://${LOGIN}@127.0.0.1:${http}`;
    const env = { XOAUTH2_RELAY_SMTP_PROXY: common, SOCKS: `socks5://${LOGIN}@127.0.0.1:${socks}` };
    const relay = await startRelay({
      accounts: [provider.entry(ANN), provider.entry(BEN, { smtp_proxy: { env: 'SOCKS' } })],
      caFile: provider.caFile,
      env,
    });
    defer(() => relay.stop());
    for (const from of [ANN, BEN]) await sendMail(relay.smtpPort, { from });
    const received = await provider.received(2);
    assert.deepEqual(received.map((mail) => mail.user).sort(), [ANN, BEN]);

    const place = ['--accounts', relay.accountsFile, '--admin-port', String(relay.adminPort)];
    const cli = (args: readonly string[], more: Record<string, string> = {}) =>
      runCli([...args, ...place], { env: { NODE_EXTRA_CA_CERTS: provider.caFile, ...env, ...more } });
    const checked = await cli(['check', '--json']);
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
    assert.match(
      checked.stdout,
      new RegExp(`localhost:${provider.smtp.port} through http://127.0.0.1:${http}`),
    );
    assert.match(
      checked.stdout,
      new RegExp(`localhost:${provider.smtp.port} through socks5://127.0.0.1:${socks}`),
    );

    const wrong = await cli(['check', BEN], { SOCKS: `socks5://relay:wrong-hunter3@127.0.0.1:${socks}` });
    assert.equal(wrong.code, 1);
    assert.match(
      wrong.stdout,
      /does not take the user and password of smtp_proxy[\s\S]*cure: correct user and password/,
    );
    const away = await cli(['check', ANN], {
      XOAUTH2_RELAY_SMTP_PROXY: 'http://u:wrong-hunter3@127.0.0.1:1',
    });
    assert.match(away.stdout, /http:\/\/127\.0\.0\.1:1 cannot be reached \(ECONNREFUSED\)/);
    const malformed = await cli(['check', '--offline'], { SOCKS: 'socks9://u:wrong-hunter3@h' });
    assert.match(malformed.stderr + malformed.stdout, /smtp_proxy/);
    const setting = await cli(['check', '--offline'], {
      XOAUTH2_RELAY_SMTP_PROXY: 'socks9://u:wrong-hunter3@h',
    });
    assert.equal(setting.code, 2);
    assert.match(setting.stderr, /XOAUTH2_RELAY_SMTP_PROXY/);

    const told = [
      relay.output(),
      JSON.stringify(await relay.admin('/admin/accounts')),
      await (await fetch(`${relay.adminUrl}/metrics`)).text(),
    ];
    for (const { stdout, stderr } of [checked, wrong, away, malformed, setting]) told.push(stdout, stderr);
    for (const text of told) assert.doesNotMatch(text, /hunter[23]/);
  }),
);
