/** Recipes of docs/ as tests use them: the fenced blocks a reader would copy. In: file name. Out: its blocks. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from './relay-process.ts';

export interface Recipe {
  readonly blocks: readonly string[];
  /** The first block that holds `text`; throws where the recipe has none. */
  block(text: string): string;
}

export function readRecipe(name: string): Recipe {
  const text = readFileSync(join(repositoryRoot, 'docs', name), 'utf8');
  const blocks = [...text.matchAll(/^```\w*\n([\s\S]*?)^```$/gm)].map(([, block]) => block ?? '');
  return {
    blocks,
    block(wanted) {
      const found = blocks.find((block) => block.includes(wanted));
      if (found === undefined) throw new Error(`docs/${name} has no block with ${wanted}`);
      return found;
    },
  };
}

/** `key = value` lines as main.cf has them. */
export const parseSettings = (block: string): Record<string, string> =>
  Object.fromEntries(
    block
      .split('\n')
      .filter((line) => line.includes(' = ') && !line.startsWith('#'))
      .map((line) => {
        const [key = '', ...value] = line.split(' = ');
        return [key.trim(), value.join(' = ').trim()];
      }),
  );
