/**
 * `npm run sim -- --planted [--only NAME]`: plants one fault at a time in a copy of the build and tells after how
 * many runs from seed 1 the simulation finds it. Exit 1 where one is not found, or the product breaks by itself.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PLANTED, type Planted } from './planted.ts';

const build = fileURLToPath(new URL('../../', import.meta.url));
/** A fault may also make a world endless. */
const RUN_TIMEOUT_MS = 1_200_000;

/** The text with a fault in it. Throws where it does not apply any more. */
export function plant(text: string, find: string, put: string): string {
  const words = find.split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const pattern = new RegExp(words.join('\\s+'), 'g');
  if (!pattern.test(text)) throw new Error(`is not in the code any more: ${find}`);
  return text.replace(pattern, () => put);
}

interface Finding {
  readonly isFound: boolean;
  readonly runs: number;
  readonly rule: string;
}

function simulate(copy: string, { stores, focus }: Planted, runs: number): Finding {
  const args = [
    ...(focus === undefined ? [] : ['--focus', focus]),
    '--seed',
    '1',
    '--runs',
    String(runs),
    '--stores',
    stores,
    '--brief',
  ];
  const { stdout, status } = spawnSync(process.execPath, [join(copy, 'test/sim/main.js'), ...args], {
    encoding: 'utf8',
    timeout: RUN_TIMEOUT_MS,
    env: { ...process.env, NODE_NO_WARNINGS: '1' },
  });
  const rule = /^seed \d+: ([^:]+)/m.exec(stdout)?.[1] ?? (status === null ? 'no end' : '');
  return { isFound: status !== 0, runs: Number(/^(\d+) runs from/m.exec(stdout)?.[1] ?? 0), rule };
}

export function findPlanted(only: string | undefined): number {
  // Below node_modules it finds the same packages, and nobody takes it for a part of the repository.
  const copy = join(build, `../node_modules/.planted-${process.pid}`);
  let missed = 0;
  try {
    cpSync(build, copy, { recursive: true });
    const chosen = PLANTED.filter((fault) => only === undefined || fault.name.includes(only));
    const sound = new Map<string, Finding>();
    for (const fault of chosen) {
      // Without a fault the same worlds are run once for all that are planted in them.
      const worlds = worldsOf(fault);
      const most = Math.max(...chosen.filter((f) => worldsOf(f) === worlds).map((f) => f.within));
      const without = sound.get(worlds) ?? simulate(copy, fault, most);
      sound.set(worlds, without);
      if (!find(copy, fault, without)) missed += 1;
    }
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
  return missed === 0 ? 0 : 1;
}

const worldsOf = ({ stores, focus }: Planted): string => `${stores} ${focus ?? ''}`;

function find(copy: string, fault: Planted, without: Finding): boolean {
  if (without.isFound) {
    console.log(`${fault.name}: its worlds break without it (${without.rule})`);
    return false;
  }
  const sound = new Map<string, string>();
  for (const { file, find, put } of fault.edits) {
    const path = join(copy, 'src', file);
    const text = readFileSync(path, 'utf8');
    if (!sound.has(path)) sound.set(path, text);
    writeFileSync(path, plant(text, find, put));
  }
  const { isFound, runs, rule } = simulate(copy, fault, fault.within);
  for (const [path, text] of sound) writeFileSync(path, text);
  console.log(
    `${fault.name}: ${isFound ? `found after ${runs} runs (${rule})` : `NOT FOUND in ${runs} runs`}`,
  );
  return isFound;
}
