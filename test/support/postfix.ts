/**
 * A real Postfix as an instance of its own: configuration, queue and log in a temporary directory, an
 * unprivileged port, everything relayed to one next hop. Owns its master process. Needs root.
 */
import { execFile } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from './free-port.ts';
import { waitFor } from './wait-for.ts';

const run = promisify(execFile);

export interface PostfixOptions {
  /** Where everything goes: the relay's SMTP port on 127.0.0.1. */
  readonly relayPort: number;
  /** Mail to these domains (bounces to the senders) lands in maildirs of the instance instead. */
  readonly localDomains?: readonly string[];
  /** Further main.cf settings. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface QueuedMessage {
  readonly queue_id: string;
  readonly queue_name: string;
  readonly sender: string;
  readonly recipients: readonly { readonly address: string; readonly delay_reason?: string }[];
}

export interface Postfix {
  /** Its own SMTP port, for injecting. */
  readonly port: number;
  readonly directory: string;
  readonly configDirectory: string;
  log(): string;
  queue(): Promise<readonly QueuedMessage[]>;
  /** Tries everything in the queue at once. */
  flush(): Promise<void>;
  /** Messages delivered to local domains so far. */
  mailbox(): readonly string[];
  stop(): Promise<void>;
}

const MASTER = (port: number): string => `
127.0.0.1:${port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
`;

export async function startPostfix(options: PostfixOptions): Promise<Postfix> {
  const directory = mkdtempSync(join(tmpdir(), 'postfix-test-'));
  // Postfix's daemons run as their own user and must get through.
  chmodSync(directory, 0o755);
  const [config, spool, data, mail] = ['etc', 'spool', 'data', 'mail'].map((name) => {
    const path = join(directory, name);
    mkdirSync(path, { mode: 0o755 });
    return path;
  }) as [string, string, string, string];
  const uid = Number((await run('id', ['-u', 'postfix'])).stdout);
  const gid = Number((await run('id', ['-g', 'postfix'])).stdout);
  chownSync(data, uid, gid);
  chownSync(mail, uid, gid);
  const port = await freePort();
  const logFile = join(directory, 'postfix.log');
  const domains = options.localDomains ?? [];
  const settings: Record<string, string> = {
    compatibility_level: '3.6',
    queue_directory: spool,
    data_directory: data,
    command_directory: '/usr/sbin',
    daemon_directory: '/usr/lib/postfix/sbin',
    mail_owner: 'postfix',
    setgid_group: 'postdrop',
    maillog_file: logFile,
    maillog_file_prefixes: directory,
    myhostname: 'mta.example.org',
    inet_interfaces: '127.0.0.1',
    inet_protocols: 'ipv4',
    mynetworks: '127.0.0.0/8',
    mydestination: '',
    alias_maps: '',
    local_recipient_maps: '',
    relayhost: `[127.0.0.1]:${options.relayPort}`,
    smtp_tls_security_level: 'none',
    smtputf8_enable: 'yes',
    notify_classes: '',
    message_size_limit: '50000000',
    // Retries in seconds instead of minutes.
    queue_run_delay: '2s',
    minimal_backoff_time: '2s',
    maximal_backoff_time: '4s',
    virtual_mailbox_domains: domains.join(' '),
    virtual_mailbox_base: mail,
    virtual_mailbox_maps: 'static:box/',
    virtual_uid_maps: `static:${uid}`,
    virtual_gid_maps: `static:${gid}`,
    virtual_minimum_uid: '1',
    ...options.settings,
  };
  writeFileSync(
    join(config, 'main.cf'),
    Object.entries(settings)
      .map(([key, value]) => `${key} = ${value}\n`)
      .join(''),
  );
  writeFileSync(join(config, 'master.cf'), MASTER(port));
  const log = (): string => (existsSync(logFile) ? readFileSync(logFile, 'utf8') : '');
  let stopped = false;
  const stop = async (): Promise<void> => {
    if (stopped) return;
    stopped = true;
    await run('postfix', ['-c', config, 'stop']).catch(() => {});
    await waitFor(() => !existsSync(`/proc/${masterPid}`), { what: 'end of the Postfix master' });
    rmSync(directory, { recursive: true, force: true });
  };
  await run('postfix', ['-c', config, 'start']).catch((error: unknown) => {
    throw new Error(`Postfix does not start: ${String(error)}\n${log()}`);
  });
  const masterPid = readFileSync(join(spool, 'pid/master.pid'), 'utf8').trim();
  const inbox = join(mail, 'box/new');
  return {
    port,
    directory,
    configDirectory: config,
    log,
    async queue() {
      const { stdout } = await run('postqueue', ['-c', config, '-j']);
      return stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as QueuedMessage);
    },
    async flush() {
      await run('postqueue', ['-c', config, '-f']);
    },
    mailbox: () =>
      existsSync(inbox) ? readdirSync(inbox).map((name) => readFileSync(join(inbox, name), 'utf8')) : [],
    stop,
  };
}
