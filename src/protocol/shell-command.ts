/** A command of this program as a person types it into a shell. In: its words. Out: one line. Pure. */

/** What a POSIX shell, and any other, takes as it is. */
const PLAIN = /^[\p{L}\p{N}@._+/][\p{L}\p{N}@._+/:,%-]*$/u;

const quoted = (word: string): string =>
  PLAIN.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;

/** `name` is that of the command, `options` stand as they are; an account that looks like an option comes after `--`. */
export function commandFor(name: string, account: string, ...options: readonly string[]): string {
  const words = account.startsWith('-') ? [...options, '--', quoted(account)] : [quoted(account), ...options];
  return ['xoauth2-relay', name, ...words].join(' ');
}
