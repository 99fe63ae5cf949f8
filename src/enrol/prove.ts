/**
 * Whether an account can do what it is for, before its grant is kept: token, login, MAIL FROM, a draft by Graph;
 * nothing is sent. In: the account with the grant on trial. Out: steps, and the refresh token if the provider
 * changed it meanwhile. Keeps nothing.
 */
import type { SmtpProxy } from '../accounts/account.ts';
import type { LoadedAccount } from '../accounts/accounts-file.ts';
import { silentLog } from '../log.ts';
import { grantFingerprint } from '../tokens/grant-form.ts';
import { createMemoryStore } from '../tokens/store-memory.ts';
import { createTokenService } from '../tokens/token-service.ts';
import { type ProbeStep, probeAccount } from './probe.ts';

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
  options: {
    readonly onStep: (step: ProbeStep) => void;
    readonly heloName?: string | undefined;
    readonly proxy?: SmtpProxy | undefined;
  },
): Promise<Proof> {
  const { account, credential } = loaded;
  // Read once more when the last answer has come, so not emptied by closing.
  const store = { ...createMemoryStore(), close: async () => {} };
  const tokens = createTokenService({ log: silentLog, store }, { refreshAhead: false });
  tokens.applyAccounts([loaded]);
  let steps: readonly ProbeStep[];
  try {
    steps = await probeAccount(account, {
      token: (resource) => tokens.get(account.id, resource),
      timeoutMs: STEP_TIMEOUT_MS,
      heloName: options.heloName,
      proxy: options.proxy,
      grant: credential.grant,
      onStep: options.onStep,
    });
  } finally {
    await tokens.close();
  }
  const kept = await store.load({ accountId: account.id, fingerprint: grantFingerprint(credential) });
  return { ok: steps.every((step) => step.ok), steps, rotated: kept?.refreshToken };
}
