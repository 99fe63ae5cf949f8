import assert from 'node:assert/strict';
import { type AddressInfo, createServer, Socket } from 'node:net';
import { test } from 'node:test';
import { createDialer } from '../../src/upstream/dial.ts';
import { createTestClock } from '../support/clock.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { countTurns } from '../support/turns.ts';
import { waitFor } from '../support/wait-for.ts';

const never = new AbortController().signal;
/** No shuffling: equal addresses keep the resolver's order. */
const random = (): number => 0;

/** A server on `address` that accepts; connections so far. */
async function accepting(defer: Defer, address: string, port = 0) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => void sockets.add(socket.on('error', () => {})));
  await new Promise<void>((resolve) => server.listen(port, address, resolve));
  defer(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return { port: (server.address() as AddressInfo).port, sockets };
}

/** A host of which some addresses swallow everything; remembers who was tried. */
function network(addresses: readonly string[], holes: readonly string[], clock = createTestClock()) {
  const tried: string[] = [];
  const dial = createDialer({
    clock,
    random,
    lookup: async () => addresses,
    connect: (options) => {
      tried.push(options.host);
      const socket = new Socket();
      return holes.includes(options.host) ? socket : socket.connect(options);
    },
  });
  return { dial, tried, clock };
}

test(
  'a black hole costs 250 ms once; for minutes the other address comes first, then it is tried again',
  leakless(async (_t, defer) => {
    const { port } = await accepting(defer, '127.0.0.3');
    const { dial, tried, clock } = network(['127.0.0.2', '127.0.0.3'], ['127.0.0.2']);
    const first = dial({ host: 'two.example', port }, never);
    await waitFor(() => tried.length === 1);
    clock.advance(249);
    assert.deepEqual(tried, ['127.0.0.2']);
    clock.advance(1);
    const dialed = await first;
    defer(() => dialed.stream.destroy());
    assert.deepEqual([dialed.address, tried], ['127.0.0.3', ['127.0.0.2', '127.0.0.3']]);
    tried.length = 0;
    const again = await dial({ host: 'two.example', port }, never);
    again.stream.destroy();
    assert.deepEqual(tried, ['127.0.0.3'], 'no time lost');
    clock.advance(5 * 60_000);
    tried.length = 0;
    const later = dial({ host: 'two.example', port }, never);
    await waitFor(() => tried.length === 1);
    clock.advance(250);
    (await later).stream.destroy();
    assert.deepEqual(tried, ['127.0.0.2', '127.0.0.3']);
  }),
);

test(
  'a refused address is left at once, both families take turns, and one that did not greet comes last',
  leakless(async (_t, defer) => {
    const { port } = await accepting(defer, '127.0.0.4');
    const { dial, tried } = network(['::1', 'fd00::2', '127.0.0.4', '127.0.0.5'], []);
    const dialed = await dial({ host: 'four.example', port }, never);
    dialed.stream.destroy();
    assert.deepEqual(tried, ['::1', '127.0.0.4']);
    assert.equal(dialed.hasOthers, true);
    dialed.judged(false);
    tried.length = 0;
    await dial({ host: 'four.example', port }, never).then(
      (other) => other.stream.destroy(),
      () => {},
    );
    assert.deepEqual(tried.slice(0, 2).sort(), ['127.0.0.5', 'fd00::2']);
    assert.equal(tried.at(-1), '127.0.0.4');
  }),
);

test('all addresses refuse: the error says so; the signal ends a dialing that hangs', async () => {
  const { dial, tried } = network(['127.0.0.6', '127.0.0.7'], []);
  await assert.rejects(dial({ host: 'none.example', port: 9 }, never), { code: 'ECONNREFUSED' });
  assert.equal(tried.length, 2);
  const hole = network(['127.0.0.8'], ['127.0.0.8']);
  const abort = new AbortController();
  const dialing = hole.dial({ host: 'hole.example', port: 9 }, abort.signal);
  abort.abort(new Error('over'));
  await assert.rejects(dialing, /over/);
  const hanging = createDialer({ lookup: () => new Promise(() => {}) });
  await assert.rejects(hanging({ host: 'slow.example', port: 9 }, abort.signal), /over/);
});

test(
  'openings that waited for one answer of the resolver begin in turns of the event loop of their own',
  leakless(async (_t, defer) => {
    const { port } = await accepting(defer, '127.0.0.2');
    const turns = countTurns();
    const begun: number[] = [];
    const dial = createDialer({
      lookup: async () => ['127.0.0.2'],
      connect(options) {
        begun.push(turns.now());
        return new Socket().connect(options);
      },
    });
    const dialed = await Promise.all([1, 2, 3].map(() => dial({ host: 'one.example', port }, never)));
    turns.stop();
    for (const { stream } of dialed) stream.destroy();
    assert.equal(new Set(begun).size, 3);
  }),
);

test('local_address picks its family', async () => {
  const { dial, tried } = network(['::1', '127.0.0.1'], []);
  await assert.rejects(dial({ host: 'x.example', port: 9, localAddress: '127.0.0.2' }, never));
  assert.deepEqual(tried, ['127.0.0.1']);
});

test(
  'DNS is asked every time; a resolver that fails is answered for up to an hour, one that says no is believed',
  leakless(async (_t, defer) => {
    const { port } = await accepting(defer, '127.0.0.1');
    const clock = createTestClock();
    let answer: string | Error = '127.0.0.1';
    let asked = 0;
    const dial = createDialer({
      clock,
      lookup: async () => {
        asked++;
        if (answer instanceof Error) throw answer;
        return [answer];
      },
    });
    const address = async (): Promise<string> => {
      const dialed = await dial({ host: 'mail.example', port }, never);
      dialed.stream.destroy();
      return dialed.address;
    };
    assert.equal(await address(), '127.0.0.1');
    answer = Object.assign(new Error('try again'), { code: 'EAI_AGAIN' });
    assert.equal(await address(), '127.0.0.1');
    assert.equal(asked, 2);
    clock.advance(60 * 60_000 + 1);
    await assert.rejects(address(), { code: 'EAI_AGAIN' });
    answer = '127.0.0.1';
    await address();
    answer = Object.assign(new Error('no'), { code: 'ENOTFOUND' });
    await assert.rejects(address(), { code: 'ENOTFOUND' });
  }),
);
