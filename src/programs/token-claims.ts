/** What an access token says it is good for. In: the token of a provider whose tokens can be read. Out: whether it serves a resource. Pure. */
import { claimsOf, permissionsIn } from '../protocol/jwt-claims.ts';
import type { TokenResource } from '../tokens/access-token.ts';

const NEEDED: Readonly<Record<TokenResource, RegExp>> = {
  smtp: /^SMTP\.Send(?:AsApp)?$|^Mail\.Send$/,
  imap: /^IMAP\.AccessAs(?:User\.All|App)$|^full_access_as_app$/,
  graph: /./,
};

/** What a token lacks, by name; undefined where it has it, or does not tell. */
export function missingPermission(token: string, resource: TokenResource): string | undefined {
  const claims = claimsOf(token);
  if (claims === undefined) return undefined;
  const isApp = Array.isArray(claims.roles);
  if (typeof claims.scp !== 'string' && !isApp) return undefined;
  if (permissionsIn(claims).some((name) => NEEDED[resource].test(name))) return undefined;
  return resource === 'imap'
    ? `IMAP.AccessAs${isApp ? 'App' : 'User.All'}`
    : `SMTP.Send${isApp ? 'AsApp' : ''}`;
}
