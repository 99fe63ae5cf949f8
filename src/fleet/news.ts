/**
 * What happens to accounts here and is told to the other relays, and the other way round: pauses begin and
 * end, an operator drains, resumes, refreshes. In: changes of this relay, news of the others. Out: the same
 * on the other side. Owns what it told last, so that nothing is told twice or told back.
 */
import { type Clock, systemClock } from '../clock.ts';
import type { SharedStates } from './shared-states.ts';

/** A pause as the upstream room keeps it. */
interface Pause {
  readonly pause: { readonly scope: string };
  /** Absent: SMTP. */
  readonly way?: string;
  /** ms since the epoch. */
  readonly until: number;
}

export interface NewsDeps<P extends Pause> {
  readonly states: SharedStates;
  /** Pauses that stand for an account; undefined where this relay does not serve it. */
  readonly pausesOf: (accountId: string) => readonly P[] | undefined;
  /** Throws where it is no pause. */
  readonly takePause: (accountId: string, pause: unknown) => void;
  readonly endPause: (accountId: string, scope: string, way: string | undefined) => void;
  /** Drains or resumes here, without telling anybody. */
  readonly setDrained: (accountId: string, isDrained: boolean) => void;
  /** The invitation to an account, until when, ms since the epoch; undefined: it has ended. Throws where it is none. */
  readonly inviteHeard: (accountId: string, invite: { readonly until: number } | undefined) => void;
  /** A new token came by an operator's wish: it is taken, and paused logins are tried again. */
  readonly refreshedElsewhere: (accountId: string) => void;
  /** Graph wants the account's mailbox to be left alone for so long. */
  readonly graphRestHeard: (accountId: string, ms: number) => void;
  /** A token endpoint fails and is asked again in `leftMs`; undefined: it answers again. */
  readonly endpointHeard: (tokenUrl: string, leftMs: number | undefined) => void;
  readonly clock?: Clock;
}

export interface News {
  /** The account's state may have changed here. */
  accountChanged(accountId: string): void;
  drained(accountId: string, isDrained: boolean): void;
  refreshed(accountId: string): void;
  /** An invitation was made or spent here; undefined: it has ended. */
  invited(accountId: string, invite: { readonly until: number } | undefined): void;
  /** Graph asked here to leave the account's mailbox alone for so long. */
  graphRests(accountId: string, ms: number): void;
  /** A token endpoint was found failing here, and is not asked for `restMs`; undefined: it answers again. */
  endpointRests(tokenUrl: string, restMs: number | undefined): void;
}

/** Of a pause: its scope, behind the way where that is not SMTP. */
const KINDS = ['logins', 'sending', 'graph-logins', 'graph-sending'] as const;
const kindOf = ({ way, pause }: Pause): string => (way === undefined ? pause.scope : `${way}-${pause.scope}`);

export function createNews<P extends Pause>(deps: NewsDeps<P>): News {
  const { states, clock = systemClock } = deps;
  /** By subject: the end that was told or heard last, ms since the epoch. */
  const known = new Map<string, number>();
  const subjectOf = (kind: string, accountId: string): string => `pause:${kind}:${accountId}`;

  states.onState((subject, state) => {
    const [kind = '', ...rest] = subject.split(':');
    if (kind === 'drained') {
      deps.setDrained(rest.join(':'), state !== undefined);
      return;
    }
    if (kind === 'token-endpoint') {
      deps.endpointHeard(rest.join(':'), state?.leftMs);
      return;
    }
    if (kind === 'graph-rest') {
      // It ends by itself.
      if (state?.leftMs !== undefined) deps.graphRestHeard(rest.join(':'), state.leftMs);
      return;
    }
    if (kind === 'invite') {
      const until = clock.now() + (state?.leftMs ?? 0);
      try {
        deps.inviteHeard(rest.join(':'), state && { ...(state.value as object), until });
      } catch {
        // Of another version: it is good at the relay that made it.
      }
      return;
    }
    if (kind !== 'pause') return;
    const [name = '', ...of] = rest;
    const [, way, scope = name] = /^(graph)-(.*)$/.exec(name) ?? [];
    const accountId = of.join(':');
    if (state === undefined) {
      known.delete(subject);
      deps.endPause(accountId, scope, way);
      return;
    }
    if (state.leftMs === undefined || typeof state.value !== 'object' || state.value === null) return;
    const until = clock.now() + state.leftMs;
    known.set(subject, until);
    try {
      deps.takePause(accountId, { ...state.value, until });
    } catch {
      // Of another version: its own relay acts on it.
      known.delete(subject);
    }
  });
  states.onAsked((action) => {
    if (action.startsWith('refresh:')) deps.refreshedElsewhere(action.slice('refresh:'.length));
  });

  /** No value: it is over. */
  function tell(subject: string, value: unknown, leftMs: number | undefined): void {
    if (value === undefined) states.clear(subject);
    else states.set({ subject, value, leftMs });
  }

  function accountChanged(accountId: string): void {
    const pauses = deps.pausesOf(accountId);
    if (pauses === undefined) return;
    for (const kind of KINDS) {
      const subject = subjectOf(kind, accountId);
      const pause = pauses.find((p) => kindOf(p) === kind);
      const told = known.get(subject);
      if (pause === undefined) {
        if (!known.delete(subject)) continue;
        states.clear(subject);
      } else if (told === undefined || Math.abs(told - pause.until) > 1_000) {
        known.set(subject, pause.until);
        const { until, ...value } = pause;
        states.set({ subject, value, leftMs: Math.max(1, until - clock.now()) });
      }
    }
  }

  return {
    accountChanged,
    drained: (accountId, isDrained) => tell(`drained:${accountId}`, isDrained || undefined, undefined),
    invited: (accountId, invite) =>
      tell(`invite:${accountId}`, invite, invite && Math.max(1, invite.until - clock.now())),
    refreshed: (accountId) => states.ask(`refresh:${accountId}`),
    graphRests: (accountId, ms) => tell(`graph-rest:${accountId}`, true, Math.max(1, Math.round(ms))),
    endpointRests: (tokenUrl, restMs) =>
      tell(`token-endpoint:${tokenUrl}`, restMs === undefined ? undefined : true, restMs),
  };
}
