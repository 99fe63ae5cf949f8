/**
 * A real Dovecot that lets people in by OAuth2 alone. In: who a token belongs to. Out: an IMAP server on loopback with TLS.
 * Owns the process and its directory. Needs root: Dovecot changes users.
 */
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { issueCertificate } from './certificate.ts';
import { freePort } from './free-port.ts';
import { waitFor, within } from './wait-for.ts';

export interface Dovecot {
  /** With TLS from the first octet; the certificate is that of `localhost`. */
  readonly port: number;
  /** Whose tokens were asked about, in order; '' for one that was refused. */
  readonly logins: readonly string[];
  /** Puts a message into the mailbox of `user`. */
  deliver(user: string, message: string): void;
  log(): string;
  close(): Promise<void>;
}

export async function startDovecot(ownerOf: (token: string) => string | undefined): Promise<Dovecot> {
  const directory = mkdtempSync(join(tmpdir(), 'dovecot-'));
  chmodSync(directory, 0o755);
  const logins: string[] = [];
  const introspection = createServer((request, response) => void introspect(request, response));
  async function introspect(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const token = new URLSearchParams(await text(request)).get('token') ?? '';
    const owner = ownerOf(token);
    logins.push(owner ?? '');
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(owner === undefined ? { active: false } : { active: true, email: owner }));
  }
  await new Promise<void>((resolve) => introspection.listen(0, '127.0.0.1', resolve));
  const port = await freePort();
  const certificate = issueCertificate();
  const file = (name: string, content: string): string => {
    writeFileSync(join(directory, name), content, { mode: 0o644 });
    return join(directory, name);
  };
  const oauth2 = file(
    'oauth2.conf',
    [
      `introspection_url = http://127.0.0.1:${(introspection.address() as AddressInfo).port}/`,
      'introspection_mode = post',
      'username_attribute = email',
      'active_attribute = active',
      'active_value = true',
      '',
    ].join('\n'),
  );
  const home = join(directory, 'home');
  const config = file(
    'dovecot.conf',
    `protocols = imap
base_dir = ${directory}/run
state_dir = ${directory}/state
log_path = ${directory}/dovecot.log
auth_mechanisms = xoauth2 oauthbearer
ssl = required
ssl_cert = <${file('cert.pem', certificate.certPem)}
ssl_key = <${file('key.pem', certificate.keyPem)}
mail_location = maildir:~/Maildir
first_valid_uid = 1
passdb {
  driver = oauth2
  args = ${oauth2}
}
userdb {
  driver = static
  args = uid=mail gid=mail home=${home}/%u
}
service imap-login {
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    address = 127.0.0.1
    port = ${port}
    ssl = yes
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`,
  );
  mkdirSync(home, { mode: 0o777 });
  chmodSync(home, 0o777);
  const child = spawn('dovecot', ['-F', '-c', config], { stdio: 'ignore' });
  const gone = new Promise<void>((resolve) => void child.once('close', () => resolve()));
  const log = (): string => {
    try {
      return readFileSync(join(directory, 'dovecot.log'), 'utf8');
    } catch {
      return '';
    }
  };
  const close = async (): Promise<void> => {
    child.kill('SIGTERM');
    await within(gone, 10_000, 'dovecot ends').catch(() => child.kill('SIGKILL'));
    await new Promise((resolve) => introspection.close(resolve));
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await waitFor(() => isOpen(port), { what: 'dovecot listens' });
  } catch (error) {
    const said = log();
    await close();
    throw new Error(`${String(error)}\n${said}`);
  }
  return {
    port,
    logins,
    deliver(user, message) {
      const box = join(home, user, 'Maildir');
      for (const part of ['', 'tmp', 'new', 'cur']) {
        mkdirSync(join(box, part), { recursive: true });
        chmodSync(join(box, part), 0o777);
      }
      chmodSync(join(home, user), 0o777);
      const path = join(box, 'new', `${process.hrtime.bigint()}.test`);
      writeFileSync(path, message);
      chmodSync(path, 0o666);
    },
    log,
    close,
  };
}

const isOpen = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
