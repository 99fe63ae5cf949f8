/**
 * Certificates for the provider simulator: one CA per process and leaves signed by it, written as
 * DER by hand so that no tool has to be installed. EC P-256, X.509 v3 (RFC 5280).
 */

import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';

export interface Certificate {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface CertificateOptions {
  /** DNS names and IPv4 addresses; default `localhost` and `127.0.0.1`. */
  readonly names?: readonly string[];
  /** End of validity, default in 30 days. */
  readonly notAfter?: Date;
  /** Default `ec`. */
  readonly key?: 'ec' | 'rsa';
}

const DAY_MS = 86_400_000;

const tlv = (tag: number, ...parts: Buffer[]): Buffer => {
  const body = Buffer.concat(parts);
  if (body.length < 0x80) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const size: number[] = [];
  for (let n = body.length; n > 0; n >>= 8) size.unshift(n & 0xff);
  return Buffer.concat([Buffer.from([tag, 0x80 | size.length, ...size]), body]);
};
const sequence = (...parts: Buffer[]): Buffer => tlv(0x30, ...parts);
const octets = (...parts: Buffer[]): Buffer => tlv(0x04, ...parts);
const TRUE = tlv(0x01, Buffer.from([0xff]));

/** Arcs after the second must fit four 7-bit groups: enough for the ones here. */
function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const groups = [arc & 0x7f];
    for (let n = arc >> 7; n > 0; n >>= 7) groups.unshift((n & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return tlv(0x06, Buffer.from(bytes));
}

const name = (commonName: string): Buffer =>
  sequence(tlv(0x31, sequence(oid('2.5.4.3'), tlv(0x0c, Buffer.from(commonName)))));
const utcTime = (at: Date): Buffer =>
  tlv(0x17, Buffer.from(`${at.toISOString().slice(2, 19).replace(/[-:T]/g, '')}Z`));
const extension = (id: string, critical: boolean, value: Buffer): Buffer =>
  critical ? sequence(oid(id), TRUE, octets(value)) : sequence(oid(id), octets(value));
const pem = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replace(/.{64}(?=.)/g, '$&\n')}\n-----END CERTIFICATE-----\n`;

const ECDSA_SHA256 = sequence(oid('1.2.840.10045.4.3.2'));

function build(
  issuer: string,
  subject: string,
  notAfter: Date,
  publicKey: KeyObject,
  signingKey: KeyObject,
  extensions: Buffer[],
): string {
  const serial = randomBytes(8);
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x01;
  const notBefore = new Date(Math.min(Date.now(), notAfter.getTime()) - DAY_MS);
  const tbs = sequence(
    tlv(0xa0, tlv(0x02, Buffer.from([2]))),
    tlv(0x02, serial),
    ECDSA_SHA256,
    name(issuer),
    sequence(utcTime(notBefore), utcTime(notAfter)),
    name(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    tlv(0xa3, sequence(...extensions)),
  );
  const signature = sign('sha256', tbs, signingKey);
  return pem(sequence(tbs, ECDSA_SHA256, tlv(0x03, Buffer.from([0]), signature)));
}

const CA_NAME = 'Provider simulator CA';
let authority: { certPem: string; file: string; key: KeyObject } | undefined;

/** The CA of this process; `file` is what NODE_EXTRA_CA_CERTS may name and is removed at exit. */
export function testAuthority(): { readonly certPem: string; readonly file: string } {
  return ensureAuthority();
}

function ensureAuthority(): { certPem: string; file: string; key: KeyObject } {
  if (authority !== undefined) return authority;
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const certPem = build(CA_NAME, CA_NAME, new Date(Date.now() + 30 * DAY_MS), publicKey, privateKey, [
    extension('2.5.29.19', true, sequence(TRUE)),
    extension('2.5.29.15', true, tlv(0x03, Buffer.from([2, 0x04]))),
  ]);
  const directory = mkdtempSync(join(tmpdir(), 'provider-ca-'));
  const file = join(directory, 'ca.pem');
  writeFileSync(file, certPem);
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  authority = { certPem, file, key: privateKey };
  return authority;
}

/** A server certificate signed by the process's CA. */
export function issueCertificate(options: CertificateOptions = {}): Certificate {
  const ca = ensureAuthority();
  const names = options.names ?? ['localhost', '127.0.0.1'];
  const { publicKey, privateKey } =
    options.key === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const alternatives = names.map((n) =>
    isIP(n) === 4 ? tlv(0x87, Buffer.from(n.split('.').map(Number))) : tlv(0x82, Buffer.from(n)),
  );
  const certPem = build(
    CA_NAME,
    names[0] ?? 'localhost',
    options.notAfter ?? new Date(Date.now() + 30 * DAY_MS),
    publicKey,
    ca.key,
    [
      extension('2.5.29.17', false, sequence(...alternatives)),
      extension('2.5.29.37', false, sequence(oid('1.3.6.1.5.5.7.3.1'))),
    ],
  );
  return { certPem, keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

/** The serial number a new session of implicit TLS is shown. */
export async function serialAt(port: number): Promise<string> {
  const socket = tlsConnect({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ca: testAuthority().certPem,
  });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}
