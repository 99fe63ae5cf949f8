/**
 * An AUTH user that names no account, for the log. In: what the client sent. Out: so much of it that the operator
 * finds the client's setting, and not what may be a password in the wrong field. Owns what is known of a directory.
 */

import type { AccountDirectory } from '../accounts/directory.ts';
import { orMake } from '../or-make.ts';
import { foldAscii, foldDomain } from '../protocol/text.ts';

interface Known {
  readonly domains: ReadonlySet<string>;
  readonly localParts: ReadonlySet<string>;
}

/** Of any other text at most this many characters are told, a quarter at most, and how many there are. */
const TOLD = 2;
const ADDRESS = /^([^\s@]+)@((?:[\p{L}\p{N}-]+\.)+\p{L}{2,})$/u;

/** `shown` masks addresses where they are not to be logged. */
export function createLoginNames(shown: (text: string) => string) {
  const known = new WeakMap<AccountDirectory, Known>();

  const knownOf = (directory: AccountDirectory): Known =>
    orMake(known, directory, () => {
      const parts = directory.accounts.map(({ email }) => {
        const at = email.lastIndexOf('@');
        return { local: foldAscii(email.slice(0, at)), domain: foldDomain(email.slice(at + 1)) };
      });
      return {
        domains: new Set(parts.map(({ domain }) => domain)),
        localParts: new Set(parts.map(({ local }) => local)),
      };
    });

  /**
   * Whole where it is an address of an account's domain, or an account's local part alone: what people get wrong.
   * Any address where addresses are logged. `pr…@example.net (19 characters)` or `hu… (14 characters)` else.
   */
  return function tell(user: string, directory: AccountDirectory): string {
    const { domains, localParts } = knownOf(directory);
    const trimmed = user.trim();
    if (localParts.has(foldAscii(trimmed))) return user;
    const [, local, domain] = ADDRESS.exec(trimmed) ?? [];
    if (domain !== undefined && (domains.has(foldDomain(domain)) || shown(trimmed) === trimmed)) return user;
    if (user === '') return '';
    const letters = [...(local ?? user)];
    const first = letters.slice(0, Math.min(TOLD, letters.length / 4)).join('');
    return `${first}…${domain === undefined ? '' : `@${domain}`} (${[...user].length} characters)`;
  };
}
