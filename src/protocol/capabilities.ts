/** What an upstream offers, read from its EHLO reply (RFC 5321 §4.1.1.1). */

export interface Capabilities {
  /** BDAT, RFC 3030. */
  readonly chunking: boolean;
  /** RFC 2920. */
  readonly pipelining: boolean;
  /** RFC 2034. */
  readonly enhancedStatusCodes: boolean;
  /** RFC 6152. */
  readonly eightBitMime: boolean;
  /** BODY=BINARYMIME, RFC 3030. */
  readonly binaryMime: boolean;
  /** RFC 6531. */
  readonly smtpUtf8: boolean;
  /** RFC 3461. */
  readonly dsn: boolean;
  /** RFC 1870: octets; 0 = no limit stated; undefined = extension not offered. */
  readonly size: number | undefined;
  readonly authMechanisms: readonly string[];
}

/** Reads the lines of an EHLO reply; the first is the greeting. */
export function parseCapabilities(lines: readonly string[]): Capabilities {
  const offered = new Map<string, string[]>();
  for (const line of lines.slice(1)) {
    // `AUTH=LOGIN` is an old spelling of `AUTH LOGIN`.
    const [keyword, ...args] = line
      .trim()
      .replace(/^AUTH=/i, 'AUTH ')
      .split(/\s+/);
    if (keyword) offered.set(keyword.toUpperCase(), args);
  }
  const size = offered.get('SIZE');
  return {
    chunking: offered.has('CHUNKING'),
    pipelining: offered.has('PIPELINING'),
    enhancedStatusCodes: offered.has('ENHANCEDSTATUSCODES'),
    eightBitMime: offered.has('8BITMIME'),
    binaryMime: offered.has('BINARYMIME'),
    smtpUtf8: offered.has('SMTPUTF8'),
    dsn: offered.has('DSN'),
    size: size === undefined ? undefined : Number.parseInt(size[0] ?? '0', 10) || 0,
    authMechanisms: (offered.get('AUTH') ?? []).map((m) => m.toUpperCase()),
  };
}
