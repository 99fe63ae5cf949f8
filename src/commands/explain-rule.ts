/** One row of the explanations: which words of the other side it stands for. Pure. */

/** Where an account's way to its provider broke. */
export type Stage = 'token' | 'dns' | 'tcp' | 'tls' | 'greeting' | 'ehlo' | 'auth' | 'sender';

export interface Trouble {
  readonly stage: Stage;
  /** What was said or reported: a reply line, an OAuth error, a system error code. */
  readonly said: string;
  /** Provider key, to tell Google's words from Microsoft's. */
  readonly provider: string;
  readonly host: string;
  readonly port: number;
  /** The XOAUTH2 user, and the sender at stage `sender`. */
  readonly user: string;
  readonly sender?: string;
  readonly grant: string;
}

export interface Explanation {
  /** What it means. */
  readonly what: string;
  /** What to do, by whom. */
  readonly cure: string;
}

/** Fits when stage, words and condition do. */
export interface Rule {
  readonly stages: readonly Stage[];
  readonly said: RegExp;
  readonly when?: (trouble: Trouble) => boolean;
  readonly what: string | ((trouble: Trouble) => string);
  readonly cure: string | ((trouble: Trouble) => string);
}

export const isGoogle = (t: Trouble): boolean => t.provider === 'gmail' || /gmail|google/i.test(t.host);
export const isMicrosoft = (t: Trouble): boolean =>
  t.provider.startsWith('outlook') || /outlook|office365|microsoft/i.test(t.host);
export const signInAgain = (t: Trouble): string =>
  `sign in again: xoauth2-relay account add ${t.user} --replace`;
export const aadsts = (...codes: readonly number[]): RegExp => new RegExp(`AADSTS(?:${codes.join('|')})\\b`);
