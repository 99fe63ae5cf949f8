/** The round trips of a transaction as they happen, for its record and its trace. Pure but for what it fills. */

/** One round trip. */
export interface FlightTime {
  /** What went: `reset`, `envelope`, `body`, `message` (both), or the call of Graph. */
  readonly carries: string;
  /** Monotonic, ms. */
  readonly at: number;
  /** Until its last reply; undefined: none came. */
  ms: number | undefined;
}

/** Counts the round trips of a transaction. */
export interface FlightCount {
  flights: number;
  /** The first of them; absent where nobody asks. */
  readonly flightTimes?: FlightTime[] | undefined;
}

/** A message with hundreds of recipients makes as many flights. */
const MAX_TIMED = 20;

/** One more leaves, at `at`; whoever gets its last reply tells the time. */
export function beginFlight(count: FlightCount, carries: string, at: number): FlightTime {
  const time: FlightTime = { carries, at, ms: undefined };
  count.flights++;
  const { flightTimes } = count;
  if (flightTimes !== undefined && flightTimes.length < MAX_TIMED) flightTimes.push(time);
  return time;
}

export function endFlight(flight: FlightTime | undefined, at: number): void {
  if (flight !== undefined) flight.ms = at - flight.at;
}

/** A call of Graph that has just ended. */
export function tellFlight(
  count: FlightCount,
  { call, ms }: { readonly call: string; readonly ms: number },
  endedAt: number,
): void {
  endFlight(beginFlight(count, call, endedAt - ms), endedAt);
}
