/** How long a silent provider is waited for, so that the client is answered before it gives up. */

/** Below the 5 min a client waits at RCPT (RFC 5321 §4.5.3.2.3), with room for a limit, a connection and a replay: we answer before it gives up. */
export const ENVELOPE_TIMEOUT_MS = 220_000;
/** Below the 10 min a client waits after its final dot (RFC 5321 §4.5.3.2.6). */
export const FINAL_TIMEOUT_MS = 570_000;
/** A chunk must be taken within this (RFC 5321 §4.5.3.2.5). */
export const CHUNK_TIMEOUT_MS = 180_000;
/** What is left of a wait at the least, however long the message has been waiting already. */
export const LEAST_MS = 20_000;
/** RSET ahead of a replay shows whether a connection still lives; nobody waits longer for it, nor for all that are asked together. */
export const ALIVE_TIMEOUT_MS = 5_000;
/** A verdict that is certain waits no longer for what is said behind it: the client waits for it. */
export const MARKER_TIMEOUT_MS = 5_000;
