/** A dialogue with the relay's own first listener, for `send` and `sendmail`. */
import type { Settings } from '../config.ts';
import type { ClientDialogue } from '../enrol/client-dialogue.ts';
import { type DialOptions, dialServer } from '../enrol/dial-account.ts';

/** Where a program of this machine reaches it. */
function addressOf([first]: Settings['listeners']) {
  const { host = '127.0.0.1', port = 0, tls = 'none' } = first ?? {};
  return { host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host, port, tls };
}

/** Up to and including EHLO. Throws a `StepError`. */
export const dialListener = (
  { listeners }: Settings,
  options: Pick<DialOptions, 'timeoutMs' | 'trace' | 'mask'>,
): Promise<ClientDialogue> =>
  dialServer(
    {
      id: 'relay',
      upstream: addressOf(listeners),
      heloName: 'localhost',
      localAddress: undefined,
      smtpProxy: 'none',
    },
    options,
  );
