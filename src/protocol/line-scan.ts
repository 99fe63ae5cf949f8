/**
 * Looks through a body for the first octet that is not plain text in lines ended by CRLF. In: a chunk.
 * Out: an index. Nearly every octet of every message passes here, so it is done 16 at a time in
 * WebAssembly (SIMD, in every V8 of Node 20 on x64 and arm64); where that is missing, line by line.
 */

/** What is used of it: TypeScript has it among the types of browsers only. */
declare const WebAssembly:
  | {
      validate(octets: Uint8Array): boolean;
      readonly Module: new (octets: Uint8Array) => object;
      readonly Instance: new (module: object) => { readonly exports: Exports };
    }
  | undefined;

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly first: (at: number, end: number) => number;
}

const CR = 0x0d;
const LF = 0x0a;
const DOT = 0x2e;

/**
 * The index of the first octet from `from` on that is a LF without CR before it, the octet behind a CR
 * that no LF follows, or a dot that begins a line; the chunk's length where there is none. A CR as the
 * last octet is none of these. `isLineStart`: a line begins at `from`; else the octet before it is taken for text.
 */
export type OddOctetSearch = (chunk: Buffer, from: number, isLineStart: boolean) => number;

/** Octets looked at in one call; more than a read of a socket. */
const WINDOW = 128 * 1024 - 32;

/**
 * (func $first (param $at i32) (param $end i32) (result i32)): the octet before the first one stands at
 * address 0. What lies behind `$end` may be reported, as an index that is not below it.
 */
const MODULE = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...[0x01, 0x07, 0x01, 0x60, 0x02, 0x7f, 0x7f, 0x01, 0x7f], // (type (func (param i32 i32) (result i32)))
  ...[0x03, 0x02, 0x01, 0x00], // (func (type 0))
  ...[0x05, 0x03, 0x01, 0x00, 0x02], // (memory 2)
  ...[0x07, 0x12, 0x02, 0x06, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 0x02, 0x00], // (export "memory" (memory 0))
  ...[0x05, 0x66, 0x69, 0x72, 0x73, 0x74, 0x00, 0x00], // (export "first" (func 0))
  ...[0x0a, 0x6e, 0x01, 0x6c], // the code section of one body
  ...[0x02, 0x05, 0x7b, 0x01, 0x7f], // (local $p v128 $v v128 $lf v128 $cr v128 $dot v128 $mask i32)
  ...[0x41, LF, 0xfd, 0x0f, 0x21, 0x04], // $lf = i8x16.splat 10
  ...[0x41, CR, 0xfd, 0x0f, 0x21, 0x05], // $cr = i8x16.splat 13
  ...[0x41, DOT, 0xfd, 0x0f, 0x21, 0x06], // $dot = i8x16.splat 46
  ...[0x02, 0x40, 0x03, 0x40], // block, loop
  ...[0x20, 0x00, 0x20, 0x01, 0x4f, 0x0d, 0x01], //   leave where $at >= $end
  ...[0x20, 0x00, 0xfd, 0x00, 0x00, 0x00, 0x21, 0x02], //   $p = the octets before
  ...[0x20, 0x00, 0xfd, 0x00, 0x00, 0x01, 0x21, 0x03], //   $v = the octets
  ...[0x20, 0x03, 0x20, 0x04, 0xfd, 0x23], //   $v == $lf
  ...[0x20, 0x02, 0x20, 0x05, 0xfd, 0x23, 0xfd, 0x51], //   xor $p == $cr
  ...[0x20, 0x02, 0x20, 0x04, 0xfd, 0x23], //   $p == $lf
  ...[0x20, 0x03, 0x20, 0x06, 0xfd, 0x23, 0xfd, 0x4e], //   and $v == $dot
  ...[0xfd, 0x50, 0xfd, 0x64, 0x22, 0x07], //   or; $mask = i8x16.bitmask
  ...[0x04, 0x40, 0x20, 0x00, 0x20, 0x07, 0x68, 0x6a, 0x0f, 0x0b], //   if $mask return $at + ctz $mask
  ...[0x20, 0x00, 0x41, 0x10, 0x6a, 0x21, 0x00, 0x0c, 0x00], //   $at += 16; again
  ...[0x0b, 0x0b, 0x20, 0x01, 0x0b], // end, end, $end
);

export const findOddOctet: OddOctetSearch = bySimd() ?? byLines;

function bySimd(): OddOctetSearch | undefined {
  if (typeof WebAssembly === 'undefined' || !WebAssembly.validate(MODULE)) return undefined;
  const { memory, first } = new WebAssembly.Instance(new WebAssembly.Module(MODULE)).exports;
  const octets = new Uint8Array(memory.buffer);
  return (chunk, from, isLineStart) => {
    octets[0] = isLineStart ? LF : 0;
    for (let at = from; at < chunk.length; ) {
      const count = Math.min(WINDOW, chunk.length - at);
      octets.set(count === chunk.length ? chunk : chunk.subarray(at, at + count), 1);
      const found = first(0, count);
      if (found < count) return at + found;
      at += count;
      octets[0] = chunk[at - 1] as number;
    }
    return chunk.length;
  };
}

/** The same with nothing but what every JavaScript has. */
export function byLines(chunk: Buffer, from: number, isLineStart: boolean): number {
  const { length } = chunk;
  if (isLineStart && chunk[from] === DOT) return from;
  // Not looked for again in every line: a body without any CR would be searched to its end each time.
  let cr = indexOrEnd(chunk, CR, from);
  for (let at = from; at < length; ) {
    const lf = indexOrEnd(chunk, LF, at);
    if (cr < at) cr = indexOrEnd(chunk, CR, at);
    if (cr + 1 < lf) return cr + 1;
    if (cr + 1 > lf) return lf;
    at = lf + 1;
    if (chunk[at] === DOT) return at;
  }
  return length;
}

export function indexOrEnd(chunk: Buffer, octet: number, from: number): number {
  const found = chunk.indexOf(octet, from);
  return found < 0 ? chunk.length : found;
}
