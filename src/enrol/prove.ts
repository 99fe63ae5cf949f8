/**
 * Whether an account can do what it is for, before its grant is kept: token, login, MAIL FROM, a draft by Graph;
 * nothing is sent. In: the account with the grant on trial. Out: steps, and the refresh token if the provider
 * changed it meanwhile. Keeps nothing.
 */
import type { LoadedAccount } from '../accounts/accounts-file.ts';
import { grantFingerprint } from '../tokens/grant-form.ts';
import { createMemoryStore } from '../tokens/store-memory.ts';
import { type ProbeDeps, type ProbeStep, probeAccount, withTokens } from './probe.ts';

/** For each step, ms. */
const STEP_TIMEOUT_MS = 15_000;

export interface Proof {
  readonly ok: boolean;
  readonly steps: readonly ProbeStep[];
  /** A provider that rotates has made the given one old. */
  readonly rotated: string | undefined;
}

export async function proveAccount(
  loaded: LoadedAccount,
  options: Pick<ProbeDeps, 'onStep' | 'heloName' | 'proxy' | 'signedIn'>,
): Promise<Proof> {
  const { account, credential } = loaded;
  // Read once more when the last answer has come, so not emptied by closing.
  const store = { ...createMemoryStore(), close: async () => {} };
  const steps = await withTokens(store, [loaded], (tokens) =>
    probeAccount(loaded, { ...options, tokens, timeoutMs: STEP_TIMEOUT_MS }),
  );
  const kept = await store.load({ accountId: account.id, fingerprint: grantFingerprint(credential) });
  return { ok: steps.every((step) => step.ok), steps, rotated: kept?.refreshToken };
}
