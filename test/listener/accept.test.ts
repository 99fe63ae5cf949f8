import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { test } from 'node:test';
import { acceptSocket } from '../../src/listener/accept.ts';
import { createTally } from '../../src/listener/counts.ts';
import { createDoor } from '../../src/listener/door.ts';
import { resolveOptions } from '../../src/listener/options.ts';
import { silentLog } from '../../src/log.ts';
import { createTestClock } from '../support/clock.ts';

const DESCRIPTOR = { fd: 3, allow: ['10.0.0.0/8'] };

/** A connection on a descriptor handed over whose client has no address (any more). */
function accepts(localAddress: string | undefined): { isIn: boolean; socket: Socket } {
  const options = resolveOptions(DESCRIPTOR);
  const tally = createTally();
  const socket = new Socket();
  Object.defineProperty(socket, 'localAddress', { value: localAddress });
  const deps = {
    door: createDoor({ tally, log: silentLog }, options),
    clock: createTestClock(),
    options,
    hit: tally.hit,
  };
  return { isIn: acceptSocket(socket, false, deps, new Map()) !== false, socket };
}

test('who has reset a TCP connection before he was asked who he is, is not taken for a client of a UNIX socket', () => {
  const { isIn, socket } = accepts('192.0.2.1');
  assert.equal(isIn, false);
  assert.equal(socket.destroyed, true);
});

test('on a UNIX socket that was handed over nobody has an address', () => {
  const { isIn, socket } = accepts(undefined);
  assert.equal(isIn, true);
  socket.destroy();
});
