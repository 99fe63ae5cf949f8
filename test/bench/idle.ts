/**
 * A process with nothing to do: how late the machine itself lets it wake. Prints a line when it has begun; a line on
 * stdin asks for the most milliseconds it was late since the line before.
 */
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';

const EVERY_MS = 1;
let most = 0;
createInterface(process.stdin).on('line', () => {
  console.log(JSON.stringify([most]));
  most = 0;
});
console.log(process.pid);
for (;;) {
  const startedAt = performance.now();
  await delay(EVERY_MS);
  most = Math.max(most, performance.now() - startedAt - EVERY_MS);
}
