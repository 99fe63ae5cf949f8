/**
 * Whether an account can do what it is for, before its grant is kept: token, login, MAIL FROM, a draft by Graph;
 * nothing is sent. In: the account with the grant on trial. Out: steps, and the refresh token if the provider
 * changed it meanwhile. Keeps nothing itself.
 */
import type { LoadedAccount } from '../accounts/build-account.ts';
import { grantFingerprint } from '../tokens/grant-form.ts';
import { createMemoryStore } from '../tokens/store-memory.ts';
import type { TokenStore } from '../tokens/token-store.ts';
import { type ProbeDeps, type ProbeStep, probeAccount, type TokenUse, tokensOf, useTokens } from './probe.ts';

/** For each step, ms. */
const STEP_TIMEOUT_MS = 15_000;

export interface Proof {
  readonly ok: boolean;
  readonly steps: readonly ProbeStep[];
  /** A provider that rotates has made the given one old. */
  readonly rotated: string | undefined;
}

export interface ProveOptions extends Pick<ProbeDeps, 'onStep' | 'heloName' | 'proxy' | 'signedIn'> {
  /** Default: the answers under way are awaited as at a stop. */
  readonly use?: TokenUse;
  /** Brings a refresh token that the provider gives to where it lasts, before anything is done with it. Asked again where it rejects. */
  readonly keep?: (refreshToken: string) => Promise<void>;
}

export async function proveAccount(
  loaded: LoadedAccount,
  { use = useTokens, keep, ...options }: ProveOptions,
): Promise<Proof> {
  const { account, credential } = loaded;
  const memory = createMemoryStore();
  const store: TokenStore = {
    ...memory,
    async rotate(id, rotation) {
      await keep?.(rotation.refreshToken);
      return memory.rotate(id, rotation);
    },
    // Read once more when the last answer has come, so not emptied by closing.
    close: async () => {},
  };
  const steps = await use(tokensOf(store, [loaded]), (tokens) =>
    probeAccount(loaded, { ...options, tokens, timeoutMs: STEP_TIMEOUT_MS }),
  );
  const kept = await store.load({ accountId: account.id, fingerprint: grantFingerprint(credential) });
  return { ok: steps.every((step) => step.ok), steps, rotated: kept?.refreshToken };
}
