/**
 * What Graph's accounts may do now. In: accounts, what Graph asked for. Out: each account's health, and its pauses to be
 * kept and told to others. Owns the healths: they outlive a reload that changes an account.
 */

import type { Account, AccountState } from '../../accounts/account.ts';
import type { Clock } from '../../clock.ts';
import { orMake } from '../../or-make.ts';
import { type AccountHealth, createAccountHealth, type KeptPause } from '../account-health.ts';
import { keyOf, targetOf } from './graph-key.ts';
import type { GraphPacing } from './pacing.ts';

/** A shorter one is over before others have heard of it, ms. */
const NOTABLE_REST_MS = 1_000;

export interface GraphPauses {
  /** The account's pauses that stand. */
  of(accountId: string): readonly KeptPause[];
  /** Accounts with a pause. */
  accounts(): readonly string[];
  restore(accountId: string, pauses: readonly KeptPause[]): void;
  end(accountId: string, scope: KeptPause['pause']['scope']): void;
  /** Graph asked another relay to leave the account's mailbox alone for so long. */
  rest(accountId: string, ms: number): void;
}

export interface GraphHealths extends GraphPauses {
  healthOf(accountId: string): AccountHealth;
  stateOf(accountId: string): AccountState;
  /** What is paused is tried at the next opportunity. True where anything was. */
  retryNow(accountId: string): boolean;
  /** `pacing`, and whoever shares the account hears when Graph wants its mailbox to be left alone. */
  telling(accountId: string): GraphPacing;
  keepOnly(accounts: ReadonlyMap<string, Account>): void;
}

export function createGraphHealths(deps: {
  readonly pacing: GraphPacing;
  readonly clock: Clock;
  readonly onRest: ((accountId: string, ms: number) => void) | undefined;
}): GraphHealths {
  const { pacing, clock } = deps;
  const healths = new Map<string, AccountHealth>();
  let accounts: ReadonlyMap<string, Account> = new Map();

  const healthOf = (accountId: string): AccountHealth =>
    orMake(healths, accountId, () =>
      createAccountHealth(() => accounts.get(accountId)?.limits.maxConnections ?? 1, clock),
    );

  return {
    healthOf,
    stateOf: (accountId) => healths.get(accountId)?.state ?? { status: 'ready' },
    retryNow: (accountId) => healths.get(accountId)?.retryNow() ?? false,
    telling(accountId) {
      const told = (ms: number | undefined): void => {
        if (ms !== undefined && ms >= NOTABLE_REST_MS) deps.onRest?.(accountId, ms);
      };
      return {
        ...pacing,
        pause(key, ms) {
          pacing.pause(key, ms);
          told(ms);
        },
        throttled(key, ms, ofApplication) {
          pacing.throttled(key, ms, ofApplication);
          told(ms);
        },
      };
    },
    keepOnly(wanted) {
      accounts = wanted;
      for (const id of healths.keys()) if (!accounts.has(id)) healths.delete(id);
    },
    of: (accountId) => healths.get(accountId)?.kept() ?? [],
    accounts: () => [...healths].filter(([, health]) => health.kept().length > 0).map(([id]) => id),
    restore(accountId, pauses) {
      if (accounts.has(accountId)) healthOf(accountId).restore(pauses);
    },
    end: (accountId, scope) => void healths.get(accountId)?.succeeded(scope),
    rest(accountId, ms) {
      const account = accounts.get(accountId);
      const target = targetOf(account);
      if (account !== undefined && target !== undefined) pacing.pause(keyOf(account, target), ms);
    },
  };
}
