/**
 * The upstream of the bench, as a process of its own: implicit TLS, accepts any login and any message,
 * keeps nothing. `sink.js CERT KEY [nochunking | after=MS | starttls]` prints its port. Replies to commands that came
 * together leave together, as a large provider's do; with `after` they are so long on their way. To HELP it tells how
 * many messages it took, and over how many connections that carried any.
 */
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer as createPlainServer, type Socket } from 'node:net';
import { createSecureContext, createServer, TLSSocket } from 'node:tls';

const [cert, key, mode] = process.argv.slice(2);
if (cert === undefined || key === undefined)
  throw new Error('sink.js CERT KEY [nochunking | after=MS | starttls]');
const extensions = [
  'PIPELINING',
  'SIZE 157286400',
  '8BITMIME',
  'SMTPUTF8',
  'ENHANCEDSTATUSCODES',
  'AUTH XOAUTH2 PLAIN',
];
if (mode !== 'nochunking') extensions.push('CHUNKING');
if (mode === 'starttls') extensions.unshift('STARTTLS');
const EHLO = [
  '250-sink',
  ...extensions.map((e, i) => `250${i === extensions.length - 1 ? ' ' : '-'}${e}`),
].join('\r\n');
const latencyMs = mode?.startsWith('after=') ? Number(mode.slice(6)) : 0;
const END = Buffer.from('\r\n.\r\n');

const pair = { cert: readFileSync(cert), key: readFileSync(key) };
const secureContext = createSecureContext(pair);
let messages = 0;
let carriers = 0;

function serve(socket: Socket): void {
  socket.write('220 sink ESMTP\r\n');
  converse(socket);
}

function converse(socket: Socket): void {
  let rest = Buffer.alloc(0);
  /** Octets of a BDAT chunk still to come; -1: none. */
  let chunk = -1;
  let isLast = false;
  let inData = false;
  /** Somebody to deliver to. */
  let hasRecipient = false;
  let awaitsBlob = false;
  let isCounted = false;
  socket.on('error', () => {});
  socket.on('data', (incoming: Buffer) => {
    let bytes = rest.length === 0 ? incoming : Buffer.concat([rest, incoming]);
    rest = Buffer.alloc(0);
    let out = '';
    for (;;) {
      if (chunk >= 0) {
        const taken = Math.min(chunk, bytes.length);
        chunk -= taken;
        bytes = bytes.subarray(taken);
        if (chunk > 0) break;
        chunk = -1;
        if (!hasRecipient) out += '503 5.5.1 RCPT first\r\n';
        else out += isLast ? '250 2.0.0 OK  1795229593 sink\r\n' : '250 2.0.0 chunk taken\r\n';
        if (isLast && hasRecipient) messages += 1;
        if (isLast) hasRecipient = false;
        continue;
      }
      if (inData) {
        const end = bytes.indexOf(END);
        if (end < 0) {
          // Copied: a view would keep the whole chunk.
          rest = Buffer.from(bytes.subarray(Math.max(0, bytes.length - 4)));
          break;
        }
        inData = false;
        messages += 1;
        bytes = bytes.subarray(end + END.length);
        out += '250 2.0.0 OK  1795229593 sink\r\n';
        continue;
      }
      const lf = bytes.indexOf(0x0a);
      if (lf < 0) {
        rest = Buffer.from(bytes);
        break;
      }
      const line = bytes.toString('latin1', 0, lf).trimEnd();
      bytes = bytes.subarray(lf + 1);
      if (awaitsBlob) {
        awaitsBlob = false;
        out += '235 2.7.0 Accepted\r\n';
      } else if (line.startsWith('AUTH PLAIN ')) out += '235 2.7.0 Accepted\r\n';
      else if (line === 'HELP') out += `214 ${messages} ${carriers}\r\n`;
      else if (line === 'STARTTLS') {
        socket.write('220 2.0.0 go ahead\r\n');
        socket.removeAllListeners('data');
        converse(new TLSSocket(socket, { isServer: true, secureContext }));
        return;
      } else if (line.startsWith('MAIL')) {
        if (!isCounted) carriers += 1;
        isCounted = true;
        out += '250 2.1.0 OK sink\r\n';
      } else if (line.startsWith('RCPT')) {
        hasRecipient = true;
        out += '250 2.1.5 OK sink\r\n';
      } else if (line.startsWith('BDAT')) {
        const [, size, last] = line.split(' ');
        chunk = Number(size);
        isLast = last === 'LAST';
      } else if (line === 'DATA') {
        inData = true;
        // The CRLF before an immediate dot is DATA's own.
        bytes = Buffer.concat([Buffer.from('\r\n'), bytes]);
        out += '354 Go ahead\r\n';
      } else if (line.startsWith('EHLO')) out += `${EHLO}\r\n`;
      else if (line === 'AUTH XOAUTH2') {
        awaitsBlob = true;
        out += '334 \r\n';
      } else if (line === 'QUIT') {
        socket.end(`${out}221 2.0.0 bye\r\n`);
        return;
      } else out += '250 2.0.0 OK\r\n';
    }
    if (out === '') return;
    if (latencyMs === 0) socket.write(out);
    else later(() => socket.write(out), performance.now() + latencyMs);
  });
}

/** At `due`, not up to 2 ms later as a timer. What comes first leaves first. */
function later(task: () => void, due: number): void {
  const look = (): void => {
    if (performance.now() >= due) task();
    else setImmediate(look);
  };
  setTimeout(look, due - performance.now() - 2);
}

const server =
  mode === 'starttls'
    ? createPlainServer({ noDelay: true }, serve)
    : createServer({ ...pair, noDelay: true }, serve).on('tlsClientError', () => {});
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
