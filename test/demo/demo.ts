/**
 * The whole product on loopback: two simulated providers, the relay with a Gmail, an Outlook and a
 * revoked account, and a client that sends real messages. Exit 0 when everything came out as it should.
 */
import { type Provider, startProvider } from '../support/provider.ts';
import { type RelayProcess, startRelay } from '../support/relay-process.ts';
import { type SmtpClient, smtpClient } from '../support/smtp-client.ts';
import { waitFor } from '../support/wait-for.ts';
import { archive, type DemoMessage, greeting, invoice, note, sha256 } from './messages.ts';
import { cut, heading, hop, paint, say, table } from './screen.ts';

const GMAIL = 'ann@gmail.example';
const OUTLOOK = 'olaf@outlook.example';
const REVOKED = 'gone@gmail.example';
const TENANT = 'tina@tenant.example';
const NEWCOMER = 'nina@gmail.example';

interface AccountRow {
  readonly email: string;
  readonly provider: string;
  readonly status: string;
  readonly way: string;
  readonly reason: string | null;
  readonly token: { readonly cached: boolean; readonly expires_in_s?: number | null };
  readonly pool: { readonly size: number; readonly idle: number; readonly max: number };
  readonly messages: { readonly relayed: number; readonly deferred: number; readonly rejected: number };
  readonly last_error?: string | { readonly message?: string } | null;
}

const SMTP_AUTH_OFF =
  '535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.';

const failures: string[] = [];
const check = (holds: boolean, what: string): void => {
  if (!holds) failures.push(what);
};
const closers: (() => unknown)[] = [];
let shown = 0;

/** A provider that shows its side of every hop. */
async function provider(
  name: string,
  flavour: 'gmail' | 'microsoft',
  users: readonly string[],
  hasGraph = false,
): Promise<Provider> {
  let chunks = 0;
  const started = await startProvider({
    flavour,
    users,
    ...(hasGraph ? { graph: {} } : {}),
    observe(_connection, who, line) {
      // Of a multi-line reply the last line is enough, and of many chunks the first and the last.
      if (who === 'S' && /^\d{3}-/.test(line)) return;
      if (who === 'C') chunks = /^BDAT \d+$/.test(line) ? chunks + 1 : 0;
      if (chunks > 1) return;
      // Octets as they were heard: an address with SMTPUTF8 is more of them than letters.
      hop('relay', who === 'C' ? '→' : '←', name, Buffer.from(line, 'latin1').toString());
    },
  });
  started.token.observe = (request) => {
    const user = request.user ?? 'nobody it knows';
    hop('relay', '→', `${name} tokens`, `POST ${request.path} ${request.grant} for ${user}`);
    hop('relay', '←', `${name} tokens`, `${request.status ?? 'no answer'}`);
  };
  if (hasGraph)
    started.graph.observe = ({ call, url, status }) => {
      const path = url.replace(/\/v1\.0\/users\/[^/]+/, '').slice(0, 40);
      hop('relay', '→', `${name} Graph`, `${call}: ${path}`);
      hop('relay', '←', `${name} Graph`, String(status));
    };
  closers.push(() => started.close());
  return started;
}

async function step(client: SmtpClient, line: string): Promise<number> {
  hop('client', '→', 'relay', line);
  const reply = await client.send(line);
  hop('client', '←', 'relay', reply.lines.at(-1) ?? '');
  return reply.code;
}

/** Sends one message and says what became of it: the code of the last reply. */
async function send(relay: RelayProcess, message: DemoMessage): Promise<number> {
  const client = await smtpClient(relay.smtpPort);
  try {
    hop('client', '←', 'relay', (await client.reply()).text);
    await step(client, 'EHLO client.example');
    const utf8 = message.smtpUtf8 ? ' SMTPUTF8' : '';
    let code = await step(client, `MAIL FROM:<${message.sender}> SIZE=${message.body.length}${utf8}`);
    if (code !== 250) return code;
    for (const recipient of message.recipients) {
      code = await step(client, `RCPT TO:<${recipient}>`);
      if (code !== 250) return code;
    }
    code = await step(client, 'DATA');
    if (code !== 354) return code;
    hop(
      'client',
      '→',
      'relay',
      `(${message.body.length.toLocaleString('en')} octets, sha256 ${sha256(message.body).slice(0, 12)}…)`,
    );
    const reply = await client.body(message.body);
    hop('client', '←', 'relay', reply.text);
    return reply.code;
  } finally {
    client.end();
  }
}

/** Sends and then compares what arrived, octet for octet. */
async function deliver(relay: RelayProcess, to: Provider, message: DemoMessage): Promise<void> {
  heading(`${++shown}. ${message.sender}: ${message.title}`);
  const before = to.messages.length;
  const began = performance.now();
  check((await send(relay, message)) === 250, `${message.title}: not accepted`);
  const ms = performance.now() - began;
  const arrived = to.messages[before];
  if (arrived === undefined) return check(false, `${message.title}: nothing arrived`);
  const intact = arrived.sha256 === sha256(message.body);
  check(intact, `${message.title}: changed on the way`);
  const same = intact ? paint('green', 'the same octets') : paint('red', 'OTHER OCTETS');
  const how = arrived.chunks > 1 ? `${arrived.chunks} chunks` : `${arrived.flights} round trip(s)`;
  say(
    `  arrived: ${same}, ${arrived.recipients.length} recipient(s), by ${arrived.via} in ${how}, ${ms.toFixed(0)} ms in all`,
  );
}

/** Sends where SMTP AUTH is off and then looks for the message in the mailbox. */
async function deliverByGraph(relay: RelayProcess, to: Provider, message: DemoMessage): Promise<void> {
  heading(`${++shown}. ${message.sender}: ${message.title}; its tenant has SMTP AUTH switched off`);
  check((await send(relay, message)) === 250, `${message.title}: not accepted by Graph`);
  const [arrived] = to.graph.delivered;
  if (arrived === undefined) return check(false, `${message.title}: nothing arrived by Graph`);
  check(to.graph.delivered.length === 1, `${message.title}: ${to.graph.delivered.length} copies`);
  say(
    `  arrived: once, ${arrived.recipients.length} recipient(s), by Graph (draft, then send); ${to.messages.length} by SMTP`,
  );
  const { accounts } = await relay.admin<{ accounts: AccountRow[] }>('/admin/accounts');
  const row = accounts.find((a) => a.email === message.sender);
  check(row?.way === 'graph', `way is ${row?.way}`);
  say(cut(`  the account's row: way ${row?.way}, ${row?.reason ?? ''}`, 0));
}

async function refuse(relay: RelayProcess, title: string, message: DemoMessage, code: number): Promise<void> {
  heading(`${++shown}. ${message.sender}: ${title}`);
  const got = await send(relay, message);
  check(got === code, `${title}: ${got} instead of ${code}`);
}

async function listAccounts(relay: RelayProcess): Promise<void> {
  const { accounts } = await relay.admin<{ accounts: AccountRow[] }>('/admin/accounts');
  table(
    ['account', 'provider', 'status', 'way', 'token', 'connections', 'relayed', 'deferred', 'last error'],
    accounts.map((a) => [
      a.email,
      a.provider,
      a.status,
      a.way,
      a.token.cached ? `${a.token.expires_in_s ?? '?'} s left` : 'none',
      `${a.pool.size} of ${a.pool.max}`,
      String(a.messages.relayed),
      String(a.messages.deferred),
      (typeof a.last_error === 'string' ? a.last_error : (a.last_error?.message ?? '')).slice(0, 60),
    ]),
  );
}

async function keepRunning(relay: RelayProcess): Promise<void> {
  heading('Still running (--keep). Try:');
  say(`  swaks --server 127.0.0.1 --port ${relay.smtpPort} --from ${GMAIL} --to you@example.net`);
  say(`  admin and dashboard: ${relay.adminUrl}/`);
  say('  Ctrl-C ends it.');
  await new Promise<void>((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
  });
}

async function main(): Promise<void> {
  heading(
    'Three simulated providers: token endpoint and submission server each, TLS, XOAUTH2; one with Graph',
  );
  const google = await provider('gmail', 'gmail', [GMAIL, REVOKED, NEWCOMER]);
  const microsoft = await provider('outlook', 'microsoft', [OUTLOOK]);
  const tenant = await provider('tenant', 'microsoft', [TENANT], true);
  google.token.revoke(REVOKED);
  tenant.smtp.script('AUTH', { times: Number.POSITIVE_INFINITY }, { reply: SMTP_AUTH_OFF });
  say(`  gmail    token endpoint ${google.token.url}  submission localhost:${google.smtp.port}`);
  say(`  outlook  token endpoint ${microsoft.token.url}  submission localhost:${microsoft.smtp.port}`);

  say(`  tenant   token endpoint ${tenant.token.url}  Graph ${tenant.graph.url}, SMTP AUTH switched off`);

  heading('The relay starts, fetches all tokens and warms connections');
  const accounts = [
    google.entry(GMAIL),
    microsoft.entry(OUTLOOK),
    google.entry(REVOKED),
    tenant.entry(TENANT, { transport: 'smtp_then_graph' }),
  ];
  const began = performance.now();
  const relay = await startRelay({ accounts, caFile: google.caFile, logLevel: 'info' });
  closers.push(() => relay.stop());
  say(
    `  ready after ${(performance.now() - began).toFixed(0)} ms: SMTP 127.0.0.1:${relay.smtpPort}, admin ${relay.adminUrl}`,
  );

  await deliver(relay, google, invoice(GMAIL));
  await deliver(relay, microsoft, greeting(OUTLOOK));
  await deliver(relay, google, archive(GMAIL));
  await deliverByGraph(relay, tenant, note(TENANT));
  await refuse(relay, 'revoked account, the mail stays with the client', note(REVOKED), 451);
  await refuse(relay, 'nobody configured this sender', note('stranger@example.org'), 550);

  heading('Accounts, from the admin API');
  await listAccounts(relay);

  heading(`SIGHUP: the accounts file now has ${NEWCOMER}, too`);
  await relay.reload([...accounts, google.entry(NEWCOMER)]);
  await waitFor(
    async () => (await relay.admin<{ accounts: AccountRow[] }>('/admin/accounts')).accounts.length === 5,
    { what: 'the new account' },
  );
  await deliver(relay, google, note(NEWCOMER));
  await listAccounts(relay);

  if (process.argv.includes('--keep')) await keepRunning(relay);

  heading('SIGTERM: the relay drains and ends');
  const { code, signal } = await relay.stop();
  say(`  exit code ${code ?? signal}`);
  check(code === 0, `exit code ${code ?? signal}`);

  const all = [...google.messages, ...microsoft.messages];
  const byGraph = tenant.graph.delivered.length;
  const octets = all.reduce((sum, message) => sum + message.bytes, 0);
  heading('Summary');
  say(
    `  messages relayed      ${all.length}, ${(octets / 1e6).toFixed(1)} MB, each the same octets at the provider`,
  );
  say(`  by Microsoft Graph    ${byGraph}, once`);
  say('  refused               1 with 451 (account needs consent), 1 with 550 (unknown sender)');
  say(
    `  token requests        ${google.token.count() + microsoft.token.count() + tenant.token.count()} for 5 accounts`,
  );
  say(
    `  logins                ${google.smtp.logins() + microsoft.smtp.logins()} on ${google.smtp.connections + microsoft.smtp.connections} connections`,
  );
  check(
    all.length === (process.argv.includes('--keep') ? all.length : 4),
    `${all.length} messages instead of 4`,
  );
}

try {
  await main();
} catch (error) {
  failures.push(error instanceof Error ? error.message : String(error));
} finally {
  for (const close of closers.reverse()) await close();
}
for (const failure of failures) say(paint('red', `  FAILED: ${failure}`));
say(failures.length === 0 ? `  ${paint('green', 'all as it should be')}` : '');
process.exitCode = failures.length === 0 ? 0 : 1;
