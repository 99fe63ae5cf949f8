/** How long the answer to a body that streams may take, where its client has been waiting already. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { silentLog } from '../../src/log.ts';
import type { AccountUpstream } from '../../src/upstream/account-upstream.ts';
import { UpstreamConnection } from '../../src/upstream/connection.ts';
import { createHeldBack } from '../../src/upstream/held-back.ts';
import type { Lease } from '../../src/upstream/pool.ts';
import { SmtpDelivery } from '../../src/upstream/smtp-delivery.ts';
import type { Trace } from '../../src/upstream/way.ts';
import { createTestClock } from '../support/clock.ts';

const MAIL = { sender: 'ann@example.com', parameters: [] };
const BOB = { address: 'bob@example.net', parameters: [] };
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('waits count as long as what came after them may have been sent before', async () => {
  const clock = createTestClock();
  const held = createHeldBack(clock, 5_000);
  assert.equal(held.ms(), 5_000);
  assert.equal(held.push(1_000_000, undefined), undefined);
  assert.equal(held.ms(), 5_000);
  let drained = (): void => undefined;
  const taken = held.push(1_000_000, new Promise((resolve) => (drained = resolve)));
  clock.advance(700);
  drained();
  await taken;
  assert.equal(held.ms(), 5_700);
  held.push(3_000_000, undefined);
  assert.equal(held.ms(), 700);
  held.push(3_000_000, undefined);
  assert.equal(held.ms(), 0);
});

test('a client that sent all of its body while the way was opened is answered before it gives up', async () => {
  const clock = createTestClock();
  const socket = new Duplex({ read: () => {}, write: (_octets, _encoding, done) => done() });
  const connection = new UpstreamConnection(socket as Socket, 'ann', { clock });
  connection.capabilities = { ...connection.capabilities, pipelining: true };
  const says = (...replies: readonly string[]): void =>
    void socket.emit('data', Buffer.from(replies.map((r) => `${r}\r\n`).join('')));
  let lend: (lease: Lease) => void = () => undefined;
  const upstream = {
    account: { id: 'ann', limits: { maxConnections: 1 } },
    hold: () => () => undefined,
    mayUseBdat: () => false,
    acquire: () => new Promise<Lease>((resolve) => (lend = resolve)),
    report: () => undefined,
  };
  const trace = { flights: 0, acquireMs: 0, replayed: false } as Trace;
  const delivery = new SmtpDelivery(
    { upstream: upstream as unknown as AccountUpstream, trace, log: silentLog, clock, random: Math.random },
    { busyWaitMs: 0 },
  );
  const opening = delivery.open(MAIL, [BOB]);
  await turn();
  clock.advance(200_000);
  lend({ connection, release: () => undefined } as unknown as Lease);
  await turn();
  says('250 2.1.0 sender', '250 2.1.5 recipient');
  await turn();
  says('354 go on');
  const opened = await opening;
  assert.ok('stream' in opened);
  opened.stream.push(Buffer.from('Subject: x\r\n\r\nx\r\n'));
  const decided = opened.stream.finish();
  await turn();
  clock.advance(390_000);
  const { verdict } = (await decided) as { readonly verdict: { readonly class: string } };
  assert.equal(verdict.class, 'unknown');
  delivery.close();
});
