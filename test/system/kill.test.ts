import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { type Defer, leakless } from '../support/leak-check.ts';
import { type Provider, startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { within } from '../support/wait-for.ts';

const ROUNDS = 50;
const CLIENTS = 4;
const SENDERS = ['ann@example.com', 'bob@example.com'];
/** Small ones are held whole, large ones stream: each is killed at other instants. */
const SIZES = [200, 4_000, 40_000, 700_000];

let serial = 0;

/** Sends one message after the other until the connection breaks; the ids that were answered 250. */
async function load(port: number, client: number, round: number): Promise<string[]> {
  const sender = SENDERS[client % SENDERS.length] ?? '';
  const size = SIZES[(client + round) % SIZES.length] ?? 0;
  const socket = connect({ host: '127.0.0.1', port, noDelay: true });
  const acknowledged: string[] = [];
  const inFlight: string[] = [];
  let buffered = '';
  let isDataSaid = false;
  const begin = (): void => {
    isDataSaid = false;
    socket.write(`MAIL FROM:<${sender}>\r\nRCPT TO:<to@example.net>\r\nDATA\r\n`);
  };
  socket.on('data', (chunk) => {
    buffered += chunk.toString('latin1');
    for (let end = buffered.indexOf('\r\n'); end >= 0; end = buffered.indexOf('\r\n')) {
      const line = buffered.slice(0, end);
      buffered = buffered.slice(end + 2);
      if (line.startsWith('220 ')) socket.write('EHLO load.test\r\n');
      else if (line.startsWith('354 ')) {
        isDataSaid = true;
        const id = `kill-${round}-${client}-${++serial}-`;
        inFlight.push(id);
        socket.write(
          `Subject: ${id}\r\n\r\n${'x'
            .repeat(76)
            .concat('\r\n')
            .repeat(Math.ceil(size / 78))}.\r\n`,
        );
      } else if (isDataSaid) {
        const id = inFlight.shift();
        if (line.startsWith('250 ') && id !== undefined) acknowledged.push(id);
        begin();
      } else if (/^250 ENHANCEDSTATUSCODES|^250 AUTH|^250 DSN/.test(line)) begin();
    }
  });
  socket.on('error', () => {});
  await within(new Promise<void>((resolve) => socket.once('close', () => resolve())), 60_000, 'the kill');
  return acknowledged;
}

/** How often each id was delivered. */
function deliveries(provider: Provider): Map<string, number> {
  const count = new Map<string, number>();
  for (const s of provider.submissions) {
    if (!s.delivered) continue;
    const id = /kill-\d+-\d+-\d+-/.exec(s.body.toString('latin1', 0, 100))?.[0] ?? 'none';
    count.set(id, (count.get(id) ?? 0) + 1);
    // A whole message ends in CRLF; a fragment would be shorter than what it announced.
    assert.ok(SIZES.some((size) => s.bytes === `Subject: ${id}\r\n\r\n`.length + 78 * Math.ceil(size / 78)));
  }
  return count;
}

test(
  `killed ${ROUNDS} times under load, the relay has acknowledged nothing that is not upstream, once`,
  leakless(async (_t, defer: Defer) => {
    const provider = await startProvider({ users: SENDERS });
    defer(() => provider.close());
    const entries = SENDERS.map((user) =>
      provider.entry(user, { login_interval_ms: 0, max_connections: 4, messages_per_minute: 100_000 }),
    );
    const acknowledged: string[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const relay = await startRelay({
        accounts: entries,
        caFile: provider.caFile,
        logLevel: 'info',
        until: 'listening',
      });
      const loads = Array.from({ length: CLIENTS }, (_, client) => load(relay.smtpPort, client, round));
      // After so many more messages than before, so that the kill falls into the traffic, each time elsewhere.
      await provider.received(provider.messages.length + 3 + (round % 17), 20_000);
      relay.signal('SIGKILL');
      await relay.exited;
      acknowledged.push(...(await Promise.all(loads)).flat());
      await relay.stop();
    }
    await provider.assertDisconnected();
    const delivered = deliveries(provider);
    const missing = acknowledged.filter((id) => delivered.get(id) !== 1);
    assert.deepEqual(missing, []);
    assert.equal(new Set(acknowledged).size, acknowledged.length);
    assert.ok(acknowledged.length > ROUNDS, `only ${acknowledged.length} messages were acknowledged`);
  }),
);
