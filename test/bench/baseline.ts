/** What a run measured, kept in a file and compared with another. In: rows. Out: the file; words for a table. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';

/** CPU of a message, µs. */
export interface Measured {
  readonly relay: number;
  readonly splice: number;
  /** Of relay to splice, median of the rounds. */
  readonly ratio: number;
  /** Of the splice to itself. */
  readonly noise: number;
}

export interface Table {
  readonly title: string;
  readonly rows: readonly (readonly string[])[];
}

export interface Baseline {
  readonly machine: string;
  readonly node: string;
  readonly rows: Readonly<Record<string, Measured>>;
  /** As printed. */
  readonly tables: readonly Table[];
  /** What was not measured, and why. */
  readonly absent: readonly string[];
}

export const MACHINE = `${cpus()[0]?.model.trim()}, ${cpus().length} cores`;

/** Writes what a run measured; what a file has of other benches stays. */
export function saveBaseline(
  file: string,
  made: Partial<Pick<Baseline, 'rows' | 'tables' | 'absent'>>,
): void {
  const old = existsSync(file) ? readBaseline(file) : undefined;
  const { tables = [], absent = old?.absent ?? [] } = made;
  const isMade = ({ title }: Table): boolean => tables.some((table) => table.title === title);
  const baseline: Baseline = {
    machine: `${MACHINE}, load ${loadavg()[0]?.toFixed(0)}`,
    node: process.versions.node,
    rows: { ...old?.rows, ...made.rows },
    tables: [...(old?.tables ?? []).filter((table) => !isMade(table)), ...tables],
    absent,
  };
  writeFileSync(file, `${JSON.stringify(baseline, null, 2)}\n`);
}

/** Throws where the file is none of `saveBaseline`'s. */
export function readBaseline(file: string): Baseline {
  const read = JSON.parse(readFileSync(file, 'utf8')) as Baseline;
  if (typeof read.rows !== 'object') throw new Error(`${file} is no baseline: make one with --save ${file}`);
  return read;
}

/** How much of a change of the ratio is more than the two runs' own noise, and than this. */
const NOTABLE = 0.05;

/** As `+12 % slower`; ratios are compared, so that another machine's speed is none of it. */
export function compare(now: Measured, before: Measured | undefined): string {
  if (before === undefined) return 'not in it';
  const change = now.ratio / before.ratio - 1;
  const percent = `${change < 0 ? '' : '+'}${(change * 100).toFixed(0)} %`;
  if (Math.abs(change) <= Math.max(NOTABLE, now.noise, before.noise)) return `${percent}, within noise`;
  return `${percent} ${change > 0 ? 'SLOWER' : 'faster'}`;
}
