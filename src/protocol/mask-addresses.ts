/** Addresses in what others see: their domain only. Pure, linear. */

/** `ann@example.com` → `*@example.com`; the null sender stays empty. */
export const maskAddress = (address: string): string => {
  const at = address.lastIndexOf('@');
  return at > 0 ? `*${address.slice(at)}` : address;
};

const BETWEEN_WORDS = /([\s<>"'(),;:]+)/;

/** Every address in a text, masked. Takes time linear in the text: it may be a hostile server's. */
export const maskAddresses = (text: string): string =>
  text.includes('@') ? text.split(BETWEEN_WORDS).map(maskAddress).join('') : text;
