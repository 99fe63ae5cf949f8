/**
 * Pauses of accounts on either way, as they are kept over a restart and told to other relays. In: the ways' own. Out:
 * all of an account together; one goes back to the way it is of.
 */
import type { KeptPause } from './account-health.ts';
import type { GraphPauses } from './graph/healths.ts';
import type { Upstreams } from './upstream.ts';

export interface Pauses {
  /** Those that stand; undefined where the account is not served. */
  of(accountId: string): readonly KeptPause[] | undefined;
  /** Those that stand, by account id. */
  kept(): Readonly<Record<string, readonly KeptPause[]>>;
  restore(kept: Readonly<Record<string, readonly KeptPause[]>>): void;
  /** Graph asked another relay to leave the account's mailbox alone for so long. */
  graphRests(accountId: string, ms: number): void;
  /** It is over. */
  end(accountId: string, of: Pick<KeptPause, 'way'> & Pick<KeptPause['pause'], 'scope'>): void;
}

export function createPauses(
  upstreams: Pick<Upstreams, 'pausesOf' | 'keptPauses' | 'restorePauses' | 'peek'>,
  graph: GraphPauses,
): Pauses {
  const byGraph = (accountId: string): readonly KeptPause[] =>
    graph.of(accountId).map((kept) => ({ ...kept, way: 'graph' }));
  return {
    of(accountId) {
      const bySmtp = upstreams.pausesOf(accountId);
      return bySmtp && [...bySmtp, ...byGraph(accountId)];
    },
    kept() {
      const all: Record<string, readonly KeptPause[]> = { ...upstreams.keptPauses() };
      for (const id of graph.accounts()) all[id] = [...(all[id] ?? []), ...byGraph(id)];
      return all;
    },
    restore(kept) {
      for (const [id, pauses] of Object.entries(kept)) {
        const [bySmtp, others] = [pauses.filter((p) => p.way === undefined), pauses.filter((p) => p.way)];
        if (bySmtp.length > 0) upstreams.restorePauses({ [id]: bySmtp });
        if (others.length > 0) graph.restore(id, others);
      }
    },
    graphRests: graph.rest,
    end(accountId, { way, scope }) {
      if (way === 'graph') graph.end(accountId, scope);
      else upstreams.peek(accountId)?.health.succeeded(scope);
    },
  };
}
