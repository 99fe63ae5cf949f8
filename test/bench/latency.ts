/**
 * What the relay adds to the time of a message, with the provider so far away. In: a relay and a splice to sinks that
 * answer late. Out: rows of a table. One session that waits for each reply, as an MTA that does not pipeline.
 */
import { MAIL, messageOf, RCPT, session } from './load.ts';
import { quantile } from './stage.ts';

export const LATENCIES_MS = [0, 10, 50] as const;

type Session = Awaited<ReturnType<typeof session>>;

/** Milliseconds from MAIL to the final reply, of each message. */
async function timesOf(
  client: Session,
  messages: number,
  send: (client: Session) => Promise<void>,
): Promise<readonly number[]> {
  await client.say('EHLO bench\r\n', 1);
  const times: number[] = [];
  for (let i = 0; i < messages; i++) {
    const startedAt = performance.now();
    await send(client);
    times.push(performance.now() - startedAt);
  }
  client.socket.removeAllListeners('close');
  client.end();
  return times;
}

export interface Way {
  readonly latencyMs: number;
  /** Ports. */
  readonly relay: number;
  readonly splice: number;
  readonly provider: number;
}

const WAYS = ['relay', 'alone', 'splice'] as const;

/**
 * What a message takes by the relay, by the splice, and in one flight from here to the provider without anything
 * between: what this machine takes for it anyway. `ca`: of the provider, PEM. In turn, in a few rounds, so that a
 * machine that is slow for a while is slow for all.
 */
export async function latencyRows(
  ways: readonly Way[],
  body: Buffer,
  ca: string,
  { rounds, messages }: { readonly rounds: number; readonly messages: number },
): Promise<string[][]> {
  const rows = [
    [
      'provider answers after',
      'relay, median',
      '99th',
      'beyond one round trip',
      'alone in one flight, median',
      '99th',
      'beyond one round trip',
      'splice, median',
      '99th',
      'beyond four',
    ],
  ];
  const flight = Buffer.concat([Buffer.from(`${MAIL}${RCPT}BDAT ${body.length} LAST\r\n`), body]);
  const byCommands = (client: Session) => messageOf(client, { body });
  const inOneFlight = (client: Session) => client.say(flight, 3);
  for (const { latencyMs, relay, splice, provider } of ways) {
    const times: Record<(typeof WAYS)[number], number[]> = { relay: [], alone: [], splice: [] };
    // The first round warms up.
    for (let round = 0; round <= rounds; round++)
      for (const name of WAYS) {
        const client = await (name === 'alone'
          ? session(provider, ca)
          : session(name === 'relay' ? relay : splice));
        const taken = await timesOf(client, messages, name === 'alone' ? inOneFlight : byCommands);
        if (round > 0) times[name].push(...taken);
      }
    const cells = (name: (typeof WAYS)[number], roundTrips: number): string[] => {
      const middle = quantile(times[name], 0.5);
      return [
        `${middle.toFixed(1)} ms`,
        `${quantile(times[name], 0.99).toFixed(1)} ms`,
        `${(middle - roundTrips * latencyMs).toFixed(1)} ms`,
      ];
    };
    rows.push([`${latencyMs} ms`, ...cells('relay', 1), ...cells('alone', 1), ...cells('splice', 4)]);
  }
  return rows;
}
