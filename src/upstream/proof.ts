/**
 * Whether a server discards the chunk of a BDAT that it refuses (RFC 3030 §2 obliges it to; not every
 * one does, and then octets of a body run as commands). In: connections before their first use. Out:
 * yes or no. Proved once for an EHLO reply, before any body is entrusted to it; remembered for a day.
 */
import type { Clock } from '../clock.ts';
import { dropOldest } from '../drop-oldest.ts';
import { parseCapabilities } from '../protocol/capabilities.ts';
import type { ParsedReply } from '../protocol/reply-parser.ts';
import { ConnectionLost, type UpstreamConnection } from './connection.ts';

/** A server is proved, or found wanting, for this long. */
const REMEMBERED_MS = 24 * 60 * 60_000;
/** A connection that broke during the probe says little: asked again after this. */
const UNCLEAR_MS = 10 * 60_000;
/** Some servers answer an unexpected BDAT with silence; mail waits for this once. */
const PROBE_TIMEOUT_MS = 10_000;
/** Different EHLO replies remembered for one endpoint: load balancers have a handful of back ends. */
const MAX_REMEMBERED = 64;
/** More replies than the probe has lines are no answer to it. */
const MAX_REPLIES = 6;

interface Finding {
  readonly discards: boolean;
  /** Monotonic. */
  readonly until: number;
}

export interface Proofs {
  /** BDAT may be used on this connection, in one flight with its envelope. */
  isProved(connection: UpstreamConnection): boolean;
  /** Probes where nothing is known of this EHLO reply. The connection may be dead afterwards. Never rejects. */
  prove(connection: UpstreamConnection): Promise<void>;
  /** The server does not know BDAT after all. */
  refute(connection: UpstreamConnection): void;
}

export function createProofs(clock: Clock): Proofs {
  const findings = new Map<string, Finding>();
  const underWay = new Set<string>();

  function finding(key: string): Finding | undefined {
    const known = findings.get(key);
    return known !== undefined && clock.monotonic() < known.until ? known : undefined;
  }

  function remember(key: string, discards: boolean, forMs: number): void {
    findings.delete(key);
    findings.set(key, { discards, until: clock.monotonic() + forMs });
    dropOldest(findings, MAX_REMEMBERED);
  }

  return {
    isProved: (connection) => finding(connection.greeting)?.discards === true,
    async prove(connection) {
      const key = connection.greeting;
      if (key === '' || finding(key) !== undefined || underWay.has(key)) return;
      underWay.add(key);
      try {
        const discards = await probe(connection);
        if (discards !== undefined) remember(key, discards, REMEMBERED_MS);
      } catch {
        connection.destroy();
        remember(key, false, UNCLEAR_MS);
      } finally {
        underWay.delete(key);
      }
    },
    refute: (connection) => remember(connection.greeting, false, REMEMBERED_MS),
  };
}

const isEhloReply = (r: ParsedReply): boolean => r.code === 250 && parseCapabilities(r.lines).chunking;

/**
 * A BDAT without a transaction, whose six octets are a command, then RSET. EHLO comes last because its
 * reply can be told from all others: replies are counted by it, however late they come. Undefined where
 * the server is leaving and nothing was learnt. Rejects with `ConnectionLost`.
 */
async function probe(connection: UpstreamConnection): Promise<boolean | undefined> {
  let replies: readonly ParsedReply[];
  try {
    replies = await connection.flightUntil(
      [`BDAT 6 LAST\r\nNOOP\r\nRSET\r\nEHLO ${connection.heloName}\r\n`],
      (all) => all.length >= MAX_REPLIES || all.some(isEhloReply),
      PROBE_TIMEOUT_MS,
    );
  } catch (error) {
    if (error instanceof ConnectionLost && error.replies.some((r) => r.code === 421)) return undefined;
    throw error;
  }
  const [refusal, ...others] = replies;
  const last = others.at(-1);
  const isInStep =
    refusal !== undefined &&
    refusal.code >= 400 &&
    last !== undefined &&
    isEhloReply(last) &&
    others.every((r) => r.code === 250);
  // Two replies: RSET and EHLO. Three: the octets ran as NOOP, and we are still in step.
  if (isInStep && others.length === 2) return true;
  if (!isInStep || others.length !== 3) connection.destroy();
  return false;
}
