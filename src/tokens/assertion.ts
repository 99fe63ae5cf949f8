/** Signs assertions; the one file that knows jose. In: PEM keys and claims. Out: a compact JWT. */
import { createHash, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { SignJWT } from 'jose';
import type { Secret } from '../accounts/credential.ts';
import type { Claims } from '../protocol/token-request.ts';

/** Parsed keys: parsing a PEM costs more than a signature is worth repeating it for. */
const keys = new WeakMap<Secret, KeyObject>();

/** PKCS#8 and PKCS#1 alike. Throws on anything that is not an unencrypted private key. */
function privateKey(pem: Secret): KeyObject {
  const known = keys.get(pem);
  if (known !== undefined) return known;
  const key = createPrivateKey(pem.reveal());
  keys.set(pem, key);
  return key;
}

/** Client assertion for Microsoft: PS256, the certificate named by its SHA-256 thumbprint (RFC 7515 §4.1.8). */
export async function signClientAssertion(
  privateKeyPem: Secret,
  certificatePem: string,
  claims: Claims,
): Promise<string> {
  const thumbprint = createHash('sha256').update(new X509Certificate(certificatePem).raw).digest('base64url');
  return new SignJWT({ ...claims })
    .setProtectedHeader({ alg: 'PS256', typ: 'JWT', 'x5t#S256': thumbprint })
    .sign(privateKey(privateKeyPem));
}

/** Service account assertion for Google: RS256, the key named by `kid` where it is known. */
export async function signServiceAccountAssertion(
  privateKeyPem: Secret,
  keyId: string | undefined,
  claims: Claims,
): Promise<string> {
  return new SignJWT({ ...claims })
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT', ...(keyId === undefined ? {} : { kid: keyId }) })
    .sign(privateKey(privateKeyPem));
}
