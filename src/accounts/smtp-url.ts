/** Addresses of submission servers as an operator writes them. In: text. Out: `Endpoint`. Pure. */
import type { Endpoint } from './account.ts';

const PORTS = { starttls: 587, smtps: 465 };
const SMTP_URL = /^(starttls|smtps):\/\/(?:\[([0-9a-fA-F:.]+)\]|([^\s:/@[\]]+))(?::(\d{1,5}))?$/;
const HOST_PORT = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/@[\]]+)):(\d{1,5})$/;

/** `starttls://host:587`, `smtps://host:465`; the port may be left out. Throws a `SyntaxError`. */
export function parseSmtpUrl(text: string): Endpoint {
  const [, scheme, bracketed, name, port] = SMTP_URL.exec(text) ?? [];
  const host = bracketed ?? name;
  if ((scheme !== 'starttls' && scheme !== 'smtps') || host === undefined)
    throw new SyntaxError('expected starttls://host:587 or smtps://host:465');
  return { host, port: checkPort(port ?? PORTS[scheme]), tls: scheme === 'smtps' ? 'implicit' : 'starttls' };
}

/** `host:port` of earlier tools; 465 is implicit TLS, any other port STARTTLS. Throws a `SyntaxError`. */
export function parseHostPort(text: string): Endpoint {
  const [, bracketed, name, digits] = HOST_PORT.exec(text) ?? [];
  const host = bracketed ?? name;
  if (host === undefined || digits === undefined) throw new SyntaxError('expected host:port');
  const port = checkPort(digits);
  return { host, port, tls: port === PORTS.smtps ? 'implicit' : 'starttls' };
}

function checkPort(text: string | number): number {
  const port = Number(text);
  if (port < 1 || port > 65_535) throw new SyntaxError('expected a port from 1 to 65535');
  return port;
}

/** Whether `parse` takes a text. */
export const isParsed = (parse: (text: string) => unknown) => (text: string) => {
  try {
    parse(text);
    return true;
  } catch {
    return false;
  }
};
