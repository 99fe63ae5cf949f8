/** How much of message bodies is held in memory at once, all transactions together. */
export interface HeldBytes {
  /** Takes `octets`; false where that would exceed the bound (then the body must stream). */
  take(octets: number): boolean;
  give(octets: number): void;
  readonly held: number;
}

export function createHeldBytes(maxBytes: number): HeldBytes {
  let held = 0;
  return {
    take(octets) {
      if (held + octets > maxBytes) return false;
      held += octets;
      return true;
    },
    give(octets) {
      held -= octets;
    },
    get held() {
      return held;
    },
  };
}
