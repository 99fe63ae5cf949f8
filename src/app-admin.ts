/** The admin room with its settings, and traces of what it hears. In: settings, what it shows. Out: the room, not listening yet. */
import { resolve } from 'node:path';
import type { Admin, createAdmin } from './admin/admin.ts';
import type { AdminBackend } from './admin/backend.ts';
import type { Settings } from './config.ts';
import type { ProcessLog } from './log.ts';
import { openTracing } from './tracing.ts';

export function openAppAdmin(
  open: typeof createAdmin,
  deps: { readonly backend: AdminBackend; readonly log: ProcessLog },
  settings: Settings,
  version: string,
): Admin {
  const admin = open(deps, {
    host: settings.adminHost,
    port: settings.adminPort,
    version,
    accountsFile: resolve(settings.accounts),
    tokenRead: settings.adminReadToken,
    tokenWrite: settings.adminToken,
    allowedHosts: [
      ...settings.adminAllowedHosts,
      ...(settings.adminUrl === undefined ? [] : [new URL(settings.adminUrl).hostname]),
    ],
    logAddresses: settings.logAddresses,
    summaryEveryMs: settings.summaryIntervalMs,
    metricsAccounts: settings.metricsAccounts,
    attention: { webhook: settings.alertWebhook?.reveal(), command: settings.alertCommand },
  });
  const tracing = openTracing(deps.log, { version });
  return {
    ...admin,
    recordTransaction(record) {
      admin.recordTransaction(record);
      tracing.transaction(record);
    },
    observeRefresh(observation) {
      admin.observeRefresh(observation);
      tracing.tokenFetch(observation);
    },
    close: async () => void (await Promise.all([admin.close(), tracing.close()])),
  };
}
