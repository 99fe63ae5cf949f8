/** A relay as its users run it, before a provider with one user. */
import type { Defer } from './leak-check.ts';
import { type Provider, startProvider } from './provider.ts';
import { type RelayOptions, type RelayProcess, startRelay } from './relay-process.ts';

export async function startServing(
  defer: Defer,
  user: string,
  options: Omit<RelayOptions, 'accounts' | 'caFile'> = {},
): Promise<{ readonly provider: Provider; readonly relay: RelayProcess }> {
  const provider = await startProvider({ users: [user] });
  defer(() => provider.close());
  const relay = await startRelay({
    accounts: [provider.entry(user)],
    caFile: provider.caFile,
    ...options,
  });
  defer(() => relay.stop());
  return { provider, relay };
}
