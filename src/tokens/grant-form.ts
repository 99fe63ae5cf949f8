/**
 * From a credential to the form that asks for a token, and to the fingerprints that tell whether
 * what is stored still belongs to what the operator gave.
 */
import { createHash, randomUUID } from 'node:crypto';
import type { Credential, Secret } from '../accounts/credential.ts';
import {
  clientAssertionClaims,
  clientCredentialsForm,
  jwtBearerForm,
  refreshTokenForm,
  serviceAccountClaims,
} from '../protocol/token-request.ts';
import { signClientAssertion, signServiceAccountAssertion } from './assertion.ts';
import { reasonOf } from './store-watch.ts';
import type { Exchange } from './token-endpoint.ts';

/** A form with the secret texts in it, so that they can be kept out of messages. */
export interface GrantForm {
  readonly form: string;
  readonly secrets: readonly string[];
}

/**
 * The request for one token with `scope`. `refreshToken` is the newest one known (refresh grant only); `nowMs` is
 * the provider's time as far as known. Rejects where a key or certificate cannot be used.
 */
export async function buildGrantForm(
  credential: Credential,
  scope: string,
  refreshToken: Secret | undefined,
  nowMs: number,
): Promise<GrantForm> {
  switch (credential.grant) {
    case 'refresh_token': {
      const token = (refreshToken ?? credential.refreshToken).reveal();
      const clientSecret = credential.clientSecret?.reveal();
      return {
        form: refreshTokenForm({
          clientId: credential.clientId,
          clientSecret,
          refreshToken: token,
          scope,
        }),
        secrets: clientSecret === undefined ? [token] : [token, clientSecret],
      };
    }
    case 'client_credentials': {
      const { clientId, tokenUrl, clientCertificate: certificate } = credential;
      if (certificate !== undefined) {
        const claims = clientAssertionClaims(clientId, tokenUrl, nowMs, randomUUID());
        const assertion = await signClientAssertion(
          certificate.privateKeyPem,
          certificate.certificatePem,
          claims,
        );
        return { form: clientCredentialsForm(clientId, scope, { assertion }), secrets: [assertion] };
      }
      const secret = credential.clientSecret?.reveal() ?? '';
      return { form: clientCredentialsForm(clientId, scope, { secret }), secrets: [secret] };
    }
    case 'jwt_bearer': {
      const { clientId, subject, tokenUrl } = credential;
      const claims = serviceAccountClaims(clientId, subject, scope, tokenUrl, nowMs);
      const assertion = await signServiceAccountAssertion(
        credential.privateKeyPem,
        credential.privateKeyId,
        claims,
      );
      return { form: jwtBearerForm(assertion), secrets: [assertion] };
    }
    default:
      return credential satisfies never;
  }
}

const digest = (...parts: readonly (string | number)[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('base64url');

/** Changes when the operator gives another consent: what the provider rotated from the old one is void. */
export function grantFingerprint(credential: Credential): string {
  return credential.grant === 'refresh_token'
    ? digest(credential.clientId, credential.refreshToken.reveal())
    : digest(credential.clientId);
}

/** Changes when an access token obtained before may be the wrong one now. */
export function tokenFingerprint(credential: Credential, scope: string): string {
  return digest(
    credential.grant,
    credential.tokenUrl,
    scope,
    grantFingerprint(credential),
    ...proofOf(credential),
  );
}

/** Equal for two credentials with the same content. */
export function credentialFingerprint(credential: Credential): string {
  const { safetyBufferMs, initial, scopes = {}, ahead = [] } = credential;
  return digest(
    tokenFingerprint(credential, credential.scope),
    JSON.stringify(Object.entries(scopes).sort()),
    ahead.join(),
    safetyBufferMs,
    initial?.accessToken.reveal() ?? '',
    initial?.expiresAt ?? 0,
  );
}

/** How the client proves who it is, and for whom it asks. */
function proofOf(credential: Credential): readonly string[] {
  switch (credential.grant) {
    case 'refresh_token':
      return [credential.clientSecret?.reveal() ?? ''];
    case 'client_credentials':
      return [
        credential.clientSecret?.reveal() ?? '',
        credential.clientCertificate?.privateKeyPem.reveal() ?? '',
        credential.clientCertificate?.certificatePem ?? '',
      ];
    case 'jwt_bearer':
      return [credential.subject, credential.privateKeyPem.reveal(), credential.privateKeyId ?? ''];
    default:
      return credential satisfies never;
  }
}

/** A key or certificate that signs nothing: known without asking anybody. */
export function unsignable(error: unknown, startedAt: number): Exchange {
  return {
    outcome: {
      ok: false,
      failure: {
        kind: 'app_misconfigured',
        message: `the private key or certificate cannot be used (${reasonOf(error)})`,
        cure: 'give an unencrypted PEM private key and the certificate registered with the app',
        scope: 'app',
      },
    },
    sent: false,
    clockOffsetMs: undefined,
    startedAt,
    ms: 0,
    probeAt: undefined,
    late: undefined,
  };
}
