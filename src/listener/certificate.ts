/** A listener's certificate and key. In: paths of two PEM files. Out: their texts, which fit together. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { readFileAtRest } from '../accounts/text-at-rest.ts';
import type { ServerCertificate } from './smtp-server-seam.ts';

/** Tried before use: a broken pair, or half of another, must not replace a working one. Rejects with what is wrong. */
export async function readCertificate(certFile: string, keyFile: string): Promise<ServerCertificate> {
  const read = async (path: string): Promise<string> => {
    const { content } = await readFileAtRest(path).catch((error: Error) => {
      throw new Error(`${path}: ${error.message}`, { cause: error });
    });
    // Beside the blocks there may stand names in any encoding.
    return content.toString('latin1');
  };
  // One after the other: of two missing files it is always the same that is named.
  const cert = await read(certFile);
  const key = await read(keyFile);
  createSecureContext({ cert, key });
  // An empty text, or a key of another kind, it takes without a word, and no handshake succeeds then.
  if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key)))
    throw new Error('the key is not that of the certificate');
  return { cert, key };
}
