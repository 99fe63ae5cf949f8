/** `npm run soak -- --minutes N`: see `HELP`. Exit 1 when something was lost, twice, bounced or leaked; 2 on wrong usage. */
import { readCommandLine, readNumber } from '../../scripts/command-line.mjs';
import { soak } from './soak.ts';

const HELP = `npm run soak -- [--minutes N] [--rate N] [--seed N]

Two relay processes over real sockets on loopback, with state directories, against a provider and a token
endpoint that fault every few seconds: refusals, broken and late answers, messages taken without a word,
outages, revoked tokens; reloads of both relays, kill -9 and restarts of one; clients that are slow or die.
Refresh tokens rotate and the old one is revoked at once.

  --minutes N  how long the faults go on; may be a fraction (default 10)
  --rate N     messages a second, all clients together (default 20)
  --seed N     chooses the faults and what clients do; the order of events is the machine's (default: the time)

Ends with the figures. Exit 1 when a message was lost, delivered twice by a relay, bounced or not served
again, a command unanswered, a grant lost although no answer of the token endpoint was cut, or memory or descriptors leaked; 2 on wrong usage.
`;

const { values } = readCommandLine('soak', HELP, {
  minutes: { type: 'string', default: '10' },
  rate: { type: 'string', default: '20' },
  seed: { type: 'string', default: String(Date.now() % 1_000_000) },
});

async function main(): Promise<number> {
  const options = {
    minutes: readNumber('soak', 'minutes', values.minutes, 'above 0'),
    rate: readNumber('soak', 'rate', values.rate, 'above 0'),
    seed: readNumber('soak', 'seed', values.seed, 'whole from 0'),
  };
  const interrupted = new AbortController();
  process.once('SIGINT', () => interrupted.abort());
  process.once('SIGTERM', () => interrupted.abort());
  console.log(`seed ${options.seed}, ${options.minutes} min, ${options.rate} messages a second`);
  const result = await soak({ ...options, tell: console.log, signal: interrupted.signal });
  const { lost, twice, bounced, unanswered, before, after, faults, complaints } = result;
  const befell = Object.values(faults).reduce((sum, n) => sum + n, 0);
  console.log(`faults: ${befell} in ${result.seconds} s ${JSON.stringify(faults)}`);
  console.log(
    [
      `sent ${result.sent}`,
      `acknowledged ${result.acknowledged}`,
      `deferred ${result.deferred}`,
      `lost ${lost.length}`,
      `twice ${twice.length}`,
      `bounced ${bounced.length}`,
      `unknown ${result.unknown}`,
      `unanswered ${unanswered.length}`,
      `waiting ${result.waiting}`,
      `signed in again ${result.signedInAgain + result.grantsLost}`,
    ].join(', '),
  );
  console.log(
    `before and after: ${before.rssMib} and ${after.rssMib} MiB, ${before.descriptors} and ${after.descriptors} descriptors`,
  );
  for (const complaint of complaints.slice(0, 20)) console.log(complaint);
  return complaints.length === 0 ? 0 : 1;
}

process.exit(await main());
