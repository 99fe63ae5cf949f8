/** What an access token says of itself, where it is a JWT (RFC 7519) that can be read. In: the token. Out: its claims. Pure; trusts nothing. */
import { parseJsonObject } from './json-object.ts';

/** Undefined for an opaque token. */
export function claimsOf(token: string): Readonly<Record<string, unknown>> | undefined {
  const [, payload, signature] = token.split('.');
  return payload === undefined || signature === undefined
    ? undefined
    : parseJsonObject(Buffer.from(payload, 'base64url').toString());
}

/** Microsoft's names of permissions, of persons (`scp`) and applications (`roles`). */
export const permissionsIn = ({ scp, roles }: Readonly<Record<string, unknown>>): readonly string[] => [
  ...(typeof scp === 'string' ? scp.split(' ') : []),
  ...(Array.isArray(roles) ? roles.map(String) : []),
];
