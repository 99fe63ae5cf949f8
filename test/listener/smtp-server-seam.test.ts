/** What is used of smtp-server's insides does what the listener relies on; each step that is missing here is told in the seam. */
import assert from 'node:assert/strict';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { SeamConnection, SeamServer } from '../../src/listener/smtp-server-seam.ts';
import { issueCertificate } from '../support/certificate.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { waitFor } from '../support/wait-for.ts';

/** In which order the library came by. */
let steps: string[] = [];

class Session extends SeamConnection {
  octets = '';
  protected override createReader(): Writable {
    steps.push('reader');
    return new Writable({
      write: (chunk, _encoding, next) => {
        this.octets += String(chunk);
        this.whenWritable(next);
      },
      final: (next) => {
        this.close();
        next();
      },
    });
  }
  protected override greet(): void {
    steps.push('greet');
    this.socket.write('220 here\r\n');
  }
  protected override left(): void {
    steps.push('left');
  }
  protected override saidBySasl(code: number): void {
    steps.push(`said ${code}`);
  }
  override init(): void {
    steps.push('init');
    this.begin();
  }
  facts(): string {
    return `${this.isUpgrading ? 'upgrading' : 'steady'} ${'getCipher' in this.socket ? 'TLS' : 'plain'}`;
  }
  sasl(line: string): void {
    this.startSasl(line, () => steps.push('done'));
  }
  answer(text: string): boolean {
    const step = this.takeSaslStep();
    step?.(Buffer.from(text).toString('base64'), () => steps.push('done'));
    return step !== undefined;
  }
  cut(): void {
    this.destroy();
  }
}

class Server extends SeamServer<{ readonly id: string }> {
  session: Session | undefined;
  /** What was on top when the handshake had ended. */
  topmost: Socket | undefined;
  protected override accept(socket: Socket, isHandshake: boolean): () => void {
    steps.push(`accept${isHandshake ? ' before a handshake' : ''}`);
    if (isHandshake) this.pendingSockets.set(socket, socket);
    return () => {
      steps.push('release');
      this.topmost = this.pendingSockets.get(socket);
      this.pendingSockets.delete(socket);
    };
  }
  protected override readHeader(
    _socket: Socket,
    callback: (error: Error | null, accepted?: { readonly id: string }) => void,
  ): void {
    steps.push('header');
    callback(null, { id: 'ours' });
  }
  protected override openSession(socket: Socket | TLSSocket, accepted: { readonly id: string }): Session {
    steps.push(`session ${accepted.id}`);
    this.session = new Session(this, socket, accepted);
    return this.session;
  }
  protected override async authenticate(user: string, password: unknown, session: object) {
    steps.push(`login ${user} ${password} ${session === this.session?.session}`);
    return password === 'right' ? undefined : { code: 535, text: 'no' };
  }
}

async function start(defer: Defer, tls: 'none' | 'starttls' | 'implicit'): Promise<[Server, number]> {
  steps = [];
  const { certPem: cert, keyPem: key } = issueCertificate();
  const certificate = tls === 'none' ? undefined : { cert, key };
  const server = new Server({ hostname: 'here', tls, lmtp: false, certificate });
  server.on('error', () => {});
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  defer(() => new Promise<void>((resolve) => void server.server.close(() => resolve())));
  return [server, (server.server.address() as AddressInfo).port];
}

test(
  'accept, header, session, reader, greeting; octets go to the reader; the end is told',
  leakless(async (_t, defer) => {
    const [server, port] = await start(defer, 'none');
    const client = connect(port, '127.0.0.1');
    defer(() => void client.destroy());
    client.write('EHLO me\r\n');
    await waitFor(() => server.session?.octets === 'EHLO me\r\n');
    assert.deepEqual(steps, ['accept', 'header', 'release', 'session ours', 'reader', 'init', 'greet']);
    assert.equal(server.session?.id, 'ours');
    client.destroy();
    await waitFor(() => steps.includes('left'));
    assert.equal(server.connections.size, 0);
  }),
);

test(
  'SASL: challenges and results are said through the session, each line is taken once, the password is asked about',
  leakless(async (_t, defer) => {
    const [server, port] = await start(defer, 'none');
    const client = connect(port, '127.0.0.1');
    defer(() => void client.destroy());
    await waitFor(() => steps.includes('greet'));
    const { session } = server;
    assert.ok(session);
    for (const [password, code] of [
      ['wrong', 535],
      ['right', 235],
    ] as const) {
      steps = [];
      session.sasl('AUTH LOGIN');
      assert.ok(session.answer('ann'));
      assert.ok(session.answer(password));
      assert.ok(!session.answer('again'));
      await waitFor(() => steps.length === 7);
      assert.deepEqual(steps, [
        'said 334',
        'done',
        'said 334',
        'done',
        `login ann ${password} true`,
        `said ${code}`,
        'done',
      ]);
    }
    client.destroy();
  }),
);

test(
  'STARTTLS: a new reader, "upgrading" until the handshake ends, then the socket on top; it is cut from there',
  leakless(async (_t, defer) => {
    const [server, port] = await start(defer, 'starttls');
    const client = connect(port, '127.0.0.1');
    defer(() => void client.destroy());
    await new Promise((resolve) => client.once('data', resolve));
    const { session } = server;
    assert.ok(session);
    steps = [];
    session.upgrade(
      () => {},
      () => steps.push('secured'),
    );
    assert.equal(session.facts(), 'upgrading plain');
    const secured = connectTls({ socket: client, rejectUnauthorized: false });
    secured.on('error', () => {});
    defer(() => void secured.destroy());
    await waitFor(() => steps.includes('secured'));
    assert.equal(session.facts(), 'steady TLS');
    assert.deepEqual(steps, ['reader', 'secured']);
    secured.write('EHLO again\r\n');
    await waitFor(() => session.octets === 'EHLO again\r\n');
    session.cut();
    await waitFor(() => steps.includes('left'));
    client.destroy();
  }),
);

test(
  'implicit TLS: pending until the handshake has ended, with its socket on top',
  leakless(async (_t, defer) => {
    const [server, port] = await start(defer, 'implicit');
    const client = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
    defer(() => void client.destroy());
    client.on('error', () => {});
    await waitFor(() => steps.includes('greet'));
    assert.deepEqual(steps, [
      'accept before a handshake',
      'header',
      'release',
      'session ours',
      'reader',
      'init',
      'greet',
    ]);
    assert.ok(server.topmost !== undefined && 'getCipher' in server.topmost);
    client.destroy();
    await waitFor(() => steps.includes('left'));
  }),
);
