/**
 * Transparency of DATA (RFC 5321 §4.5.2) on buffers: a dot at the start of a line is doubled.
 * Only CRLF starts a line, so a bare LF never makes one. Pure; owns where the last chunk ended.
 */

/** Beyond so many dots in a chunk the rest is copied: slices of a few octets cost more than they save. */
const MAX_SLICES = 16;

const DOT = Buffer.from('.');
const LINE_DOT = Buffer.from('\r\n.');

/** How a body ends on the wire: `CRLF.CRLF`, without a second CRLF after a body that has one. */
const END_AFTER_LINE = Buffer.from('.\r\n');
const END_IN_LINE = Buffer.from('\r\n.\r\n');

export interface DotStuffer {
  /** The chunk with dots doubled, as slices of it where they are few. */
  push(chunk: Buffer): Buffer[];
  /** The terminator that fits what was pushed. */
  end(): Buffer;
}

export function createDotStuffer(): DotStuffer {
  /** The last one or two octets pushed: the start of the body counts as after CRLF. */
  let tail = '\r\n';
  return {
    push(chunk) {
      if (chunk.length === 0) return [];
      const out: Buffer[] = [];
      let from = 0;
      // A dot whose CRLF was (partly) in the chunk before; inside the chunk indexOf sees the rest.
      if (tail === '\r\n' && chunk[0] === 0x2e) out.push(DOT);
      else if (tail.endsWith('\r') && chunk[0] === 0x0a && chunk[1] === 0x2e) {
        out.push(chunk.subarray(0, 1), DOT);
        from = 1;
      }
      for (let at = chunk.indexOf(LINE_DOT, from); at >= 0; at = chunk.indexOf(LINE_DOT, from)) {
        if (out.length > 2 * MAX_SLICES) break;
        out.push(chunk.subarray(from, at + 2), DOT);
        from = at + 2;
      }
      const rest = from === 0 ? chunk : chunk.subarray(from);
      out.push(out.length > 2 * MAX_SLICES ? doubled(rest) : rest);
      tail =
        (chunk.length >= 2 ? '' : tail.slice(-1)) + chunk.toString('latin1', Math.max(0, chunk.length - 2));
      return out;
    },
    end: () => (tail === '\r\n' ? END_AFTER_LINE : END_IN_LINE),
  };
}

/** A whole body as it goes out after 354, its end included. */
export function stuffWhole(body: Buffer): Buffer {
  const stuffer = createDotStuffer();
  return Buffer.concat([...stuffer.push(body), stuffer.end()]);
}

/** All dots behind a CRLF doubled. A dot at the very start has been doubled by then. */
function doubled(text: Buffer): Buffer {
  return Buffer.from(text.toString('latin1').replaceAll('\r\n.', '\r\n..'), 'latin1');
}
