/** The retry of a message that Graph may have sent, by whichever account and way it comes: one copy in all. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { type SmtpClient, smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@example.com';
const BEA = 'bea@example.com';
const APP = 'app@example.com';
const BOB = 'bob@example.net';
const ID = 'Message-ID: <m@client.test>\r\n';
const CAL = 'cal@example.net';
const DAN = 'dan@example.net';
const mailFrom = (from: string, id = ID, subject = 's'): string =>
  `${id}From: ${from}\r\nTo: ${BOB}\r\nSubject: ${subject}\r\n\r\nbody\r\n`;
const OFF =
  '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled [x]';

interface House {
  readonly provider: Provider;
  readonly relay: RelayProcess;
  /** The answers to RCPT, and the final one. */
  send(from: string, message: string, recipients?: readonly string[], to?: RelayProcess): Promise<string>;
}

/** One account for each of `accounts`, ann's first. */
async function house(
  defer: Defer,
  accounts: readonly Record<string, unknown>[],
  before?: (provider: Provider) => void,
  args: readonly string[] = [],
): Promise<House> {
  const users = [ANN, BEA].slice(0, accounts.length);
  const provider = await startProvider({ flavour: 'microsoft', users, graph: {} });
  defer(() => provider.close());
  before?.(provider);
  const relay = await startRelay({
    accounts: users.map((user, i) => provider.entry(user, accounts[i])),
    caFile: provider.caFile,
    args,
  });
  defer(() => relay.stop());
  return {
    provider,
    relay,
    async send(from, message, recipients = [BOB], to = relay) {
      const client = await smtpClient(to.smtpPort);
      try {
        await client.reply();
        await client.send('EHLO client.test');
        await client.expect(`MAIL FROM:<${from}>`, 250);
        const heard: unknown[] = [];
        for (const recipient of recipients) heard.push((await client.send(`RCPT TO:<${recipient}>`)).text);
        await client.expect('DATA', 354);
        return JSON.stringify([...heard, await client.body(message)]);
      } finally {
        client.end();
      }
    },
  };
}

/** A whole message to BOB; nobody waits for its answer. */
async function sendOff(port: number, message: string): Promise<SmtpClient> {
  const client = await smtpClient(port);
  await client.reply();
  await client.send('EHLO client.test');
  await client.expect(`MAIL FROM:<${ANN}>`, 250);
  await client.expect(`RCPT TO:<${BOB}>`, 250);
  await client.expect('DATA', 354);
  await client.raw(`${message}.\r\n`);
  return client;
}

/** Graph sends the next message and nobody is told; nor can it be looked at. */
function leaveUnclear({ provider }: Pick<House, 'provider'>): void {
  provider.graph.fault('send', { carriedOut: true, answer: 'reset' });
  provider.graph.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
}

const copies = ({ provider }: House): number => provider.graph.delivered.length + provider.messages.length;

test(
  'the retry comes to another account of the sender: the one that began it goes on',
  leakless(async (_t, defer) => {
    const account = { transport: 'graph', senders: [APP] };
    const h = await house(defer, [account, account]);
    leaveUnclear(h);
    assert.match(await h.send(APP, mailFrom(APP)), /451.*delivery status unknown/);
    const drained = await fetch(`${h.relay.adminUrl}/admin/accounts/${ANN}/drain`, { method: 'POST' });
    assert.equal(drained.status, 200);
    assert.match(await h.send(APP, mailFrom(APP)), /250.*<m@client\.test>/);
    assert.equal(copies(h), 1);
    // Bea's own way is open all the same.
    assert.match(await h.send(APP, mailFrom(APP, 'Message-ID: <other@client.test>\r\n')), /250/);
    assert.deepEqual(
      h.provider.graph.delivered.map((d) => d.mailbox),
      [ANN, BEA],
    );
  }),
);

test(
  'the retry comes to an account of the sender that delivers by SMTP',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph', senders: [APP] }, { senders: [APP] }]);
    leaveUnclear(h);
    assert.match(await h.send(APP, mailFrom(APP)), /451.*delivery status unknown/);
    await fetch(`${h.relay.adminUrl}/admin/accounts/${ANN}/drain`, { method: 'POST' });
    assert.match(await h.send(APP, mailFrom(APP)), /250.*\[graph\]/);
    assert.equal(copies(h), 1);
    // What nobody began by Graph goes its own way, a larger one than is held elsewhere too.
    assert.match(
      await h.send(APP, `${mailFrom(APP, 'Message-ID: <large@c>\r\n')}${'x\r\n'.repeat(200_000)}`),
      /250/,
    );
    assert.equal(h.provider.messages.length, 1);
  }),
);

test(
  'as large as Graph takes, and by SMTP with a longer header: the retry is compared all the same',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph', senders: [APP] }, { senders: [APP] }]);
    leaveUnclear(h);
    const message = `${mailFrom(APP)}${'x\r\n'.repeat(999_950)}`;
    assert.match(await h.send(APP, message), /451.*delivery status unknown/);
    await fetch(`${h.relay.adminUrl}/admin/accounts/${ANN}/drain`, { method: 'POST' });
    const received = `Received: from scanner by gate;\r\n\t${'x'.repeat(200)}\r\n`;
    assert.match(await h.send(APP, received + message), /250.*\[graph\]/);
    assert.equal(copies(h), 1);
  }),
);

test(
  'SMTP AUTH is on again when the retry comes',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'smtp_then_graph', login_interval_ms: 0 }], (provider) => {
      provider.smtp.script('AUTH', { times: Number.POSITIVE_INFINITY }, { reply: OFF });
    });
    leaveUnclear(h);
    assert.match(await h.send(ANN, mailFrom(ANN)), /451.*delivery status unknown/);
    h.provider.smtp.clearScripts();
    await fetch(`${h.relay.adminUrl}/admin/accounts/${ANN}/retry`, { method: 'POST' });
    assert.match(await h.send(ANN, mailFrom(ANN)), /250.*\[graph\]/);
    assert.equal(copies(h), 1);
    assert.match(await h.send(ANN, mailFrom(ANN, 'Message-ID: <other@client.test>\r\n')), /250/);
    assert.equal(h.provider.messages.length, 1);
  }),
);

test(
  'a reload takes Graph from the account before the retry comes: it waits for a person',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph' }]);
    leaveUnclear(h);
    assert.match(await h.send(ANN, mailFrom(ANN)), /451.*delivery status unknown/);
    const { graph_url: _, ...entry } = h.provider.entry(ANN, { transport: 'smtp' }) as Record<
      string,
      unknown
    >;
    assert.equal((await h.relay.reload([entry as never])).event, 'reloaded');
    assert.match(await h.send(ANN, mailFrom(ANN)), /451.*does not deliver by Graph now/);
    const { messages } = await h.relay.admin<{ messages: { key: string; clears: string }[] }>(
      '/admin/unclear',
    );
    assert.deepEqual(
      messages.map((row) => row.clears),
      ['person'],
    );
    await fetch(`${h.relay.adminUrl}/admin/unclear/${messages[0]?.key}/delivered`, { method: 'POST' });
    assert.match(await h.send(ANN, mailFrom(ANN)), /250/);
    assert.equal(copies(h), 1);
  }),
);

test(
  'the relay completes the header: its new Message-ID does not make the retry another message',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph', complete_header: true }]);
    leaveUnclear(h);
    assert.match(await h.send(ANN, mailFrom(ANN, '')), /451.*delivery status unknown/);
    assert.match(await h.send(ANN, mailFrom(ANN, '')), /250/);
    assert.equal(copies(h), 1);
    // A device says the same every hour, and means it.
    assert.match(await h.send(ANN, mailFrom(ANN, '')), /250/);
    assert.match(await h.send(ANN, mailFrom(ANN, '')), /250/);
    assert.equal(copies(h), 3);
  }),
);

test(
  'a message without Message-ID whose 250 nobody was there to hear',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph' }]);
    h.provider.graph.fault('send', { carriedOut: true, answer: 'silence' });
    const message = mailFrom(ANN, '');
    const client = await sendOff(h.relay.smtpPort, message);
    await waitFor(() => h.provider.graph.delivered.length === 1, { what: 'Graph having the message' });
    client.reset();
    await h.relay.event('transaction', { timeoutMs: 60_000 });
    assert.match(await h.send(ANN, message), /250/);
    assert.equal(copies(h), 1);
    assert.match(await h.send(ANN, message), /250/);
    assert.equal(copies(h), 2);
  }),
);

test(
  'a message without Message-ID whose client had closed its side when the 250 came',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph' }]);
    const rules = h.provider.graph.rules;
    rules.latencyMs = 1_000;
    const message = mailFrom(ANN, '');
    const client = await sendOff(h.relay.smtpPort, message);
    client.end();
    await h.relay.event('transaction');
    rules.latencyMs = 0;
    assert.match(await h.send(ANN, message), /250/);
    assert.equal(copies(h), 1);
    assert.match(await h.send(ANN, message), /250/);
    assert.equal(copies(h), 2);
  }),
);

test(
  'killed while the draft is made: the next process sends another, and none is left over',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'graph-retries-'));
    defer(() => rmSync(directory, { recursive: true }));
    const args = ['--state-dir', directory];
    const h = await house(defer, [{ transport: 'graph' }], undefined, args);
    h.provider.graph.fault('create', { carriedOut: true, answer: 'silence' });
    const unheard = h.send(ANN, mailFrom(ANN)).catch(() => 'nothing');
    await waitFor(() => h.provider.graph.drafts.length === 1, { what: 'Graph having the draft' });
    process.kill(h.relay.pid, 'SIGKILL');
    assert.equal(await unheard, 'nothing');
    const relay = await startRelay({
      accounts: [h.provider.entry(ANN, { transport: 'graph' })],
      caFile: h.provider.caFile,
      args,
    });
    defer(() => relay.stop());
    assert.match(await h.send(ANN, mailFrom(ANN), [BOB], relay), /250/);
    await waitFor(() => h.provider.graph.drafts.length === 0, { what: 'the first being deleted' });
    assert.deepEqual([copies(h), h.provider.graph.count('create')], [1, 2]);
  }),
);

test(
  'two messages of one device: one Message-ID, other words in Subject',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph' }]);
    for (const subject of ['door open', 'door shut', 'door shut'])
      assert.match(await h.send(ANN, mailFrom(ANN, ID, subject)), /250/);
    assert.equal(copies(h), 2);
  }),
);

const TWO = `Message-ID: <m@client.test>\r\nFrom: ${APP}\r\nTo: ${BOB}, ${CAL}\r\nSubject: s\r\n\r\nbody\r\n`;
const graphAnd = (smtp: Record<string, unknown>): readonly Record<string, unknown>[] => [
  { transport: 'graph', senders: [APP] },
  { senders: [APP], ...smtp },
];

test(
  'the retry leaves with fewer recipients, because its server refuses one: the others have it already',
  leakless(async (_t, defer) => {
    const h = await house(defer, graphAnd({}), (provider) => {
      provider.smtp.script('RCPT', { line: /cal@/ }, { reply: '550 5.1.1 unknown' });
    });
    leaveUnclear(h);
    assert.match(await h.send(APP, TWO, [BOB, CAL]), /451.*delivery status unknown/);
    await fetch(`${h.relay.adminUrl}/admin/accounts/${ANN}/drain`, { method: 'POST' });
    assert.match(await h.send(APP, TWO, [BOB, CAL]), /550 5\.1\.1 unknown.*250.*\[graph\]/);
    assert.equal(copies(h), 1);
  }),
);

test(
  'the retry comes in parts, because its account takes one recipient at a time: each has it already',
  leakless(async (_t, defer) => {
    const h = await house(defer, graphAnd({ max_recipients: 1 }));
    leaveUnclear(h);
    assert.match(await h.send(APP, TWO, [BOB, CAL]), /451.*delivery status unknown/);
    await fetch(`${h.relay.adminUrl}/admin/accounts/${ANN}/drain`, { method: 'POST' });
    assert.match(await h.send(APP, TWO, [BOB, CAL]), /452 4\.5\.3.*250.*\[graph\]/);
    assert.match(await h.send(APP, TWO, [CAL]), /250.*<m@client\.test>/);
    assert.equal(copies(h), 1);
    assert.match(await h.send(APP, TWO, [CAL, DAN]), /452/);
    assert.match(await h.send(APP, TWO, [DAN]), /250/);
    assert.equal(copies(h), 2);
  }),
);

const leaveUnsent = ({ provider }: House): void => {
  provider.graph.fault('send', { answer: { status: 504 } });
  provider.graph.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
};
for (const [what, begin] of [
  ['may have been sent, and was', leaveUnclear],
  ['may have been sent, and was not', leaveUnsent],
  ['was sent, and its client left without a word', undefined],
] as const)
  test(
    `${what}: the retry to some of its recipients and others: each has it once`,
    leakless(async (_t, defer) => {
      const h = await house(defer, [{ transport: 'graph', senders: [APP] }]);
      begin?.(h);
      const answer = await h.send(APP, TWO, [BOB, CAL]);
      assert.match(answer, begin === undefined ? /250.*<m@client\.test>/ : /451.*delivery status unknown/);
      for (const to of [[CAL, DAN], [CAL, DAN], [BOB], [DAN, BOB, CAL]])
        assert.match(await h.send(APP, TWO, to), /250.*<m@client\.test>/);
      assert.deepEqual(h.provider.graph.delivered.map((d) => d.recipients).sort(), [[BOB, CAL], [DAN]]);
      assert.match(h.provider.graph.delivered[1]?.text ?? '', /X-Original-To: bob@example\.net, cal@/);
    }),
  );

test(
  'some have it, and Graph refuses the others for good: nobody who has it is bounced',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph', senders: [APP] }]);
    leaveUnclear(h);
    assert.match(await h.send(APP, TWO, [BOB, CAL]), /451.*delivery status unknown/);
    h.provider.graph.fault('create', { answer: { status: 400, code: 'ErrorInvalidRecipients' } }, 2);
    assert.match(await h.send(APP, TWO, [CAL, DAN]), /451 4\.4\.2.*has reached some of its recipients/);
    assert.match(await h.send(APP, TWO, [CAL]), /250/);
    assert.match(await h.send(APP, TWO, [DAN]), /55\d/);
    assert.equal(copies(h), 1);
  }),
);

test(
  'some have it by Graph, and the retry to others comes to an account that goes by SMTP: none goes by the account of somebody else',
  leakless(async (_t, defer) => {
    const h = await house(defer, graphAnd({}));
    leaveUnclear(h);
    assert.match(await h.send(APP, TWO, [BOB, CAL]), /451.*delivery status unknown/);
    await fetch(`${h.relay.adminUrl}/admin/accounts/${ANN}/drain`, { method: 'POST' });
    assert.match(await h.send(APP, TWO, [CAL, DAN]), /451 4\.4\.2.*has reached some of its recipients/);
    assert.match(await h.send(APP, TWO, [CAL]), /250/);
    assert.match(await h.send(APP, TWO, [DAN]), /250/);
    assert.deepEqual(
      h.provider.graph.delivered.map((d) => d.recipients),
      [[BOB, CAL]],
    );
    assert.deepEqual(
      h.provider.messages.map((m) => m.recipients.map((r) => r.address)),
      [[DAN]],
    );
  }),
);

test(
  'a reload takes away the account that began it: the retry that comes to another waits for a person',
  leakless(async (_t, defer) => {
    const h = await house(defer, graphAnd({}));
    leaveUnclear(h);
    assert.match(await h.send(APP, mailFrom(APP)), /451.*delivery status unknown/);
    const entry = h.provider.entry(BEA, { senders: [APP] });
    assert.equal((await h.relay.reload([entry])).event, 'reloaded');
    assert.match(await h.send(APP, mailFrom(APP)), /451.*does not deliver by Graph now/);
    assert.equal(copies(h), 1);
    assert.match(await h.send(APP, mailFrom(APP, 'Message-ID: <other@client.test>\r\n')), /250/);
  }),
);

test(
  'a restart takes Graph from the account before the retry comes: it waits for a person',
  leakless(async (_t, defer) => {
    const directory = mkdtempSync(join(tmpdir(), 'graph-retries-'));
    defer(() => rmSync(directory, { recursive: true }));
    const args = ['--state-dir', directory];
    const h = await house(defer, [{ transport: 'graph' }], undefined, args);
    leaveUnclear(h);
    assert.match(await h.send(ANN, mailFrom(ANN)), /451.*delivery status unknown/);
    await h.relay.stop();
    const { graph_url: _, transport: __, ...entry } = h.provider.entry(ANN) as Record<string, unknown>;
    const relay = await startRelay({ accounts: [entry as never], caFile: h.provider.caFile, args });
    defer(() => relay.stop());
    assert.match(await h.send(ANN, mailFrom(ANN), [BOB], relay), /451.*does not deliver by Graph now/);
    assert.equal(copies(h), 1);
  }),
);

test(
  'the account that began it is turned away before the send: the retry leaves by another of the sender',
  leakless(async (_t, defer) => {
    for (const second of [{ senders: [APP] }, { transport: 'graph', senders: [APP] }]) {
      const h = await house(defer, [{ transport: 'graph', senders: [APP], preference: 1 }, second]);
      const { graph, token } = h.provider;
      const isRevoked = second.transport === undefined;
      graph.observe = ({ call }) => {
        if (call !== 'create') return;
        graph.observe = undefined;
        const account = token.account(ANN);
        if (!isRevoked) graph.refuseMailbox(ANN, 403, 'ErrorAccessDenied');
        else if (account !== undefined) account.revoked = true;
      };
      // A grant that ended is told by the refusal of its token.
      if (isRevoked) graph.fault('send', { answer: { status: 401, code: 'InvalidAuthenticationToken' } });
      assert.match(await h.send(APP, mailFrom(APP)), /451 4\.7\.0/);
      assert.match(await h.send(APP, mailFrom(APP)), /250 2\.0\.0/);
      assert.equal(copies(h), 1);
    }
  }),
);

test(
  'the whole is refused for good where some of its recipients are retried: they hear 451, and go alone',
  leakless(async (_t, defer) => {
    const h = await house(defer, [{ transport: 'graph' }]);
    h.provider.graph.fault('send', { answer: { status: 504 } });
    h.provider.graph.fault('look', { answer: { status: 403, code: 'ErrorAccessDenied' } });
    assert.match(await h.send(ANN, mailFrom(ANN), [BOB, CAL]), /451.*delivery status unknown/);
    h.provider.graph.fault('send', { answer: { status: 400, code: 'ErrorInvalidRecipients' } });
    assert.match(await h.send(ANN, mailFrom(ANN)), /451 4\.4\.2 to all its recipients: Graph said 400/);
    assert.match(await h.send(ANN, mailFrom(ANN)), /250 2\.0\.0/);
    assert.deepEqual(
      h.provider.graph.delivered.map((d) => d.recipients),
      [[BOB]],
    );
  }),
);
