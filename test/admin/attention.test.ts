import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, mock } from 'node:test';
import { type Alert, composeAlert, composeUnclear } from '../../src/admin/alert.ts';
import { type AttentionOptions, createAttention } from '../../src/admin/attention.ts';
import type { AccountRow } from '../../src/admin/shapes.ts';
import { createFakeAdminBackend, type FakeAccount } from '../support/fake-admin-backend.ts';
import { waitFor } from '../support/wait-for.ts';

const rowOf = (account: FakeAccount): AccountRow => {
  const [row] = createFakeAdminBackend([account]).rows();
  assert.ok(row);
  return row;
};
const ill = (email = 'ann@example.com'): AccountRow =>
  rowOf({ email, status: 'needs_consent', reason: 'revoked', cure: 'sign in' });

function createListener(options: AttentionOptions = {}, request?: typeof fetch) {
  const lines: { level: string; fields: Record<string, unknown>; message: string }[] = [];
  const write = (level: string) => (fields: object, message: string) => {
    lines.push({ level, fields: { ...fields }, message });
  };
  const log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
  const counts: string[] = [];
  const attention = createAttention(
    {
      log,
      count: (status, provider) => counts.push(`${status} ${provider}`),
      ...(request === undefined ? {} : { request }),
    },
    { gatherMs: 1, ...options },
  );
  return { attention, lines, counts };
}

describe('attention', () => {
  it('says it once however often the account is looked at', async () => {
    const { attention, lines, counts } = createListener();
    for (let i = 0; i < 5; i++) attention.consider(ill());
    attention.consider({ ...ill(), status: 'refreshing' });
    attention.consider(ill());
    assert.equal(lines.length, 1);
    assert.equal(lines[0]?.level, 'error');
    assert.match(lines[0]?.message ?? '', /ann@example\.com needs a person.*revoked.*sign in/);
    assert.deepEqual(counts, ['needs_consent gmail']);
    await attention.close();
  });

  it('says it again after the account was well, and says that it is', async () => {
    const { attention, lines } = createListener();
    attention.consider(ill());
    attention.consider({ ...ill(), status: 'ready' });
    attention.consider(ill());
    assert.deepEqual(
      lines.map((l) => l.fields.event),
      ['attention', 'recovered', 'attention'],
    );
    await attention.close();
  });

  it('says it again when there is something else to do', async () => {
    const { attention, counts } = createListener();
    attention.consider(ill());
    attention.consider({ ...ill(), cure: 'ask the administrator' });
    attention.consider({ ...ill(), status: 'misconfigured' });
    assert.equal(counts.length, 3);
    await attention.close();
  });

  it('keeps silent about states that pass by themselves', async () => {
    const { attention, lines } = createListener();
    for (const status of ['throttled', 'unreachable', 'refreshing', 'ready'] as const) {
      attention.consider({ ...ill(), status });
    }
    assert.deepEqual(lines, []);
    await attention.close();
  });

  it('posts accounts of one cause in one alert', async () => {
    const bodies: Alert[] = [];
    const server = createServer((request, response) => {
      let body = '';
      request.on('data', (chunk) => {
        body += chunk;
      });
      request.on('end', () => {
        bodies.push(JSON.parse(body));
        response.end();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const { attention } = createListener({ webhook: `http://127.0.0.1:${port}/hook/secret`, gatherMs: 20 });
    attention.consider(ill('ann@example.com'));
    attention.consider(ill('bob@example.com'));
    await waitFor(() => bodies.length > 0);
    await attention.close();
    server.closeAllConnections();
    server.close();
    assert.equal(bodies.length, 1);
    assert.deepEqual(
      bodies[0]?.accounts.map((a) => a.email),
      ['ann@example.com', 'bob@example.com'],
    );
    assert.match(bodies[0]?.text ?? '', /2 accounts need attention.*ann@example\.com, bob@example\.com/);
  });

  it('tries a webhook again that fails, not one that refuses, and names only its host', async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const answers = [503, 'down', 429, 200];
      let asked = 0;
      const { attention, lines } = createListener(
        { webhook: 'https://hooks.example/T000/secret-path' },
        async () => {
          const answer = answers[asked++];
          if (typeof answer !== 'number') throw new Error('down');
          return new Response(null, { status: answer });
        },
      );
      attention.consider(ill());
      for (let turn = 0; turn < 40 && asked < 4; turn++) {
        mock.timers.tick(60_000);
        for (let i = 0; i < 10; i++) await Promise.resolve();
      }
      assert.equal(asked, 4);
      answers.push(404);
      attention.consider({ ...ill(), cure: 'another' });
      mock.timers.tick(10);
      for (let i = 0; i < 50; i++) await Promise.resolve();
      const failed = lines.filter((l) => l.fields.event === 'alert_failed');
      assert.equal(asked, 5);
      assert.equal(failed.length, 1);
      assert.equal(failed[0]?.fields.webhook, 'hooks.example');
      assert.ok(!JSON.stringify(lines).includes('secret-path'));
      await attention.close();
    } finally {
      mock.timers.reset();
    }
  });

  it('runs a command without a shell, with the text last, JSON on stdin and none of our environment', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'alert-'));
    const out = join(dir, 'out.json');
    const script = `let s='';process.stdin.on('data',c=>s+=c).on('end',()=>require('fs').writeFileSync(process.argv[1],JSON.stringify({args:process.argv.slice(2),alert:JSON.parse(s),env:process.env})))`;
    process.env.PLANTED_SECRET = 'planted';
    try {
      const { attention } = createListener({ command: [process.execPath, '-e', script, out, '$(id)'] });
      attention.consider(rowOf({ email: 'ann@example.com', status: 'misconfigured', reason: '`id`; $HOME' }));
      await attention.close();
      const seen = JSON.parse(readFileSync(out, 'utf8'));
      assert.equal(seen.args[0], '$(id)');
      assert.match(seen.args[1], /`id`; \$HOME/);
      assert.equal(seen.alert.status, 'misconfigured');
      assert.equal(seen.env.PLANTED_SECRET, undefined);
    } finally {
      delete process.env.PLANTED_SECRET;
      rmSync(dir, { recursive: true });
    }
  });

  it('logs a command that cannot be started or fails', async () => {
    for (const command of [['/nowhere/alert'], [process.execPath, '-e', 'process.exit(3)']]) {
      const { attention, lines } = createListener({ command });
      attention.consider(ill());
      await attention.close();
      assert.equal(lines.at(-1)?.fields.event, 'alert_failed');
    }
  });
});

describe('what an alert says', () => {
  it('counts accounts it does not name', () => {
    const rows = Array.from({ length: 300 }, (_, i) => ill(`u${i}@example.com`));
    const { text } = composeAlert('attention', rows, new Date(0));
    assert.match(text, /300 accounts need/);
    assert.match(text, /and 290 more/);
    assert.ok(text.length < 1000, text);
  });

  it('counts the accounts of unclear messages, too, and names none where it is not known', () => {
    const unclear = (account: string | undefined) => ({
      news: { key: 'k', account, messageId: undefined, reason: 'no answer', cure: 'decide' },
      row: undefined,
    });
    const many = Array.from({ length: 12 }, (_, i) => unclear(`u${i}@example.com`));
    assert.match(composeUnclear(many, new Date(0)).text, /sent 12 messages \(u0@.* and 2 more\)\. no answer/);
    assert.match(composeUnclear([unclear(undefined)], new Date(0)).text, /sent a message\. no answer/);
  });

  it('gathers accounts of one cause although each has its own command, and gives the command for all', async () => {
    const off = (email: string): AccountRow => ({
      ...rowOf({
        email,
        status: 'misconfigured',
        reason: '535 5.7.139',
        cure: `Set-CASMailbox -Identity ${email}`,
      }),
      cause: 'smtp-auth-off-mailbox',
    });
    const alert = composeAlert('attention', [off('ann@example.com'), off('ben@example.com')], new Date());
    assert.match(alert.cure, /Set-CASMailbox -Identity MAILBOX/);
    assert.match(composeAlert('attention', [off('ann@example.com')], new Date()).cure, /ann@example\.com/);
    const bodies: Alert[] = [];
    const { attention } = createListener({ webhook: 'http://127.0.0.1:9/hook' }, async (_url, init) => {
      bodies.push(JSON.parse(String(init?.body)) as Alert);
      return new Response(null, { status: 204 });
    });
    attention.consider(off('ann@example.com'));
    attention.consider(off('ben@example.com'));
    await waitFor(() => bodies.length > 0);
    await attention.close();
    assert.deepEqual(
      bodies.map((b) => b.accounts.length),
      [2],
    );
  });
});
