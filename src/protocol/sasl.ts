/**
 * The SASL mechanisms that carry an access token: XOAUTH2 of Gmail and Microsoft, OAUTHBEARER of RFC 7628. In: what
 * a server offers, user, token. Out: the mechanism to use, and its client responses. Pure.
 * https://developers.google.com/gmail/imap/xoauth2-protocol
 */

export interface Mechanism {
  readonly name: 'XOAUTH2' | 'OAUTHBEARER';
  /** The client's response, base64. Throws a RangeError where a control character would break the string. */
  format(user: string, accessToken: string, server: { readonly host: string; readonly port: number }): string;
  /** What a client answers to the challenge that carries the error, to hear the real reply. */
  readonly afterError: string;
}

const XOAUTH2: Mechanism = { name: 'XOAUTH2', format: formatXoauth2, afterError: '' };
/** RFC 7628 §3.2.3: a single ^A. */
const OAUTHBEARER: Mechanism = { name: 'OAUTHBEARER', format: formatOauthBearer, afterError: 'AQ==' };

/** XOAUTH2 where it is offered, else OAUTHBEARER; undefined where the server offers neither. */
export const chooseMechanism = (offered: readonly string[]): Mechanism | undefined =>
  [XOAUTH2, OAUTHBEARER].find(({ name }) => offered.includes(name));

// biome-ignore lint/suspicious/noControlCharactersInRegex: these octets end or split the SASL string
const FORBIDDEN = /[\u0000-\u001f\u007f]/;

function checkParts(mechanism: Mechanism['name'], user: string, accessToken: string): void {
  if (FORBIDDEN.test(user)) throw new RangeError(`${mechanism} user contains a control character`);
  if (FORBIDDEN.test(accessToken)) throw new RangeError('access token contains a control character');
}

/** `base64("user=" user ^A "auth=Bearer " token ^A ^A)`. Throws a RangeError where a control character would break the string. */
export function formatXoauth2(user: string, accessToken: string): string {
  checkParts('XOAUTH2', user, accessToken);
  return Buffer.from(`user=${user}\x01auth=Bearer ${accessToken}\x01\x01`).toString('base64');
}

/** RFC 7628 §3.1: `n,a=USER,^Ahost=HOST^Aport=PORT^Aauth=Bearer TOKEN^A^A`, in the user `,` and `=` escaped (RFC 5801 §4). */
export function formatOauthBearer(
  user: string,
  accessToken: string,
  { host, port }: { readonly host: string; readonly port: number },
): string {
  checkParts('OAUTHBEARER', user, accessToken);
  const authzid = user.replaceAll('=', '=3D').replaceAll(',', '=2C');
  return Buffer.from(
    `n,a=${authzid},\x01host=${host}\x01port=${port}\x01auth=Bearer ${accessToken}\x01\x01`,
  ).toString('base64');
}
