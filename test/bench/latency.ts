/**
 * What the relay adds to the time of a message, with the provider so far away. In: a relay and a splice to sinks that
 * answer late. Out: rows of a table. One session that waits for each reply, as an MTA that does not pipeline.
 */
import { messageOf, session } from './load.ts';
import { quantile } from './stage.ts';

export const LATENCIES_MS = [0, 10, 50] as const;

/** Milliseconds from MAIL to the final reply, of each message. */
async function timesOf(port: number, messages: number, body: Buffer): Promise<readonly number[]> {
  const client = await session(port);
  await client.say('EHLO bench\r\n', 1);
  const load = { port, sessions: 1, messages, body };
  const times: number[] = [];
  for (let i = 0; i < messages; i++) {
    const startedAt = performance.now();
    await messageOf(client, load);
    times.push(performance.now() - startedAt);
  }
  client.socket.removeAllListeners('close');
  client.end();
  return times;
}

export interface Way {
  readonly latencyMs: number;
  readonly relay: number;
  readonly splice: number;
}

/** In turn, in a few rounds, so that a machine that is slow for a while is slow for both. */
export async function latencyRows(
  ways: readonly Way[],
  body: Buffer,
  { rounds, messages }: { readonly rounds: number; readonly messages: number },
): Promise<string[][]> {
  const rows = [
    [
      'provider answers after',
      'relay, median',
      '99th',
      'beyond one round trip',
      'splice, median',
      '99th',
      'beyond four',
    ],
  ];
  for (const { latencyMs, relay, splice } of ways) {
    const times = { relay: [] as number[], splice: [] as number[] };
    // The first round warms up.
    for (let round = 0; round <= rounds; round++)
      for (const [name, port] of [
        ['relay', relay],
        ['splice', splice],
      ] as const) {
        const taken = await timesOf(port, messages, body);
        if (round > 0) times[name].push(...taken);
      }
    const cells = (name: 'relay' | 'splice', roundTrips: number): string[] => {
      const middle = quantile(times[name], 0.5);
      return [
        `${middle.toFixed(1)} ms`,
        `${quantile(times[name], 0.99).toFixed(1)} ms`,
        `${(middle - roundTrips * latencyMs).toFixed(1)} ms`,
      ];
    };
    rows.push([`${latencyMs} ms`, ...cells('relay', 1), ...cells('splice', 4)]);
  }
  return rows;
}
