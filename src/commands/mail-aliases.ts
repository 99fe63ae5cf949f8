/**
 * Who is meant by a name without a domain, as cron and daemons write it. In: the text of an aliases file
 * (`root: admin@example.com`). Out: addresses. Pure.
 */

/** A name that leads to a name that leads to …: enough for anybody, and an end for a circle. */
const MAX_STEPS = 10;

export type Aliases = ReadonlyMap<string, readonly string[]>;

/** Reads an aliases(5) file; commands, files and includes in it are nobody's address and stay as they are. */
export function parseAliases(text: string): Aliases {
  const aliases = new Map<string, readonly string[]>();
  for (const line of text.replace(/\r?\n[ \t]+/g, ' ').split(/\r?\n/)) {
    const [, name, value] = /^\s*"?([^#":\s]+)"?\s*:\s*(.+)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined)
      aliases.set(
        name.toLowerCase(),
        value
          .split(',')
          .map((word) => word.trim())
          .filter(Boolean),
      );
  }
  return aliases;
}

/** The addresses that `recipient` stands for; empty where nobody says. `default` answers for names that are not listed. */
export function resolveAlias(aliases: Aliases, recipient: string, steps = MAX_STEPS): readonly string[] {
  if (recipient.includes('@')) return [recipient];
  const next = aliases.get(recipient.toLowerCase()) ?? aliases.get('default');
  if (next === undefined || steps === 0) return [];
  return [...new Set(next.flatMap((word) => resolveAlias(aliases, word, steps - 1)))].filter((word) =>
    /^[^\s|/:"]+@[^\s|/:"]+$/.test(word),
  );
}
