/**
 * How V8 collects in a process that relays: much that is young dies at once, little is old. In: how many accounts
 * there are. Out: nothing; changes this process. What each brings is measured by `npm run bench`.
 */
import { setFlagsFromString } from 'node:v8';

/** What is alive without accounts, and what of each that has no connection, MB. */
const BASE_MB = 24;
const ACCOUNT_MB = 0.006;
/**
 * How far the heap may grow between two full collections. V8 counts octets read from sockets against its limit:
 * with some 20 MB alive it marked the whole heap after every 10 MB of mail, which cost as much as relaying it
 * (100 kB messages: 36 full collections in 4,500 of them and 800 µs of CPU each; 8 and 490 µs with this). More
 * brings nothing further, and much more where accounts take the memory is memory for nothing: of those a part.
 */
const GROWTH_MB = 48;
const GROWTH_OF_ACCOUNTS = 0.25;

/** Call before mail flows. */
export function tuneHeap(): void {
  fitHeap(0);
  // To wake threads for the few survivors of a young collection costs more than to copy them: a tenth of
  // the CPU of a small message.
  setFlagsFromString('--no-parallel-scavenge');
}

/** Call when the number of accounts changes; V8 looks at each collection. */
export function fitHeap(accounts: number): void {
  const ofAccounts = accounts * ACCOUNT_MB;
  const percent = (100 * (GROWTH_MB + GROWTH_OF_ACCOUNTS * ofAccounts)) / (BASE_MB + ofAccounts);
  setFlagsFromString(`--heap-growing-percent=${Math.round(percent)}`);
}
