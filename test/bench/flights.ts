/**
 * `npm run bench -- flights`: round trips upstream and milliseconds from MAIL to the final reply, warm
 * connection, for 1, 3 and 50 recipients, by a client that waits for each reply and by one that pipelines,
 * with the provider near and 50 ms away. All in one process; prints a table, asserts nothing.
 */
import { startFront } from '../listener/front.ts';
import { ANN, mailOf } from '../support/relay-room.ts';
import { dotStuffed, type SmtpClient, smtpClient } from '../support/smtp-client.ts';
import { median, table } from './stage.ts';

const ROUNDS = 5;
const RECIPIENTS = [1, 3, 50];
const LATENCIES_MS = [0, 50];
const BODY = dotStuffed(mailOf(4_096));

async function one(client: SmtpClient, recipients: number, isPipelined: boolean): Promise<number> {
  const commands = [
    `MAIL FROM:<${ANN}>`,
    ...Array.from({ length: recipients }, (_, i) => `RCPT TO:<r${i}@example.net>`),
    'DATA',
  ];
  const startedAt = performance.now();
  if (isPipelined) await client.raw(commands.map((line) => `${line}\r\n`).join(''));
  for (const line of commands)
    await client.expect(isPipelined ? undefined : line, line === 'DATA' ? 354 : 250);
  await client.raw(BODY);
  await client.expect(undefined, 250);
  return performance.now() - startedAt;
}

async function measure(): Promise<string[][]> {
  const rows: string[][] = [
    ['provider', 'recipients', 'client', 'flights', ...LATENCIES_MS.map((ms) => `ms at ${ms}`)],
  ];
  for (const [face, withhold] of [
    ['BDAT, proved', []],
    ['DATA', ['CHUNKING']],
    ['DATA without PIPELINING', ['CHUNKING', 'PIPELINING']],
  ] as const) {
    const cells = new Map<string, string[]>();
    for (const latencyMs of LATENCIES_MS) {
      const closers: (() => unknown)[] = [];
      const front = await startFront((close) => closers.push(close), {
        provider: { rules: { withhold }, record: false, latencyMs },
        account: { messages_per_connection: 1_000 },
      });
      const client = await smtpClient(front.port);
      await client.expect(undefined, 220);
      await client.expect('EHLO bench', 250);
      for (const recipients of RECIPIENTS) {
        for (const isPipelined of [false, true]) {
          const times: number[] = [];
          for (let i = 0; i <= ROUNDS; i++) times.push(await one(client, recipients, isPipelined));
          const flights = front.records.at(-1)?.flights ?? 0;
          const key = `${recipients}\t${isPipelined ? 'pipelined' : 'lock-step'}\t${flights}`;
          // The first one warms up.
          cells.set(key, [...(cells.get(key) ?? []), median(times.slice(1)).toFixed(1)]);
        }
      }
      client.end();
      for (const close of closers.reverse()) await close();
    }
    for (const [key, times] of cells) rows.push([face, ...key.split('\t'), ...times]);
  }
  return rows;
}

table('Round trips upstream, and ms from MAIL to the final reply (4 kB, medians)', await measure());
