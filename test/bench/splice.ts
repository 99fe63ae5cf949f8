/** The measure of the bench: a process that only splices a plain socket to a TLS one. `splice.js PORT CAFILE` prints its port. */
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { connect } from 'node:tls';

const [port, caFile] = process.argv.slice(2);
if (port === undefined || caFile === undefined) throw new Error('splice.js PORT CAFILE');
const ca = readFileSync(caFile);

const server = createServer({ noDelay: true }, (client) => {
  const upstream = connect({ host: 'localhost', port: Number(port), ca, servername: 'localhost' });
  upstream.setNoDelay(true);
  client.on('error', () => upstream.destroy());
  upstream.on('error', () => client.destroy());
  client.pipe(upstream);
  upstream.pipe(client);
});
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
