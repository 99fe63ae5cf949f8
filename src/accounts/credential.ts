/**
 * What an account authenticates with. Made by the accounts file parser, handed by the composition
 * root to src/tokens and to nothing else. A secret cannot be printed: it is a `Secret`.
 */
import { inspect } from 'node:util';
import type { TokenResource } from '../protocol/vocabulary.ts';
import type { GrantType } from './account.ts';

export type { TokenResource };

/** Text that leaves only through `reveal()`: JSON, string conversion and inspection show `[secret]`. */
export class Secret {
  readonly #text: string;
  constructor(text: string) {
    this.#text = text;
  }
  reveal(): string {
    return this.#text;
  }
  toString(): string {
    return '[secret]';
  }
  toJSON(): string {
    return '[secret]';
  }
  [inspect.custom](): string {
    return '[secret]';
  }
}

interface CredentialBase {
  readonly grant: GrantType;
  /** Token endpoint, absolute URL; https except on loopback. */
  readonly tokenUrl: string;
  /** Space-separated scopes, as sent; empty where the provider wants none in a refresh. */
  readonly scope: string;
  /** Scopes of further resources, as sent; what is not named cannot be had. One refresh token serves all. */
  readonly scopes?: Readonly<Partial<Record<Exclude<TokenResource, 'smtp'>, string>>>;
  /** Resources whose tokens are fetched ahead. Default: `smtp` alone. */
  readonly ahead?: readonly TokenResource[];
  /** A token is not handed out when it has less life than this left, ms. */
  readonly safetyBufferMs: number;
  /** An access token the operator brought along, used while it lives. */
  readonly initial?: { readonly accessToken: Secret; readonly expiresAt: number };
}

export interface RefreshTokenCredential extends CredentialBase {
  readonly grant: 'refresh_token';
  readonly clientId: string;
  /** Absent for public clients: they must not send one (AADSTS700025). */
  readonly clientSecret?: Secret;
  readonly refreshToken: Secret;
}

/** Certificate of a Microsoft app: PEM private key and PEM certificate (for x5t#S256). */
export interface ClientCertificate {
  readonly privateKeyPem: Secret;
  readonly certificatePem: string;
}

export interface ClientCredentialsCredential extends CredentialBase {
  readonly grant: 'client_credentials';
  readonly clientId: string;
  readonly clientSecret?: Secret;
  readonly clientCertificate?: ClientCertificate;
}

export interface JwtBearerCredential extends CredentialBase {
  readonly grant: 'jwt_bearer';
  /** `client_email` of the service account: `iss`. */
  readonly clientId: string;
  readonly privateKeyPem: Secret;
  readonly privateKeyId?: string;
  /** Mailbox to act for: `sub`. */
  readonly subject: string;
}

export type Credential = RefreshTokenCredential | ClientCredentialsCredential | JwtBearerCredential;
