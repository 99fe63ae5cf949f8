// needs: postfix, sasl-plain
/** The Postfix recipe, block by block, with the real Postfix. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Postfix, startPostfix } from '../support/postfix.ts';
import { runProgram } from '../support/program.ts';
import { startProvider } from '../support/provider.ts';
import { parseSettings, readRecipe } from '../support/recipe.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { waitFor } from '../support/wait-for.ts';

const recipe = readRecipe('postfix.md');
const run = promisify(execFile);

/** A map file as the recipe gives it, with this relay's port, compiled by postmap. */
async function mapFile(directory: string, name: string, block: string, relay: RelayProcess): Promise<string> {
  const path = join(directory, name);
  writeFileSync(path, block.replaceAll(':2525', `:${relay.smtpPort}`));
  await run('postmap', [`hash:${path}`]);
  return path;
}

function mapDirectory(defer: Defer): string {
  const directory = mkdtempSync(join(tmpdir(), 'recipe-'));
  chmodSync(directory, 0o755);
  defer(() => rmSync(directory, { recursive: true }));
  return directory;
}

const hand = (postfix: Postfix, from: string): Promise<unknown> =>
  runProgram('sendmail', ['-C', postfix.configDirectory, '-f', from, 'you@example.net'], {
    input: 'Subject: test\n\ntest\n',
  });
const sent = (postfix: Postfix): Promise<true> =>
  waitFor(() => /status=sent \(250 2\.0\.0 OK .* - gsmtp\)/.test(postfix.log()) || undefined, {
    timeoutMs: 20_000,
    what: `status=sent in\n${postfix.log()}`,
  });

test(
  'everything through the relay; daemons are rewritten to a mailbox',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['alice@example.com', 'alerts@example.com'] });
    defer(() => provider.close());
    const accounts = ['alice@example.com', 'alerts@example.com'].map((user) => provider.entry(user));
    const relay = await startRelay({ accounts, caFile: provider.caFile });
    defer(() => relay.stop());
    const directory = mapDirectory(defer);
    writeFileSync(join(directory, 'sender_canonical'), recipe.block('www-data'));
    const settings = {
      ...parseSettings(recipe.block('relayhost = ')),
      ...parseSettings(recipe.block('sender_canonical_classes')),
      relayhost: `[127.0.0.1]:${relay.smtpPort}`,
      sender_canonical_maps: `regexp:${join(directory, 'sender_canonical')}`,
    };
    const postfix = await startPostfix({ relayPort: relay.smtpPort, settings });
    defer(() => postfix.stop());
    await hand(postfix, 'alice@example.com');
    await hand(postfix, 'root@mta.example.org');
    const messages = await provider.received(2, 20_000);
    assert.deepEqual(messages.map((m) => m.user).sort(), ['alerts@example.com', 'alice@example.com']);
    await sent(postfix);
  }),
);

test(
  'only some senders, with a password',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['alice@example.com', 'bob@example.org'] });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [
        provider.entry('alice@example.com', { senders: ['*@shop.example.com'] }),
        provider.entry('bob@example.org', { password: { env: 'BOB' } }),
      ],
      caFile: provider.caFile,
      env: { BOB: 'THE-PASSWORD' },
    });
    defer(() => relay.stop());
    const directory = mapDirectory(defer);
    const relays = `${recipe.block('@shop.example.com')}bob@example.org [127.0.0.1]:2525\n`;
    // Only bob has a password here.
    const passwords = recipe.block('THE-PASSWORD').replace(/^\[.*$/m, '');
    const settings = {
      ...parseSettings(recipe.block('sender_dependent_relayhost_maps')),
      ...parseSettings(recipe.block('smtp_sasl_auth_enable')),
      sender_dependent_relayhost_maps: `hash:${await mapFile(directory, 'relayhosts', relays, relay)}`,
      smtp_sasl_password_maps: `hash:${await mapFile(directory, 'sasl_passwd', passwords, relay)}`,
      // Everybody else's mail would go out by MX; here nowhere.
      relayhost: '[127.0.0.1]:1',
    };
    const postfix = await startPostfix({ relayPort: relay.smtpPort, settings });
    defer(() => postfix.stop());
    await hand(postfix, 'orders@shop.example.com');
    await hand(postfix, 'bob@example.org');
    await hand(postfix, 'stranger@example.com');
    const messages = await provider.received(2, 20_000);
    assert.deepEqual(messages.map((m) => m.user).sort(), ['alice@example.com', 'bob@example.org']);
    await sent(postfix);
    await waitFor(async () => (await postfix.queue()).some((m) => m.sender === 'stranger@example.com'), {
      what: 'the mail of another sender kept in the queue',
    });
    assert.equal(provider.messages.length, 2);
  }),
);

test(
  'a bounce reaches the sender where an account has the null sender; without one it is refused and given up',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: ['alice@example.com', 'alerts@example.com'] });
    defer(() => provider.close());
    const nobody = { reply: '550 5.1.1 nobody of that name' };
    provider.smtp.script('RCPT', { line: /you@example\.net/, times: 2 }, nobody);
    const alice = provider.entry('alice@example.com');
    const relay = await startRelay({ accounts: [alice], caFile: provider.caFile });
    defer(() => relay.stop());
    const postfix = await startPostfix({ relayPort: relay.smtpPort });
    defer(() => postfix.stop());
    await hand(postfix, 'alice@example.com');
    await waitFor(() => /status=bounced .*The null sender names no account/.test(postfix.log()), {
      timeoutMs: 20_000,
      what: 'the refused bounce',
    });
    await waitFor(async () => (await postfix.queue()).length === 0, {
      timeoutMs: 20_000,
      what: 'an empty queue',
    });
    assert.equal(provider.messages.length, 0);

    const { provider: _name, ...wanted } = JSON.parse(recipe.block('"senders": ["<>"]'));
    await relay.reload([alice, provider.entry('alerts@example.com', wanted)]);
    await hand(postfix, 'alice@example.com');
    const [bounce] = await provider.received(1, 20_000);
    assert.deepEqual([bounce?.user, bounce?.sender], ['alerts@example.com', '']);
    assert.equal(bounce?.recipients[0]?.address, 'alice@example.com');
    const text = bounce?.body.toString() ?? '';
    assert.match(text, /^From: .*Mail Delivery System.*\s+<alerts@example\.com>/m);
    assert.match(text, /550 5\.1\.1 nobody of that name/);
    await sent(postfix);
  }),
);
