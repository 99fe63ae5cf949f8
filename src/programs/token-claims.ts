/** What an access token says it is good for. In: the token of a provider whose tokens can be read. Out: whether it serves a resource. Pure. */
import { parseJsonObject } from '../protocol/json-object.ts';
import type { TokenResource } from '../tokens/access-token.ts';

/** Microsoft's names of permissions, of persons (`scp`) and applications (`roles`). */
const NEEDED: Readonly<Record<TokenResource, RegExp>> = {
  smtp: /^SMTP\.Send(?:AsApp)?$|^Mail\.Send$/,
  imap: /^IMAP\.AccessAs(?:User\.All|App)$|^full_access_as_app$/,
  graph: /./,
};

/** What a token lacks, by name; undefined where it has it, or does not tell. */
export function missingPermission(token: string, resource: TokenResource): string | undefined {
  const claims = parseJsonObject(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  if (claims === undefined) return undefined;
  const { scp, roles } = claims;
  if (typeof scp !== 'string' && !Array.isArray(roles)) return undefined;
  const held = [...(typeof scp === 'string' ? scp.split(' ') : []), ...(Array.isArray(roles) ? roles : [])];
  if (held.some((name) => NEEDED[resource].test(String(name)))) return undefined;
  const isApp = Array.isArray(roles);
  return resource === 'imap'
    ? `IMAP.AccessAs${isApp ? 'App' : 'User.All'}`
    : `SMTP.Send${isApp ? 'AsApp' : ''}`;
}
