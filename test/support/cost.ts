/** What work costs, told by CPU: a busy machine does not count. */

/** At four times the size linear work costs 4 times as much, quadratic 16 times. */
const MAX_GROWTH = 9;
/** Less is noise, ms. */
const NOISE_MS = 8;

/** CPU of this process while `work` runs, ms. */
async function cpuOf(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Throws, naming `what`, where `work` costs more than in proportion to its size. */
export async function assertLinear(
  what: string,
  work: (size: number) => unknown,
  size: number,
): Promise<void> {
  let growth = Number.POSITIVE_INFINITY;
  // What was stretched by something else is not stretched every time; the first time compiles.
  for (let i = 0; i < 6 && growth > MAX_GROWTH; i++) {
    const small = await cpuOf(() => work(size));
    const large = await cpuOf(() => work(4 * size));
    growth = large < NOISE_MS ? 0 : large / small;
  }
  if (growth > MAX_GROWTH)
    throw new Error(`${what}: four times the size costs ${growth.toFixed(1)} times as much`);
}
