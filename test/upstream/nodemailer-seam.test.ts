/** What is used of nodemailer's insides does what the upstream room relies on. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { test } from 'node:test';
import { TLSSocket } from 'node:tls';
import {
  createHandshake,
  extensionsOf,
  type Handshake,
  type HandshakeError,
  hasGreeted,
  login,
  takeSocket,
  withLastReply,
} from '../../src/upstream/nodemailer-seam.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';

const ANN = 'ann@example.com';
const EVENTS = ['data', 'readable', 'error', 'close', 'end', 'timeout', 'drain', 'secure'] as const;

async function begin(
  defer: Defer,
  port: number,
  options: { readonly ca?: string; readonly lines?: string[]; readonly sent?: number[] },
): Promise<Handshake> {
  const stream = connect(port, '127.0.0.1');
  defer(() => void stream.destroy());
  await once(stream, 'connect');
  return createHandshake({
    stream,
    host: 'localhost',
    port,
    tls: 'starttls',
    heloName: 'relay.test',
    ca: options.ca,
    line: (who, text) => void options.lines?.push(`${who} ${text}`),
    async authenticate(send) {
      for (const line of ['AUTH XOAUTH2', '*', 'NOOP']) options.sent?.push((await send(line)).status);
    },
  });
}

test(
  'SASL is ours; the extensions are told; the socket that is handed over has no listener left',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [ANN] });
    defer(() => provider.close());
    const lines: string[] = [];
    const sent: number[] = [];
    const handshake = await begin(defer, provider.smtp.port, { ca: provider.caPem, lines, sent });
    await new Promise<void>((resolve, reject) =>
      handshake.connect((error) => (error ? reject(error) : resolve())),
    );
    assert.ok(hasGreeted(handshake));
    assert.ok(extensionsOf(handshake).some((line) => /^AUTH\b.*XOAUTH2/.test(line)));
    assert.ok(lines.includes('C EHLO relay.test'));
    await new Promise<void>((resolve, reject) =>
      login(handshake, ANN, (error) => (error ? reject(error) : resolve())),
    );
    assert.equal(sent[0], 334);
    assert.equal(sent.length, 3);
    const socket = takeSocket(handshake);
    assert.ok(socket instanceof TLSSocket);
    const bare = new TLSSocket(connect(provider.smtp.port, '127.0.0.1'));
    defer(() => void bare.destroy());
    for (const event of EVENTS.filter((e) => e !== 'close' && e !== 'error' && e !== 'secure'))
      assert.equal(socket.listenerCount(event), event === 'end' ? bare.listenerCount('end') : 0, event);
    // Nobody of nodemailer's minds what it says or that it ends.
    let heard = 0;
    handshake.on('error', () => heard++).on('end', () => heard++);
    socket.on('error', () => {});
    socket.emit('data', Buffer.from('421 4.3.2 no\r\n'));
    socket.emit('error', new Error('reset'));
    socket.destroy();
    await once(socket, 'close');
    assert.equal(heard, 0);
  }),
);

test(
  'a 421 in place of a greeting or an answer is the last reply, with the step it refused',
  leakless(async (_t, defer) => {
    const server = createServer((socket) => void socket.end('421 4.3.2 not now\r\n'));
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    defer(() => new Promise<void>((resolve) => void server.close(() => resolve())));
    const handshake = await begin(defer, (server.address() as AddressInfo).port, {});
    const error = await new Promise<HandshakeError>((resolve) => {
      handshake.once('error', resolve);
      handshake.connect(() => {});
    });
    assert.match(withLastReply(error, handshake).response ?? '', /^421 4\.3\.2 not now/);
    handshake.close();
  }),
);
