/** `npm run sim`: see `HELP`. Runs the relay in simulated worlds, one seed after another. */
import { readCommandLine, readNumber, wrongUsage } from '../../scripts/command-line.mjs';
import { FOCUSES, focusOn } from './focus.ts';
import { createPlan, describeFault, type Plan, STORES } from './plan.ts';
import { findPlanted } from './plant.ts';
import { hashText } from './random.ts';
import { installTokenRequests } from './token-endpoint.ts';
import { installVirtualFiles } from './virtual-files.ts';
import { installVirtualRedis } from './virtual-redis.ts';
import { installVirtualSockets } from './virtual-sockets.ts';
import { installVirtualTime, nameOrigins } from './virtual-time.ts';
import type { TraceLine } from './world.ts';

const HELP = `npm run sim -- [--seed N] [--runs M] [--seconds S] [--stores LIST]

  --seed N       the first seed; the same seed gives the same run and the same digest (default: the time)
  --runs M       seeds N, N+1, … so many (default: 1 with --seed, else 100)
  --seconds S    seeds N, N+1, … so long
  --stores LIST  only worlds with these token stores: ${STORES.join(',')}
  --focus NAME   worlds that press on one place:
                 ${FOCUSES.join(', ')}
  --keep         go on after a broken run, one line each
  --brief        end with the first broken run, in one line
  --trace        show every run: virtual time, who, what
  --repeat       run each seed three times; what happens must be the same
  --planted      plant known faults in a copy of the build, one at a time, and tell after how many runs
                 each is found; --only NAME: those whose name contains it

Exit 1 when an invariant is broken; then the fewest faults that still break it, with a trace. Exit 2 on wrong usage.
`;
const realNow = performance.now.bind(performance);
const { values } = readCommandLine('sim', HELP, {
  seed: { type: 'string' },
  runs: { type: 'string' },
  seconds: { type: 'string' },
  stores: { type: 'string' },
  keep: { type: 'boolean' },
  repeat: { type: 'boolean' },
  trace: { type: 'boolean' },
  brief: { type: 'boolean' },
  focus: { type: 'string' },
  planted: { type: 'boolean' },
  only: { type: 'string' },
});
const asked = {
  seed: readNumber('sim', 'seed', values.seed, 'whole from 0'),
  runs: readNumber('sim', 'runs', values.runs, 'above 0'),
  seconds: readNumber('sim', 'seconds', values.seconds, 'above 0'),
  stores: values.stores?.split(','),
  focus: FOCUSES.find((name) => name === values.focus),
};
if (asked.stores?.every((store) => STORES.some((known) => known === store)) === false)
  wrongUsage('sim', `Option '--stores' takes some of ${STORES.join(',')}`);
if (values.focus !== asked.focus) wrongUsage('sim', `Option '--focus' takes one of: ${FOCUSES.join(', ')}`);
if (values.planted === true) process.exit(findPlanted(values.only));

installVirtualTime();
installVirtualSockets();
installVirtualFiles();
installTokenRequests();
installVirtualRedis();
// Loaded ahead: what the product imports later would come at a moment of the real world's choosing.
await import('redis');
const { run } = await import('./run.ts');
const { prepareRelays } = await import('./relay-host.ts');
await prepareRelays();

const began = realNow();
const runs =
  asked.runs ?? (asked.seconds !== undefined ? Number.POSITIVE_INFINITY : asked.seed === undefined ? 100 : 1);
const seconds = asked.seconds ?? Number.POSITIVE_INFINITY;
const first = asked.seed ?? Math.floor(Date.now() % 1_000_000_000);
let done = 0;
let virtualMs = 0;
let steps = 0;
let slowest = { seed: 0, healing: 0 };
let digest = 0x811c9dc5;
const total = { attempts: 0, acknowledged: 0, deferred: 0, refused: 0, unknown: 0 };
const broken: { seed: number; rule: string }[] = [];

for (let seed = first; done < runs && realNow() - began < seconds * 1000; seed++) {
  const anyPlan = createPlan(seed);
  if (asked.stores?.includes(anyPlan.store) === false) continue;
  const plan = asked.focus === undefined ? anyPlan : focusOn(anyPlan, asked.focus);
  const outcome = await run(plan, { keepTrace: values.trace === true });
  if (values.trace === true) show(outcome.trace);
  done += 1;
  if (values.repeat === true) {
    const again = await run(plan, { keepTrace: true });
    const third = await run(plan, { keepTrace: true });
    if (outcome.digest !== again.digest || again.digest !== third.digest) {
      const at = again.trace.findIndex((line, i) => JSON.stringify(line) !== JSON.stringify(third.trace[i]));
      console.log(
        `seed ${seed} is not repeatable: ${outcome.digest} ${again.digest} ${third.digest} ${JSON.stringify(again.trace.slice(Math.max(0, at - 2), at + 2))} ${JSON.stringify(third.trace.slice(Math.max(0, at - 2), at + 2))}`,
      );
      broken.push({ seed, rule: 'repeatable' });
    }
  }
  virtualMs += outcome.ms;
  steps += outcome.steps;
  if (outcome.healing > slowest.healing) slowest = { seed, healing: outcome.healing };
  digest = hashText(outcome.digest, digest);
  for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += outcome.figures[key];
  const [violation] = outcome.violations;
  if (violation === undefined) continue;
  broken.push({ seed, rule: violation.rule });
  if (values.keep === true || values.brief === true) {
    if (broken.length <= 40)
      console.log(`seed ${seed}: ${violation.rule}: ${violation.detail.split('\n')[0]?.slice(0, 200)}`);
    if (values.keep === true) continue;
    break;
  }
  await report(plan, violation.rule);
  break;
}

function show(trace: readonly TraceLine[]): void {
  for (const { at, actor, text } of trace)
    console.log(
      `${String(Math.floor(at / 1000)).padStart(6)}.${String(at % 1000).padStart(3, '0')}  ${actor.padEnd(10)} ${text}`,
    );
}

/** Leaves out what is not needed to break `rule`, then shows what is left. */
async function report(plan: Plan, rule: string): Promise<void> {
  let fewest = plan;
  const breaks = async (candidate: Plan): Promise<boolean> =>
    (await run(candidate, { keepTrace: false })).violations.some((v) => v.rule === rule);
  for (let again = true; again; ) {
    again = false;
    for (const key of ['faults', 'messages'] as const) {
      for (let i = fewest[key].length - 1; i >= 0; i--) {
        const candidate = { ...fewest, [key]: (fewest[key] as unknown[]).filter((_, n) => n !== i) };
        if (!(await breaks(candidate))) continue;
        fewest = candidate;
        again = true;
      }
    }
  }
  nameOrigins(true);
  const { trace, violations } = await run(fewest, { keepTrace: true });
  nameOrigins(false);
  show(trace);
  console.log(`\nseed ${plan.seed} with the fewest faults that still break it:`);
  for (const fault of fewest.faults) console.log(`  ${describeFault(fault)}`);
  for (const { rule: which, detail } of violations) console.log(`  ${which}: ${detail}`);
  console.log(`repeat: npm run sim -- --seed ${plan.seed}`);
}

const took = (realNow() - began) / 1000;
console.log(
  `${done} runs from seed ${first} in ${took.toFixed(1)} s: ${((done / took) * 60).toFixed(0)} a minute, ` +
    `${(virtualMs / 3_600_000 / took).toFixed(2)} virtual hours a second, ${Math.round(steps / done)} events a run`,
);
console.log(JSON.stringify(total));
console.log(
  `served again within ${Math.round(slowest.healing * 100)} % of the time for it at the latest, seed ${slowest.seed}`,
);
console.log(`digest ${(digest >>> 0).toString(16).padStart(8, '0')}`);
if (broken.length > 0) {
  console.log(`${broken.length} runs broke an invariant`);
  process.exitCode = 1;
}
process.exit();
