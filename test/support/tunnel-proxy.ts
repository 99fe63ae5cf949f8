/** A proxy on loopback, HTTP CONNECT or SOCKS5 (RFC 1928, RFC 1929), that can misbehave. In: how it is to be. Out: what it was asked. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface TunnelProxy {
  readonly port: number;
  /** `http://user:password@127.0.0.1:port`, or `socks5://…`. */
  readonly url: string;
  /** `host:port` of every tunnel asked for. */
  readonly asked: readonly string[];
  /**
   * `early`: its answer and the server's greeting come in one piece, `drips`: octet by octet. `greets`: grants and
   * says `greeting` in the server's place; `resets`: grants and is gone; `garbles`: answers the request for a tunnel with
   * what is no answer.
   */
  mood:
    | 'well'
    | 'early'
    | 'drips'
    | 'greets'
    | 'resets'
    | 'garbles'
    | 'silent'
    | 'refuses'
    | 'closes'
    | 'garbage';
  /** Said where the mood is `greets`. */
  greeting: string;
  close(): Promise<void>;
}

export interface TunnelProxyOptions {
  readonly kind: 'http' | 'socks5';
  readonly user?: string;
  readonly password?: string;
}

export async function startTunnelProxy({ kind, user, password }: TunnelProxyOptions): Promise<TunnelProxy> {
  const asked: string[] = [];
  const open = new Set<Socket>();
  const hold = (socket: Socket): Socket => {
    open.add(socket);
    return socket.on('error', () => {}).on('close', () => void open.delete(socket));
  };

  function join(near: Socket, place: string, granted: Buffer): void {
    if (proxy.mood === 'garbles') return void near.end('220 mail.example ESMTP\r\n');
    if (proxy.mood === 'resets') return void near.write(granted, () => near.resetAndDestroy());
    if (proxy.mood === 'greets')
      return void near.write(Buffer.concat([granted, Buffer.from(proxy.greeting)]));
    const at = place.lastIndexOf(':');
    // Every name is this machine: the client has to leave it to the proxy.
    const far = hold(connect(Number(place.slice(at + 1)), '127.0.0.1'));
    near.once('close', () => far.destroy());
    far.once('close', () => near.destroy());
    const begin = (first: Buffer): void => {
      near.write(Buffer.concat([granted, first]));
      near.pipe(far).pipe(near);
    };
    const drip = async (first: Buffer): Promise<void> => {
      far.pause();
      for (const octet of Buffer.concat([granted, first])) {
        near.write(Buffer.from([octet]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      near.pipe(far).pipe(near);
    };
    if (proxy.mood === 'early') far.once('data', begin);
    else if (proxy.mood === 'drips') far.once('data', (first) => void drip(first));
    else far.once('connect', () => begin(Buffer.alloc(0)));
  }

  /** The next octets, at least `count(read)` of them. */
  async function take(near: Socket, count: (read: Buffer) => number): Promise<Buffer> {
    let read = Buffer.alloc(0);
    for (;;) {
      const wanted = count(read);
      if (wanted > 0 && read.length >= wanted) {
        const rest = read.subarray(wanted);
        if (rest.length > 0) near.unshift(rest);
        return read.subarray(0, wanted);
      }
      const chunk = near.read() as Buffer | null;
      if (chunk !== null) read = Buffer.concat([read, chunk]);
      else await new Promise((resolve, reject) => near.once('readable', resolve).once('close', reject));
    }
  }

  async function serveHttp(near: Socket): Promise<void> {
    const end = (read: Buffer): number => (read.includes('\r\n\r\n') ? read.indexOf('\r\n\r\n') + 4 : 0);
    const head = (await take(near, end)).toString();
    const place = /^CONNECT (\S+) HTTP\/1\.1\r\n/.exec(head)?.[1] ?? '';
    asked.push(place);
    const wanted = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
    if (user !== undefined && !head.includes(`proxy-authorization: ${wanted}\r\n`))
      return void near.end('HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n\r\n');
    if (proxy.mood === 'refuses') return void near.end('HTTP/1.1 403 no such luck for hunter2\r\n\r\n');
    join(near, place, Buffer.from('HTTP/1.1 200 Connection established\r\n\r\n'));
  }

  async function serveSocks(near: Socket): Promise<void> {
    const methods = await take(near, (read) => (read.length < 2 ? 2 : 2 + (read[1] ?? 0)));
    const method = user === undefined ? 0 : 2;
    if (!methods.subarray(2).includes(method)) return void near.end(Buffer.from([5, 0xff]));
    near.write(Buffer.from([5, method]));
    if (method === 2) {
      const login = await take(near, (read) => {
        const userEnd = 2 + (read[1] ?? 0);
        return read.length <= userEnd ? userEnd + 1 : userEnd + 1 + (read[userEnd] ?? 0);
      });
      const right = [Buffer.from(user ?? ''), Buffer.from(password ?? '')];
      const expected = Buffer.concat([
        Buffer.from([1]),
        ...right.flatMap((part) => [Buffer.from([part.length]), part]),
      ]);
      near.write(Buffer.from([1, login.equals(expected) ? 0 : 1]));
      if (!login.equals(expected)) return void near.end();
    }
    const request = await take(near, (read) => (read.length < 5 ? 5 : 7 + (read[4] ?? 0)));
    const place = `${request.subarray(5, -2)}:${request.readUInt16BE(request.length - 2)}`;
    asked.push(place);
    const answer = (code: number): Buffer => Buffer.from([5, code, 0, 1, 127, 0, 0, 1, 0, 0]);
    if (proxy.mood === 'refuses') return void near.end(answer(2));
    join(near, place, answer(0));
  }

  const server = createServer((near) => {
    hold(near);
    if (proxy.mood === 'silent') return;
    if (proxy.mood === 'closes') return void near.end();
    if (proxy.mood === 'garbage') return void near.end('220 mail.example ESMTP\r\n');
    (kind === 'http' ? serveHttp(near) : serveSocks(near)).catch(() => near.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const login = user === undefined ? '' : `${user}:${encodeURIComponent(password ?? '')}@`;
  const proxy: TunnelProxy = {
    port,
    url: `${kind}://${login}127.0.0.1:${port}`,
    asked,
    mood: 'well',
    greeting: '',
    close: () =>
      new Promise((resolve) => {
        for (const socket of open) socket.destroy();
        server.close(() => resolve());
      }),
  };
  return proxy;
}
