/** The faults of a soak, one every few seconds, chosen by dice: of the provider, the token endpoint, the operator. */
import type { Random } from '../sim/random.ts';
import type { Provider } from '../support/provider.ts';
import type { SoakRelay } from './relays.ts';

/** A fault that comes, lasts and goes. */
export interface Fault {
  readonly name: string;
  /** The result ends it. */
  befall(): Promise<() => unknown> | (() => unknown);
}

/** One that does not last. */
const atOnce = (task: () => unknown) => (): (() => void) => {
  task();
  return () => undefined;
};
const TEMPORARY = [
  ['MAIL', '451 4.3.0 try again later'],
  ['RCPT', '450 4.2.1 the user is receiving mail too quickly'],
  ['DATA', '451 4.3.0 not now'],
  ['end-of-data', '451 4.3.0 temporarily rejected'],
  ['end-of-data', '432 4.3.2 Concurrent connections limit exceeded'],
  ['greeting', '421 4.3.0 Temporary System Problem'],
  ['AUTH', '454 4.7.0 Cannot authenticate due to temporary system problem'],
] as const;

export function faultsOf(
  provider: Provider,
  relays: { readonly steady: SoakRelay; readonly mortal: SoakRelay },
  dice: Random,
): readonly Fault[] {
  const { smtp, token } = provider;
  const times = (): { times: number } => ({ times: dice.between(1, 8) });
  const scripted = (...given: Parameters<typeof smtp.script>): (() => void) => {
    const entry = smtp.script(...given);
    return () => entry.remove();
  };
  return [
    {
      name: 'idle connections end',
      befall: atOnce(() => smtp.disturb(dice.pick(['unsolicited', 'next-command', 'eof', 'reset']))),
    },
    {
      name: 'a temporary refusal',
      befall: () => {
        const [stage, reply] = dice.pick(TEMPORARY);
        return scripted(stage, times(), { reply, after: reply.startsWith('421') ? 'close' : 'continue' });
      },
    },
    {
      name: 'a connection breaks in the middle',
      befall: () =>
        scripted(dice.pick(['MAIL', 'RCPT', 'DATA', 'BDAT', 'EHLO', 'AUTH']), times(), {
          after: dice.pick(['close', 'reset']),
        }),
    },
    {
      name: 'a message is taken and nobody told',
      befall: () => scripted('end-of-data', times(), { accept: true, after: dice.pick(['close', 'reset']) }),
    },
    {
      name: 'a message is lost at its end',
      befall: () => scripted('end-of-data', times(), { after: dice.pick(['close', 'reset']) }),
    },
    {
      name: 'late answers',
      befall: () =>
        scripted(dice.pick(['MAIL', 'RCPT', 'end-of-data', 'AUTH']), times(), {
          delayMs: 4_000,
          normal: true,
        }),
    },
    {
      name: 'the provider is away',
      befall: async () => {
        await smtp.down(dice.chance(0.7));
        return () => smtp.up();
      },
    },
    {
      name: 'access tokens are revoked',
      befall: atOnce(() => {
        for (const { email } of [...relays.steady.accounts, ...relays.mortal.accounts])
          token.forgetAccessTokens(email);
      }),
    },
    {
      name: 'the token endpoint is away',
      befall: async () => {
        await token.down();
        return () => token.up();
      },
    },
    {
      name: 'the token endpoint fails',
      befall: () => {
        token.always({ status: 503, body: 'no' });
        return () => token.always(undefined);
      },
    },
    {
      name: 'the token endpoint is slow',
      befall: () => {
        token.delayMs = 3_000;
        return () => {
          token.delayMs = 0;
        };
      },
    },
    { name: 'a reload', befall: atOnce(() => relays.steady.reload(dice)) },
    { name: 'a reload of the other', befall: atOnce(() => relays.mortal.reload(dice)) },
    {
      name: 'an accounts file that cannot be used',
      befall: () => {
        relays.steady.spoil();
        return () => relays.steady.reload(dice);
      },
    },
    { name: 'kill -9', befall: () => relays.mortal.restart('SIGKILL') },
    { name: 'a stop and a start', befall: () => relays.mortal.restart('SIGTERM') },
  ];
}
