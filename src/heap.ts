/**
 * How V8 collects in a process that relays: much that is young dies at once, little is old. In: nothing.
 * Out: nothing; changes this process. What each brings is measured by `npm run bench`.
 */
import { setFlagsFromString } from 'node:v8';

/**
 * How far the heap may grow between two full collections, in per cent of what is alive. V8 counts octets
 * read from sockets against its limit: with some 20 MB alive it marked the whole heap after every 10 MB of
 * mail, which cost as much as relaying it (100 kB messages: 36 full collections in 4,500 of them and 800 µs
 * of CPU each; 8 and 490 µs with this). More brings nothing further.
 */
const GROWTH_PERCENT = 200;

/** Call before mail flows; V8 looks at each collection. */
export function tuneHeap(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWTH_PERCENT}`);
  // To wake threads for the few survivors of a young collection costs more than to copy them: a tenth of
  // the CPU of a small message.
  setFlagsFromString('--no-parallel-scavenge');
}
