// needs: s-nail, bsd-mailx, perl, python3
/** Programs that call sendmail, with the relay's command in its place. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { repositoryRoot, startRelay } from '../support/relay-process.ts';
import { waitFor, within } from '../support/wait-for.ts';

test(
  's-nail, bsd-mailx, perl and python deliver through a sendmail that is the relay’s command',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'sendmail-'));
    defer(() => rmSync(directory, { recursive: true }));
    const provider = await startProvider({ users: ['ops@x.org'], flavour: 'gmail' });
    defer(() => provider.close());
    const relay = await startRelay({ accounts: [provider.entry('ops@x.org')], caFile: provider.caFile });
    defer(() => relay.stop());
    const link = join(directory, 'sendmail');
    symlinkSync(join(repositoryRoot, 'bin/xoauth2-relay.js'), link);
    writeFileSync(join(directory, 'mailrc'), `set sendmail=${link}\nset sendwait\n`);
    const env = {
      ...process.env,
      HOME: directory,
      MAILRC: join(directory, 'mailrc'),
      XOAUTH2_RELAY_PORT: String(relay.smtpPort),
      XOAUTH2_RELAY_ALIASES: '/dev/null',
    };
    const run = async (program: string, args: readonly string[], input: string): Promise<number | null> => {
      const child = spawn(program, args, { env, stdio: ['pipe', 'ignore', 'inherit'] });
      const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
      child.stdin.end(input);
      return within(ended, 30_000, program);
    };
    const arrived = async (count: number): Promise<string> => {
      await waitFor(() => provider.messages.length >= count, { what: `message ${count}` });
      return provider.messages[count - 1]?.body.toString() ?? '';
    };

    assert.equal(
      await run(
        's-nail',
        ['-:/', '-S', `mta=${link}`, '-S', 'sendwait', '-r', 'ops@x.org', '-s', 'from s-nail', 'a@y.org'],
        'one\n.two\n',
      ),
      0,
    );
    assert.match(await arrived(1), /^Subject: from s-nail\r$[\s\S]*\r\n\r\none\r\n\.two\r\n$/m);

    assert.equal(await run('bsd-mailx', ['-s', 'from mailx', '-r', 'ops@x.org', 'b@y.org'], 'hello\n'), 0);
    assert.match(await arrived(2), /^Subject: from mailx\r$/m);
    assert.equal(provider.messages[1]?.recipients[0]?.address, 'b@y.org');

    // As PHP's mail(), Django, git send-email and WordPress' wp_mail do it.
    const piped = 'To: c@y.org\nFrom: Shop <ops@x.org>\nBcc: d@y.org\nSubject: piped\n\ntext\n';
    const perl = `open(my $m, '|-', '${link} -t -i -fops\\@x.org') or die; print $m join('', <STDIN>); close($m) or exit 9;`;
    assert.equal(await run('perl', ['-e', perl], piped), 0);
    assert.doesNotMatch(await arrived(3), /^bcc:|d@y\.org/im);
    const python = `import subprocess,sys; sys.exit(subprocess.run(['${link}','-i','-f','ops@x.org','--','e@y.org'], input=sys.stdin.buffer.read()).returncode)`;
    assert.equal(await run('python3', ['-c', python], piped), 0);
    await arrived(4);

    // What the caller sees of "try again": mailx keeps the message in dead.letter.
    provider.smtp.script('RCPT', { line: /later@y\.org/ }, { reply: '451 4.3.0 later' });
    assert.equal(await run('python3', ['-c', python.replace('e@y.org', 'later@y.org')], piped), 75);
  }),
);
