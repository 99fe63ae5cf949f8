/** A listener before the real relay and a simulated provider, all in this process. */
import type { Account } from '../../src/accounts/account.ts';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import { createAccountDirectory } from '../../src/accounts/directory.ts';
import { createListener, type Listener } from '../../src/listener/listener.ts';
import type { PartialListenerOptions } from '../../src/listener/options.ts';
import { silentLog } from '../../src/log.ts';
import type { Defer } from '../support/leak-check.ts';
import { ANN, type Room, type RoomOptions, startRoom } from '../support/relay-room.ts';

export interface Front extends Room {
  readonly listener: Listener;
  readonly port: number;
  readonly accounts: readonly Account[];
  /** Serves these from now on, as after a reload. */
  serve(accounts: readonly Account[]): void;
}

export async function startFront(
  defer: Defer,
  options: RoomOptions & { readonly settings?: PartialListenerOptions } = {},
): Promise<Front> {
  const room = await startRoom(defer, options);
  const entries = (options.users ?? [ANN]).map((user) => room.provider.entry(user, options.account));
  const file = await parseAccounts(JSON.stringify(entries), { env: {}, directory: '/' });
  const accounts = file.accounts.map((a) => a.account);
  let directory = createAccountDirectory(accounts);
  const listener = createListener(
    { relay: room.relay, directory: () => directory, log: silentLog, replayBytes: 64 * 1024 },
    { port: 0, hostname: 'relay.test', ...options.settings },
  );
  const address = await listener.listen();
  defer(() => listener.stop({ deadlineMs: 0 }));
  return {
    ...room,
    listener,
    port: 'port' in address ? address.port : 0,
    accounts,
    serve(wanted) {
      directory = createAccountDirectory(wanted);
      room.serveOnly(wanted);
    },
  };
}
