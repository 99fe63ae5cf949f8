/**
 * Which ESMTP parameters MAIL and RCPT may carry and how they are written. In: parameters as the client
 * sent them. Out: what the relay has to know (SIZE, SMTPUTF8) and those that go on unaltered. Pure.
 */
import { type Reply, reply } from './reply.ts';

export interface MailParameters {
  /** Declared size (RFC 1870); absent where the client declared none. */
  readonly size: number | undefined;
  readonly smtpUtf8: boolean;
  /** For the upstream, still xtext-encoded. */
  readonly passed: readonly string[];
}

const xtext = (max: number): RegExp => new RegExp(`^(?:[!-*,-<>-~]|\\+[0-9A-F]{2}){1,${max}}$`);

/** Value syntax by keyword; `null`: the keyword takes no value. */
type Syntax = Readonly<Record<string, RegExp | null>>;

export const MAIL_SYNTAX = {
  SIZE: /^\d{1,20}$/, // RFC 1870 §3
  BODY: /^(?:7BIT|8BITMIME)$/i, // RFC 6152; BINARYMIME needs BDAT, which is not offered
  SMTPUTF8: null, // RFC 6531 §3.4
  RET: /^(?:FULL|HDRS)$/i, // RFC 3461 §4.3
  ENVID: xtext(100), // RFC 3461 §4.4
  AUTH: /^(?:<>|[!-<>-~]+)$/, // RFC 4954 §5
} satisfies Syntax;

export const RCPT_SYNTAX = {
  NOTIFY: /^(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*)$/i, // RFC 3461 §4.1
  ORCPT: /^[!-*,-:<>-~]+;[!-<>-~\u00a0-\u{10ffff}]{1,500}$/u, // RFC 3461 §4.2, RFC 6533 §3
} satisfies Syntax;

/** Judges the parameters of MAIL; a `Reply` is the refusal. */
export function parseMailParameters(parameters: readonly string[]): MailParameters | Reply {
  const refusal = firstRefusal(parameters, MAIL_SYNTAX);
  if (refusal !== undefined) return refusal;
  let size: number | undefined;
  let smtpUtf8 = false;
  const passed: string[] = [];
  for (const parameter of parameters) {
    const [keyword, value] = splitParameter(parameter);
    // The identity behind AUTH= is the client's affair; ours towards the provider is the account.
    if (keyword === 'AUTH') continue;
    if (keyword === 'SIZE') size = Number(value);
    if (keyword === 'SMTPUTF8') smtpUtf8 = true;
    passed.push(parameter);
  }
  return { size, smtpUtf8, passed };
}

/** The refusal of RCPT's parameters, where there is one. */
export function refusalOfRcptParameters(parameters: readonly string[]): Reply | undefined {
  return parameters.length === 0 ? undefined : firstRefusal(parameters, RCPT_SYNTAX);
}

function firstRefusal(parameters: readonly string[], syntax: Syntax): Reply | undefined {
  const seen = new Set<string>();
  for (const parameter of parameters) {
    const [keyword, value] = splitParameter(parameter);
    const form = Object.hasOwn(syntax, keyword) ? syntax[keyword] : undefined;
    if (form === undefined) return reply(555, '5.5.4', `Parameter ${keyword.slice(0, 40)} is not supported`);
    if (seen.has(keyword)) return reply(501, '5.5.4', `Parameter ${keyword} given twice`);
    seen.add(keyword);
    if (form === null ? value !== undefined : value === undefined || !form.test(value)) {
      return reply(501, '5.5.4', `Malformed value of parameter ${keyword}`);
    }
  }
  return undefined;
}

/** The keyword in capitals. */
export function splitParameter(parameter: string): [keyword: string, value: string | undefined] {
  const equals = parameter.indexOf('=');
  return equals < 0
    ? [parameter.toUpperCase(), undefined]
    : [parameter.slice(0, equals).toUpperCase(), parameter.slice(equals + 1)];
}

const SIZE = /^SIZE=/i;

/** Of MAIL, without what the client declared: the message has another size by now. */
export const withoutSize = (parameters: readonly string[]): readonly string[] =>
  parameters.filter((parameter) => !SIZE.test(parameter));

/** The size declared, octets (RFC 1870 §3); 0: none, or none that is known. */
export function declaredSize(parameters: readonly string[]): number {
  const declared = parameters.find((parameter) => SIZE.test(parameter));
  return declared === undefined ? 0 : Number(splitParameter(declared)[1]);
}
