/** A listener on a free port in front of a relay that only remembers, for tests of the listener room. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Account, AccountLimits } from '../../src/accounts/account.ts';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { createListener, type Listener, type ListenerDeps } from '../../src/listener/listener.ts';
import type { PartialListenerOptions } from '../../src/listener/options.ts';
import { silentLog } from '../../src/log.ts';
import { type Reply, reply } from '../../src/protocol/reply.ts';
import type { MailCommand, Relay } from '../../src/relay/relay.ts';
import { issueCertificate } from '../support/certificate.ts';
import type { Defer } from '../support/leak-check.ts';
import { type SmtpClient, type SmtpClientOptions, smtpClient } from '../support/smtp-client.ts';

const LIMITS: AccountLimits = {
  maxConnections: 2,
  minConnections: 0,
  messagesPerMinute: undefined,
  messagesPerDay: undefined,
  recipientsPerDay: undefined,
  maxRecipients: 100,
  messagesPerConnection: 100,
  idleMs: 60_000,
  maxAgeMs: 60_000,
  loginIntervalMs: 0,
  maxBytes: 35_000_000,
};

export function account(email: string, more: Partial<Account> = {}): Account {
  return {
    id: email,
    email,
    provider: 'gmail',
    user: email,
    senders: [email],
    clientPassword: undefined,
    upstream: { host: 'upstream.test', port: 587, tls: 'starttls' },
    chunking: true,
    grant: 'refresh_token',
    localAddress: undefined,
    transport: 'smtp',
    limits: LIMITS,
    ...more,
  };
}

/** One transaction as the relay saw it. */
export interface Seen {
  readonly command: MailCommand;
  readonly recipients: { readonly address: string; readonly parameters: readonly string[] }[];
  /** Pieces as they came. */
  readonly pieces: Buffer[];
  /** Answered 250 at the end. */
  isTaken: boolean;
  /** Nothing of it may be delivered; which of the two was told so. */
  aborted: 'transaction' | 'body' | undefined;
  sizeChanged?: boolean;
}

export const bodyOf = (seen: Seen | undefined): string =>
  Buffer.concat(seen?.pieces ?? []).toString('latin1');

export interface FakeRelay extends Relay {
  readonly seen: Seen[];
  readonly taken: () => Seen[];
  /** What is answered; replace to change it. */
  on: {
    mail: (command: MailCommand) => Reply | Promise<Reply>;
    rcpt: (address: string, earlier: number) => Reply | Promise<Reply>;
    data: () => Reply | undefined;
    write: (piece: Buffer) => Promise<void> | undefined;
    end: (seen: Seen) => Reply | Promise<Reply>;
  };
}

export function fakeRelay(): FakeRelay {
  const seen: Seen[] = [];
  const relay: FakeRelay = {
    seen,
    taken: () => seen.filter((s) => s.isTaken),
    on: {
      mail: () => reply(250, '2.1.0', 'Sender OK'),
      rcpt: () => reply(250, '2.1.5', 'Recipient OK'),
      data: () => undefined,
      write: () => undefined,
      end: () => reply(250, '2.0.0', 'Taken'),
    },
    async mail(command) {
      const answer = await relay.on.mail(command);
      if (answer.code >= 300) return { reply: answer };
      const one: Seen = {
        command,
        recipients: [],
        pieces: [],
        isTaken: false,
        aborted: undefined,
      };
      seen.push(one);
      let isOver = false;
      return {
        reply: answer,
        transaction: {
          id: `T${seen.length}`,
          async rcpt(recipients) {
            const verdicts: Reply[] = [];
            for (const recipient of recipients) {
              const verdict = await relay.on.rcpt(recipient.address, one.recipients.length);
              if (verdict.code < 300) one.recipients.push(recipient);
              verdicts.push(verdict);
            }
            return verdicts;
          },
          mostHeld: 0,
          refusalAtData: () => relay.on.data(),
          body: () => ({
            write(piece) {
              one.pieces.push(piece);
              return relay.on.write(piece);
            },
            headerChanged() {},
            sizeChanged() {
              one.sizeChanged = true;
            },
            async end() {
              isOver = true;
              const final = await relay.on.end(one);
              if (final.code < 300) one.isTaken = true;
              return final;
            },
            abort() {
              if (isOver) return;
              isOver = true;
              one.aborted = 'body';
            },
            giveUp() {},
          }),
          abort() {
            if (isOver) return;
            isOver = true;
            one.aborted = 'transaction';
          },
        },
      };
    },
  };
  return relay;
}

export interface Stage {
  readonly relay: FakeRelay;
  readonly listener: Listener;
  readonly port: number;
  /** Connected, the greeting not read. */
  connect(options?: SmtpClientOptions): Promise<SmtpClient>;
  /** Connected and past EHLO. */
  greeted(options?: SmtpClientOptions): Promise<SmtpClient>;
  /** Past MAIL, RCPT and the 354. */
  inBody(): Promise<SmtpClient>;
}

export interface StageOptions {
  readonly settings?: PartialListenerOptions;
  readonly accounts?: readonly Account[];
  readonly deps?: Partial<ListenerDeps>;
}

/** Listening; stopped by `defer`. */
export async function stage(defer: Defer, options: StageOptions = {}): Promise<Stage> {
  const relay = fakeRelay();
  const directory = createAccountDirectory(options.accounts ?? [account('a@x.test')]);
  const listener = createListener(
    { relay, directory: () => directory, log: silentLog, replayBytes: 4096, ...options.deps },
    { port: 0, hostname: 'relay.test', ...options.settings },
  );
  const address = await listener.listen();
  defer(() => listener.stop({ deadlineMs: 0 }));
  const port = 'port' in address ? address.port : 0;
  const one: Stage = {
    relay,
    listener,
    port,
    async connect(how) {
      const client = await smtpClient(port, how);
      defer(() => client.socket.destroy());
      return client;
    },
    async greeted(how) {
      const client = await one.connect(how);
      await client.expect(undefined, 220);
      await client.expect(options.settings?.lmtp === true ? 'LHLO client.test' : 'EHLO client.test', 250);
      return client;
    },
    async inBody() {
      const client = await one.greeted();
      await client.expect('MAIL FROM:<a@x.test>', 250);
      await client.expect('RCPT TO:<b@y.test>', 250);
      await client.expect('DATA', 354);
      return client;
    },
  };
  return one;
}

/** A certificate and key in files, and a way to replace them. */
export async function certificateFiles(defer: Defer) {
  const directory = await mkdtemp(join(tmpdir(), 'listener-test-'));
  defer(() => rm(directory, { recursive: true }));
  const certFile = join(directory, 'cert.pem');
  const keyFile = join(directory, 'key.pem');
  const renew = async (): Promise<void> => {
    const { certPem, keyPem } = issueCertificate();
    await writeFile(certFile, certPem);
    await writeFile(keyFile, keyPem);
  };
  await renew();
  return { certFile, keyFile, directory, renew };
}
