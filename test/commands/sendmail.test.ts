/** `send` as a sendmail: its options, its message, its exit codes; with the real command and relay. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAliases, resolveAlias } from '../../src/commands/mail-aliases.ts';
import { sendmailWords } from '../../src/commands/sendmail.ts';
import { parseSendmailArguments } from '../../src/commands/sendmail-arguments.ts';
import { completeMessage, fromOf, readMessage, recipientsOf } from '../../src/commands/sendmail-message.ts';
import { SendmailError } from '../../src/commands/sysexits.ts';
import { commandLine, StepError } from '../../src/enrol/client-dialogue.ts';
import { certificateFiles } from '../listener/stage.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';
import { runCli } from '../support/run-cli.ts';

test('options as callers write them', () => {
  const parse = (line: string) => parseSendmailArguments(line.split(' '));
  const cron = parse('-i -FCronDaemon -B8BITMIME -oem root');
  assert.deepEqual([cron.endsAtDot, cron.name, cron.recipients], [false, 'CronDaemon', ['root']]);
  const php = parse('-t -i -fshop@x.org');
  assert.deepEqual([php.readsRecipients, php.sender, php.recipients], [true, 'shop@x.org', []]);
  assert.equal(parse('-ti a@x').readsRecipients, true);
  assert.equal(parse('-ti a@x').endsAtDot, false);
  assert.equal(parse('-oi a@x').endsAtDot, false);
  assert.equal(parse('-O IgnoreDots=true a@x').endsAtDot, false);
  assert.equal(parse('a@x').endsAtDot, true);
  assert.equal(parse('-f <> a@x').sender, '');
  assert.equal(parseSendmailArguments(['-f', '', 'a@x']).sender, '');
  assert.deepEqual(parse('-f b@x -- -odd@x c@x,d@x').recipients, ['-odd@x', 'c@x', 'd@x']);
  assert.deepEqual(parse('-N failure,delay -R hdrs -V id7 -h 3 -om a@x').dsn, {
    notify: 'failure,delay',
    ret: 'hdrs',
    envid: 'id7',
  });
  assert.equal(parse('-V a+2Bb a@x').dsn.envid, 'a+2Bb');
  for (const [letter, value] of [
    ['N', 'success\r\nRCPT TO:<evil@x.org>'],
    ['N', 'success ORCPT=rfc822;x@y'],
    ['N', 'never,success'],
    ['N', 'success\n'],
    ['R', 'full\r\nRSET'],
    ['R', 'some'],
    ['V', 'id\r\nRSET'],
    ['V', 'a b'],
    ['V', 'x'.repeat(101)],
  ] as const)
    assert.throws(
      () => parseSendmailArguments([`-${letter}`, value, 'a@x']),
      (error) => error instanceof SendmailError && error.exitCode === 64 && !/[\r\n]/.test(error.message),
      value,
    );
  assert.equal(parse('-bp').nothingToDo, 'queue');
  assert.equal(parse('-q15m').nothingToDo, 'queue');
  assert.equal(parse('-bi').nothingToDo, 'aliases');
  for (const line of ['-bs', '-bd', '-f', '-ZZ', '-t -F'])
    assert.throws(
      () => parse(line),
      (error) => error instanceof SendmailError && error.exitCode === 64,
      line,
    );
});

test('which words are for sendmail', () => {
  assert.deepEqual(sendmailWords('/usr/sbin/sendmail', ['a@x']), ['a@x']);
  assert.deepEqual(sendmailWords('/bin/xoauth2-relay', ['send', '-t']), ['-t']);
  for (const words of [
    ['send', 'a@x', '--from', 'b@x'],
    ['send', '-h'],
    ['send', '--', '-t'],
    ['serve', '-t'],
    [],
  ])
    assert.equal(sendmailWords('/bin/xoauth2-relay', words), undefined, words.join(' '));
});

test('a message as it comes and as it leaves', () => {
  const read = (text: string, dot = false): string => readMessage(Buffer.from(text), dot).toString();
  assert.equal(read('A: b\n\nhello\n'), 'A: b\r\n\r\nhello\r\n');
  assert.equal(read('A: b\r\n\r\nno end'), 'A: b\r\n\r\nno end\r\n');
  assert.equal(read('A: b\n\none\n.\ntwo\n', true), 'A: b\r\n\r\none\r\n');
  assert.equal(read('A: b\n\none\n.\ntwo\n'), 'A: b\r\n\r\none\r\n.\r\ntwo\r\n');
  assert.equal(read('From root Mon Jan 1\nA: b\n\n'), 'A: b\r\n\r\n');
  assert.equal(read('no header here\n'), '\r\nno header here\r\n');

  const of = (text: string) => recipientsOf(readMessage(Buffer.from(text), false));
  assert.deepEqual(of('To: root\nCc: "B, b" <b@x.org>, c@X.org\nBcc: d@x.org\n\n'), [
    'root',
    'b@x.org',
    'c@x.org',
    'd@x.org',
  ]);
  assert.deepEqual(of('To: a@x.org\nResent-To: r@x.org\n\n'), ['r@x.org']);
  assert.throws(() => of('To: "open <a@x.org>, b@\n\n'), SendmailError);
  assert.equal(fromOf(readMessage(Buffer.from('From: A <a@x.org>\n\n'), false)), 'a@x.org');
  assert.equal(fromOf(readMessage(Buffer.from('From: root (Cron Daemon)\n\n'), false)), undefined);

  const leave = (text: string, name?: string): string =>
    completeMessage(readMessage(Buffer.from(text), false), {
      sender: 'ops@x.org',
      name,
      date: 'DATE',
      messageId: '<ID>',
      removesBcc: true,
    }).toString();
  assert.equal(
    leave('From: root (Cron Daemon)\nTo: root\nBcc: secret@x.org,\n more@x.org\nSubject: s\n\nbody\n'),
    'Date: DATE\r\nMessage-ID: <ID>\r\nFrom: "Cron Daemon" <ops@x.org>\r\nTo: root\r\nSubject: s\r\n\r\nbody\r\n',
  );
  assert.equal(
    leave('hello\n', 'Jürgen'),
    'Date: DATE\r\nMessage-ID: <ID>\r\nFrom: =?utf-8?b?SsO8cmdlbg==?= <ops@x.org>\r\n\r\nhello\r\n',
  );
  assert.equal(
    leave('From: a@y.org\nDate: d\nMessage-ID: m\n\n'),
    'From: a@y.org\r\nDate: d\r\nMessage-ID: m\r\n\r\n',
  );
});

test('aliases lead to addresses, in circles to nobody', () => {
  const aliases = parseAliases(
    '# system\npostmaster: root\nroot: Ann@x.org,\n  bob@x.org\na: b\nb: a\nlog: /var/log/x\npipe: "|prog"\n',
  );
  assert.deepEqual(resolveAlias(aliases, 'Postmaster'), ['Ann@x.org', 'bob@x.org']);
  assert.deepEqual(resolveAlias(aliases, 'you@y.org'), ['you@y.org']);
  for (const name of ['a', 'log', 'pipe', 'nobody']) assert.deepEqual(resolveAlias(aliases, name), [], name);
  assert.deepEqual(resolveAlias(parseAliases('default: all@x.org'), 'anyone'), ['all@x.org']);
});

/** Relay, aliases file and the link that programs call. */
async function stage(defer: Defer) {
  const directory = mkdtempSync(join(tmpdir(), 'sendmail-'));
  defer(() => rmSync(directory, { recursive: true }));
  const provider = await startProvider({ users: ['ops@x.org'], flavour: 'gmail' });
  defer(() => provider.close());
  const relay = await startRelay({ accounts: [provider.entry('ops@x.org')], caFile: provider.caFile });
  defer(() => relay.stop());
  const aliases = join(directory, 'aliases');
  writeFileSync(aliases, 'root: ops@x.org\nnobody: ops@x.org\n');
  const link = join(directory, 'sendmail');
  symlinkSync(join(repositoryRoot, 'bin/xoauth2-relay.js'), link);
  const env = { XOAUTH2_RELAY_PORT: String(relay.smtpPort), XOAUTH2_RELAY_ALIASES: aliases };
  const call = (args: readonly string[], input: string) => runCli(args, { bin: link, env, input });
  return { provider, relay, call, env };
}

test(
  'a link named sendmail delivers, says nothing, and takes Bcc out',
  leakless(async (_t, defer) => {
    const { provider, call, env } = await stage(defer);
    const input =
      'To: a@y.org\nCc: b@y.org\nBcc: hidden@y.org\nFrom: Ops <ops@x.org>\nSubject: t\n\n.leading dot\n.\nafter the dot\u00fc\n';
    const done = await call(['-t', '-oi', 'extra@y.org'], input);
    assert.deepEqual(done, { code: 0, stdout: '', stderr: '' });
    const [message] = provider.messages;
    assert.deepEqual((message?.recipients ?? []).map(({ address }) => address).sort(), [
      'a@y.org',
      'b@y.org',
      'extra@y.org',
      'hidden@y.org',
    ]);
    const text = message?.body.toString() ?? '';
    assert.doesNotMatch(text, /hidden|bcc/i);
    assert.match(text, /^Date: .* \+0000\r\nMessage-ID: <[^>]+@x\.org>\r\n/);
    assert(text.endsWith('\r\n\r\n.leading dot\r\n.\r\nafter the dot\u00fc\r\n'));

    // As cron does it, by the long name.
    const cron = await runCli(['send', '-i', '-FCronDaemon', '-B8BITMIME', '-oem', 'root'], {
      env,
      input: 'From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> backup\n\nfailed\n',
    });
    assert.deepEqual(cron, { code: 0, stdout: '', stderr: '' });
    assert.match(provider.messages[1]?.body.toString() ?? '', /^From: "CronDaemon" <ops@x\.org>\r$/m);
    assert.equal(provider.messages[1]?.recipients[0]?.address, 'ops@x.org');
  }),
);

test(
  'exit codes are those of sysexits.h, and a refused recipient keeps the message from all',
  leakless(async (_t, defer) => {
    const { provider, call, env } = await stage(defer);
    const mail = 'Subject: t\n\nx\n';
    const codes = async (
      args: readonly string[],
      input = mail,
    ): Promise<readonly [number | null, string]> => {
      const { code, stdout, stderr } = await call(args, input);
      assert.equal(stdout, '');
      return [code, stderr];
    };
    const expectCode = async (code: number, words: RegExp, args: readonly string[], input?: string) => {
      const [got, stderr] = await codes(args, input);
      assert.equal(got, code, `${args.join(' ')}: ${stderr}`);
      assert.match(stderr, words);
    };
    await expectCode(64, /-bs is not offered/, ['-bs']);
    await expectCode(64, /nobody to send to/, ['-f', 'ops@x.org']);
    await expectCode(64, /nobody to send to/, ['-t', '-f', 'ops@x.org'], mail);
    await expectCode(65, /cannot tell who is meant/, ['-t'], 'To: "open <a@x.org>, b@\n\n');
    await expectCode(67, /nowhere-man: no domain/, ['-f', 'ops@x.org', 'nowhere-man']);
    await expectCode(69, /550 5\.7\.1/, ['-f', 'stranger@z.org', 'a@y.org']);
    provider.smtp.script('RCPT', { line: /gone@y\.org/ }, { reply: '550 5.1.1 no such user' });
    await expectCode(67, /gone@y\.org: 550 5\.1\.1/, ['-f', 'ops@x.org', 'a@y.org', 'gone@y.org', 'b@y.org']);
    assert.equal(provider.messages.length, 0);
    provider.token.revoke('ops@x.org');
    provider.smtp.script('RCPT', { line: /later@y\.org/ }, { reply: '451 4.3.0 later' });
    await expectCode(75, /451 4\.3\.0/, ['-f', 'ops@x.org', 'a@y.org', 'later@y.org']);
    const nobody = createServer();
    await new Promise<void>((resolve) => nobody.listen(0, '127.0.0.1', resolve));
    const { port } = nobody.address() as { port: number };
    await new Promise((resolve) => nobody.close(resolve));
    const { code, stderr } = await runCli(['send', '-f', 'ops@x.org', 'a@y.org'], {
      env: { ...env, XOAUTH2_RELAY_PORT: String(port) },
      input: mail,
    });
    assert.equal(code, 75);
    assert.match(stderr, /no relay listens there/);

    // Not the message's fault: a caller with a queue keeps it.
    const typo = await runCli(['send', '-f', 'ops@x.org', 'a@y.org'], {
      env: { ...env, XOAUTH2_RELAY_PORT: '2525x' },
      input: mail,
    });
    assert.equal(typo.code, 75);
    assert.match(typo.stderr, /XOAUTH2_RELAY_PORT: expected a whole number/);
  }),
);

/** A listener that answers each read as told, and with nothing where that is nothing. */
async function startOdd(defer: Defer, answer: (line: string) => string | undefined, greeting = '') {
  const server = createServer((socket) => {
    socket.on('error', () => {}).write(`220 odd ${greeting}\r\n`);
    socket.setEncoding('utf8').on('data', (line: string) => {
      const reply = answer(line);
      if (reply !== undefined) socket.write(`${reply}\r\n`);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  defer(() => new Promise((resolve) => server.close(resolve)));
  const directory = mkdtempSync(join(tmpdir(), 'sendmail-'));
  defer(() => rmSync(directory, { recursive: true }));
  const accounts = join(directory, 'accounts.json');
  writeFileSync(accounts, '{ "accounts": [] }');
  return { accounts, env: { XOAUTH2_RELAY_PORT: String((server.address() as { port: number }).port) } };
}

test(
  'a listener that has taken the message and does not answer QUIT holds nobody up',
  leakless(async (_t, defer) => {
    const { accounts, env } = await startOdd(defer, (line) =>
      line === 'QUIT\r\n' ? undefined : line === 'DATA\r\n' ? '354 go on' : '250 ok',
    );
    const called = await runCli(['send', '-f', 'ops@x.org', 'a@y.org'], { env, input: 'Subject: t\n\nx\n' });
    assert.deepEqual([called.code, called.stderr], [0, '']);
    const sent = await runCli(['send', 'a@y.org', '--from', 'ops@x.org', '--accounts', accounts], { env });
    assert.equal(sent.code, 0, sent.stderr);
    assert.match(sent.stdout, /accepted: 250 ok/);
  }),
);

test(
  'a message has its exit code also where nobody can be told of it',
  leakless(async (_t, defer) => {
    const { env } = await startOdd(defer, () => '451 later');
    const program = join(repositoryRoot, 'bin/xoauth2-relay.js');
    const call = spawn(
      'sh',
      [
        '-c',
        'exec "$@" 2>/dev/full',
        'sh',
        process.execPath,
        program,
        'send',
        '-v',
        'a@y.org',
        '-f',
        'ops@x.org',
      ],
      {
        env: { ...process.env, ...env },
        stdio: ['pipe', 'ignore', 'ignore'],
      },
    );
    call.stdin.end('Subject: t\n\nx\n');
    assert.deepEqual(await once(call, 'exit'), [75, null]);
  }),
);

test(
  'a DATA that is not answered with 354 sends nothing, and is not told as sent',
  leakless(async (_t, defer) => {
    const heard: string[] = [];
    const { accounts, env } = await startOdd(defer, (line) => {
      heard.push(line);
      return '250 ok';
    });
    const input = 'Subject: t\n\nx\n';
    const called = await runCli(['send', '-f', 'ops@x.org', 'a@y.org'], { env, input });
    assert.deepEqual([called.code, called.stderr], [75, 'sendmail: DATA: 250 ok\n']);
    const sent = await runCli(['send', 'a@y.org', '--from', 'ops@x.org', '--accounts', accounts], { env });
    assert.equal(sent.code, 1);
    assert.match(sent.stderr, /failed at sender: 250 ok/);
    assert.doesNotMatch(heard.join(''), /Subject/);
  }),
);

test(
  'nothing that a caller writes becomes a command of its own',
  leakless(async (_t, defer) => {
    const { provider, relay, call, env } = await stage(defer);
    const mail = 'Subject: t\n\nx\n';
    const evil = 'RCPT TO:<evil@z.org>';
    const calls: readonly (readonly [number, readonly string[], string])[] = [
      [64, ['-f', 'ops@x.org', '-N', `success\r\n${evil}`, 'a@y.org'], mail],
      [64, ['-f', 'ops@x.org', '-V', `id\r\n${evil}`, 'a@y.org'], mail],
      [64, ['-f', 'ops@x.org', '-R', `full\r\n${evil}`, 'a@y.org'], mail],
      [65, ['-f', `ops@x.org>\r\n${evil}`, 'a@y.org'], mail],
      [65, ['-r', `ops@x.org> SIZE=1`, 'a@y.org'], mail],
      [65, ['-f', 'ops@x.org', `a@y.org>\r\n${evil}`], mail],
      [65, ['-f', 'ops@x.org', '-t'], `To: "a\r\n ${evil}"@y.org\n\nx\n`],
      [0, ['-f', 'ops@x.org', '-F', `Ops\r\nBcc: evil@z.org\r\n\r\n.\r\n${evil}`, 'a@y.org'], mail],
    ];
    for (const [code, args, input] of calls) {
      const done = await call(args, input);
      assert.equal(done.code, code, `${JSON.stringify(args)}: ${done.stderr}`);
    }
    for (const args of [
      [`a@y.org>\r\n${evil}`, '--from', 'ops@x.org'],
      ['a@y.org', '--from', `ops@x.org>\r\n${evil}`],
      ['a@y.org', '--from', 'ops@x.org', '--accounts', relay.accountsFile, '--direct', `x\r\n${evil}`],
    ]) {
      const done = await runCli(['send', '--accounts', relay.accountsFile, ...args], { env });
      assert.equal(done.code, 2, `${JSON.stringify(args)}: ${done.stderr}`);
    }
    const recipients = provider.messages.flatMap((message) => message.recipients.map((r) => r.address));
    assert.deepEqual(recipients, ['a@y.org']);
    assert.match(provider.messages[0]?.body.toString() ?? '', /^From: "Ops Bcc: evil@z\.org/m);
    assert.throws(() => commandLine(`MAIL FROM:<a@x.org>\r\n${evil}`, 'sender'), StepError);
    assert.throws(() => commandLine(`RCPT TO:<a@x.org>\n${evil}`, 'sender'), StepError);
  }),
);

test(
  'a user without a name, as in a container, sends where -f or From: says who',
  leakless(async (t, defer) => {
    if (process.getuid?.() !== 0) return t.skip('needs root');
    const { provider, env } = await stage(defer);
    const send = (args: readonly string[], input: string): Promise<string> =>
      new Promise((resolve) => {
        const child = execFile(
          process.execPath,
          [join(repositoryRoot, 'bin/xoauth2-relay.js'), 'send', ...args],
          { uid: 54_321, gid: 54_321, env: { ...env, XOAUTH2_RELAY_ALIASES: '/dev/null' } },
          (error, _stdout, stderr) => resolve(`${error?.code ?? 0} ${stderr}`),
        );
        child.stdin?.end(input);
      });
    assert.equal(await send(['-t', '-i'], 'To: a@y.org\nFrom: ops@x.org\n\nx\n'), '0 ');
    assert.equal(await send(['-i', '-f', 'ops@x.org', 'a@y.org'], 'Subject: t\n\nx\n'), '0 ');
    assert.equal(provider.messages.length, 2);
    assert.match(
      await send(['-i', 'a@y.org'], 'Subject: t\n\nx\n'),
      /^78 sendmail: no sender: .*"54321: address"/,
    );
  }),
);

for (const tls of ['starttls', 'implicit'])
  test(
    `a test message goes through a listener with ${tls}, by its name; a certificate of nobody known gets none`,
    leakless(async (_t, defer) => {
      const { certFile, keyFile } = await certificateFiles(defer);
      const provider = await startProvider({ users: ['ann@example.com'] });
      defer(() => provider.close());
      const secured = { XOAUTH2_RELAY_CERT_FILE: certFile, XOAUTH2_RELAY_KEY_FILE: keyFile };
      const relay = await startRelay({
        accounts: [provider.entry('ann@example.com')],
        caFile: provider.caFile,
        args: ['--tls', tls],
        env: secured,
      });
      defer(() => relay.stop());
      const words = ['send', 'bob@example.net', '--accounts', relay.accountsFile];
      words.push('--host', 'localhost', '--port', String(relay.smtpPort), '--tls', tls);
      const send = (ca: object) => runCli(words, { env: { ...secured, ...ca } });
      const stranger = await send({ NODE_EXTRA_CA_CERTS: undefined });
      assert.equal(stranger.code, 1);
      assert.match(stranger.stderr, /failed at tls: [A-Z_]+/);
      const { code, stdout, stderr } = await send({ NODE_EXTRA_CA_CERTS: provider.caFile });
      assert.equal(code, 0, stderr);
      assert.match(stdout, /C: EHLO localhost/);
      await provider.received(1);
    }),
  );

test(
  'a listener that quotes the login of a test message, or steers the terminal, has neither shown',
  leakless(async (_t, defer) => {
    const password = 'sesame-open-7351';
    const { accounts, env } = await startOdd(
      defer,
      (line) => {
        const [verb = '', , given = ''] = line.trim().split(' ');
        const decoded = Buffer.from(given, 'base64').toString().replaceAll('\0', ' ');
        return verb === 'AUTH' ? `535 5.7.8 ${given} is ${decoded}` : '250 ok';
      },
      '\x1b[2J\x1b]0;title\x07',
    );
    const { code, stdout, stderr } = await runCli(
      ['send', 'a@y.org', '--from', 'ops@x.org', '--accounts', accounts, '--auth', 'ops@x.org'],
      { env: { ...env, XOAUTH2_RELAY_CLIENT_PASSWORD: password } },
    );
    assert.equal(code, 1);
    assert.match(stderr, /failed at auth: 535 5\.7\.8/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: none may reach the terminal
    assert.doesNotMatch(stdout, /[\x07\x1b]/);
    const plain = Buffer.from(`\0ops@x.org\0${password}`).toString('base64');
    for (const secret of [password, password.slice(0, 8), plain.slice(-12)])
      assert.equal(`${stdout}${stderr}`.includes(secret), false, secret);
  }),
);
