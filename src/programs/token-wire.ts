/**
 * What is said over the token socket: one line of JSON each way, then the connection ends. Pure; known to the relay
 * and to the command that asks it.
 */
import { parseJsonObject } from '../protocol/json-object.ts';
import { TOKEN_RESOURCES, type TokenResource } from '../protocol/vocabulary.ts';

export interface TokenQuestion {
  /** Id or address. */
  readonly account: string;
  readonly resource: TokenResource;
  /** Server the program is about to show the token to; without one nobody asks where it goes. */
  readonly host?: string;
  /** A token that a server has refused: another one is obtained in its place. */
  readonly refused?: string;
}

export type TokenReply =
  | {
      readonly ok: true;
      readonly account: string;
      /** XOAUTH2 user. */
      readonly user: string;
      readonly access_token: string;
      /** ISO 8601. */
      readonly expires_at: string;
    }
  | { readonly ok: false; readonly error: string; readonly cure?: string };

/** Octets of a question; the longest part is a token of Microsoft's. */
export const MAX_QUESTION = 16_384;

export function parseQuestion(line: string): TokenQuestion | undefined {
  const { account, resource, host, refused } = parseJsonObject(line) ?? {};
  const isText = (value: unknown): boolean => value === undefined || typeof value === 'string';
  const found = TOKEN_RESOURCES.find((name) => name === resource);
  if (typeof account !== 'string' || found === undefined || !isText(host) || !isText(refused))
    return undefined;
  return {
    account,
    resource: found,
    ...(host === undefined ? {} : { host: host as string }),
    ...(refused === undefined ? {} : { refused: refused as string }),
  };
}

export function parseTokenReply(line: string): TokenReply | undefined {
  const { ok, account, user, access_token, expires_at, error, cure } = parseJsonObject(line) ?? {};
  if (ok === false && typeof error === 'string')
    return { ok, error, ...(typeof cure === 'string' ? { cure } : {}) };
  const isWhole = [account, user, access_token, expires_at].every((value) => typeof value === 'string');
  return ok === true && isWhole
    ? {
        ok,
        account: account as string,
        user: user as string,
        access_token: access_token as string,
        expires_at: expires_at as string,
      }
    : undefined;
}
