// needs: python3, curl, perl, php, msmtp, swaks, postfix, nullmailer, dma
/** What real clients send: each its own way with line ends, dots, logins; every message arrives as it was meant. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createTransport } from 'nodemailer';
import { type Defer, leakless } from '../support/leak-check.ts';
import { runProgram } from '../support/program.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';

const FROM = 'ann@gmail.example';
const TO = 'b@example.net';
/** Lines of dots, one of them alone: an end of data for whoever looks only at LF. */
const TEXT = ['Subject: client', `From: ${FROM}`, `To: ${TO}`, '', 'one', '.', '.dot', 'last', ''];
const LF = TEXT.join('\n');
const CRLF = TEXT.join('\r\n');

interface Stage {
  readonly provider: Provider;
  readonly port: number;
  readonly file: (name: string, text: string) => string;
}

async function open(defer: Defer): Promise<Stage> {
  const provider = await startProvider({ users: [FROM] });
  defer(() => provider.close());
  const account = provider.entry(FROM, { messages_per_minute: 0, login_interval_ms: 0 });
  const relay = await startRelay({ accounts: [account], caFile: provider.caFile });
  defer(() => relay.stop());
  const directory = mkdtempSync(join(tmpdir(), 'clients-test-'));
  defer(() => rmSync(directory, { recursive: true }));
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text);
    return join(directory, name);
  };
  return { provider, port: relay.smtpPort, file };
}

/** Runs a client and gives what it sent, as it arrived. */
async function sent(
  stage: Stage,
  run: () => Promise<{ code: number | null; output: string }>,
): Promise<string> {
  const before = stage.provider.messages.length;
  const { code, output } = await run();
  assert.equal(code, 0, output);
  const messages = await stage.provider.received(before + 1);
  assert.equal(messages.length, before + 1);
  const message = messages.at(-1);
  assert.equal(message?.sender, FROM);
  assert.doesNotMatch(message?.body.toString('latin1') ?? '', /\r(?!\n)|(?<!\r)\n/);
  return message?.body.toString('latin1') ?? '';
}

const bodyOf = (message: string): string => message.slice(message.indexOf('\r\n\r\n') + 4);
const BODY = bodyOf(CRLF);

test(
  'smtplib: send_message, sendmail with LF, and a dummy login',
  leakless(async (_t, defer) => {
    const s = await open(defer);
    const python = (lines: readonly string[]) =>
      runProgram('python3', [
        '-c',
        [
          'import smtplib, sys',
          'from email.message import EmailMessage',
          `raw = ${JSON.stringify(LF)}`,
          `c = smtplib.SMTP("127.0.0.1", ${s.port})`,
          ...lines,
          'c.quit()',
        ].join('\n'),
      ]);
    const message = await sent(s, () =>
      python([
        'm = EmailMessage()',
        `m["From"] = "${FROM}"; m["To"] = "${TO}"; m["Subject"] = "client"`,
        'm.set_content("one\\n.\\n.dot\\nlast\\n")',
        'c.send_message(m)',
      ]),
    );
    assert.equal(bodyOf(message), BODY);
    // smtplib appends CRLF to a message that ends with LF.
    assert.equal(
      bodyOf(await sent(s, () => python([`c.sendmail("${FROM}", ["${TO}"], raw.encode())`]))),
      `${BODY}\r\n`,
    );
    assert.equal(
      bodyOf(
        await sent(s, () => python([`c.login("${FROM}", "x")`, `c.sendmail("${FROM}", ["${TO}"], raw)`])),
      ),
      BODY,
    );
  }),
);

test(
  'PHP: mail() through the sendmail command, and SMTP over a stream, both with LF',
  leakless(async (_t, defer) => {
    const s = await open(defer);
    const sendmail = s.file('sendmail', '');
    rmSync(sendmail);
    symlinkSync(join(repositoryRoot, 'bin/xoauth2-relay.js'), sendmail);
    const php = (lines: readonly string[]) =>
      runProgram('php', ['-n', '-d', `sendmail_path=${sendmail} -t -i`, '-r', lines.join('\n')], {
        env: { ...process.env, XOAUTH2_RELAY_PORT: String(s.port), XOAUTH2_RELAY_ALIASES: '/dev/null' },
      });
    const text = JSON.stringify(LF.slice(LF.indexOf('\n\n') + 2));
    const mailed = await sent(s, () =>
      php([`exit(mail("${TO}", "client", ${text}, "From: ${FROM}", "-f${FROM}") ? 0 : 1);`]),
    );
    assert.match(mailed, /^Subject: client\r$/m);
    assert.equal(bodyOf(mailed).replace(/(\r\n)+$/, '\r\n'), BODY);
    // As the small classes do it that every forum has: no dots doubled, so none at the start of a line.
    const plain = LF.replace(/^\./gm, ':');
    const streamed = await sent(s, () =>
      php([
        `$c = stream_socket_client("tcp://127.0.0.1:${s.port}");`,
        '$say = function ($line, $code) use ($c) { if ($line !== null) fwrite($c, $line . "\\n");',
        '  do { $r = fgets($c); } while (is_string($r) && $r[3] === "-"); if ((int)$r !== $code) { echo $r; exit(1); } };',
        '$say(null, 220); $say("HELO client.test", 250);',
        `$say("MAIL FROM:<${FROM}>", 250); $say("RCPT TO:<${TO}>", 250); $say("DATA", 354);`,
        `$say(${JSON.stringify(plain)} . "\\r\\n.\\r", 250); $say("QUIT", 221);`,
      ]),
    );
    assert.equal(bodyOf(streamed).replace(/(\r\n)+$/, '\r\n'), bodyOf(CRLF.replace(/^\./gm, ':')));
  }),
);

test(
  'curl uploads a file with LF',
  leakless(async (_t, defer) => {
    const s = await open(defer);
    const path = s.file('mail.txt', LF);
    const args = ['-sS', `smtp://127.0.0.1:${s.port}/client.test`, '--mail-from', FROM, '--mail-rcpt', TO];
    const message = await sent(s, () => runProgram('curl', [...args, '--upload-file', path]));
    // curl ends the message with CRLF of its own.
    assert.equal(bodyOf(message), `${BODY}\r\n`);
    const login = ['--user', `${FROM}:x`];
    await sent(s, () => runProgram('curl', [...args, ...login, '--upload-file', path]));
  }),
);

test(
  'msmtp, swaks with a dummy login, and smtp-source',
  leakless(async (_t, defer) => {
    const s = await open(defer);
    const msmtp = ['--host=127.0.0.1', `--port=${s.port}`, '--auth=off', '--tls=off', `--from=${FROM}`, TO];
    assert.equal(bodyOf(await sent(s, () => runProgram('msmtp', msmtp, { input: LF }))), BODY);
    const swaks = ['--server', `127.0.0.1:${s.port}`, '--auth-user', FROM, '--auth-password', 'x'];
    await sent(s, () => runProgram('swaks', [...swaks, '--from', FROM, '--to', TO]));
    const before = s.provider.messages.length;
    const source = ['-s', '4', '-m', '20', '-l', '4000', '-f', FROM, '-t', TO, `127.0.0.1:${s.port}`];
    const { code, output } = await runProgram('smtp-source', source);
    assert.equal(code, 0, output);
    assert.equal((await s.provider.received(before + 20)).length, before + 20);
  }),
);

test(
  'nodemailer, Net::SMTP and nullmailer',
  leakless(async (_t, defer) => {
    const s = await open(defer);
    const transport = createTransport({ host: '127.0.0.1', port: s.port, auth: { user: FROM, pass: 'x' } });
    const message = await sent(s, async () => {
      await transport.sendMail({ from: FROM, to: TO, subject: 'client', text: 'one\n.\n.dot\nlast\n' });
      return { code: 0, output: '' };
    });
    assert.equal(bodyOf(message), BODY);
    const perl = [
      `my $c = Net::SMTP->new("127.0.0.1", Port => ${s.port}) or die;`,
      `$c->mail('${FROM}') && $c->to('${TO}') && $c->data() or die $c->message;`,
      `local $/; $c->datasend(<STDIN>); $c->dataend() or die $c->message; $c->quit;`,
    ];
    assert.equal(
      bodyOf(await sent(s, () => runProgram('perl', ['-MNet::SMTP', '-e', perl.join('\n')], { input: LF }))),
      BODY,
    );
    const queued = s.file('queued', `${FROM}\n${TO}\n\n${LF}`);
    const program = join(repositoryRoot, 'build/nullmailer/usr/lib/nullmailer/smtp');
    const nullmailer = await sent(s, () =>
      runProgram('sh', ['-c', 'exec "$0" 3<"$1"', program, queued], {
        input: `host=127.0.0.1\nport=${s.port}\n\n`,
        env: { ...process.env, HELOHOST: 'client.test' },
      }),
    );
    assert.equal(bodyOf(nullmailer), BODY);
  }),
);

test(
  "dma, Debian's small sendmail",
  leakless(async (_t, defer) => {
    const s = await open(defer);
    // Its configuration has one place; the spool is ours.
    const place = '/etc/dma';
    assert.ok(!existsSync(place), 'no dma of this machine is touched');
    mkdirSync(place);
    defer(() => rmSync(place, { recursive: true }));
    const spool = mkdtempSync(join(tmpdir(), 'dma-spool-'));
    defer(() => rmSync(spool, { recursive: true }));
    for (const [path, mode] of [
      [place, 0o755],
      [spool, 0o777],
    ] as const)
      chmodSync(path, mode);
    writeFileSync(
      join(place, 'dma.conf'),
      `SMARTHOST 127.0.0.1\nPORT ${s.port}\nSPOOLDIR ${spool}\nMAILNAME client.test\n`,
    );
    const program = join(repositoryRoot, 'build/dma/usr/sbin/dma');
    const message = await sent(s, () => runProgram(program, ['-i', '-D', '-f', FROM, TO], { input: LF }));
    assert.equal(bodyOf(message), BODY);
  }),
);
