/**
 * SASL XOAUTH2, the mechanism of Gmail and Microsoft: the client response.
 * https://developers.google.com/gmail/imap/xoauth2-protocol
 */

// biome-ignore lint/suspicious/noControlCharactersInRegex: these octets end or split the SASL string
const FORBIDDEN = /[\u0000-\u001f\u007f]/;

/** `base64("user=" user ^A "auth=Bearer " token ^A ^A)`. Throws a RangeError where a control character would break the string. */
export function formatXoauth2(user: string, accessToken: string): string {
  if (FORBIDDEN.test(user)) throw new RangeError('XOAUTH2 user contains a control character');
  if (FORBIDDEN.test(accessToken)) throw new RangeError('access token contains a control character');
  return Buffer.from(`user=${user}\x01auth=Bearer ${accessToken}\x01\x01`).toString('base64');
}
