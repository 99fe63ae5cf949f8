/** Dice that fall the same way for the same seed. */

export interface Random {
  /** 0 ≤ x < 1. */
  (): number;
  /** A whole number, both ends included. */
  between(least: number, most: number): number;
  chance(probability: number): boolean;
  pick<T>(items: readonly T[]): T;
  /** Dice of their own for `name`: rolling them does not change what these roll. */
  branch(name: string): Random;
}

/** 32 bits that depend on every character (FNV-1a). */
export function hashText(text: string, start = 0x811c9dc5): number {
  let hash = start;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** Mulberry32: 32 bits of state, good enough to choose orders with. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const roll = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
  const random = Object.assign(roll, {
    between: (least: number, most: number) => least + Math.floor(roll() * (most - least + 1)),
    chance: (probability: number) => roll() < probability,
    pick<T>(items: readonly T[]): T {
      if (items.length === 0) throw new Error('nothing to pick from');
      return items[Math.floor(roll() * items.length)] as T;
    },
    branch: (name: string) => createRandom(hashText(name, seed >>> 0)),
  });
  return random;
}
