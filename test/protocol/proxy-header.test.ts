import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseProxyHeader } from '../../src/protocol/proxy-header.ts';

const SIGNATURE = '0d0a0d0a000d0a515549540a';
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const text = (line: string): Buffer => Buffer.from(line, 'latin1');

const complete: readonly [octets: Buffer, source: string | undefined][] = [
  [text('PROXY TCP4 192.0.2.1 192.0.2.2 1 65535\r\n'), '192.0.2.1'],
  [text('PROXY TCP6 2001:db8::1 ::1 1 2\r\n'), '2001:db8::1'],
  [text('PROXY UNKNOWN\r\n'), undefined],
  [text('PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n'), undefined],
  [hex(`${SIGNATURE} 21 11 000c c0000201 c0000202 0001 0002`), '192.0.2.1'],
  [hex(`${SIGNATURE} 21 11 0010 c0000201 c0000202 0001 0002 04000100`), '192.0.2.1'],
  [
    hex(`${SIGNATURE} 21 21 0024 20010db8000000000000000000000001 ${'00'.repeat(16)} 0001 0002`),
    '2001:db8:0:0:0:0:0:1',
  ],
  [
    hex(`${SIGNATURE} 21 21 0024 00000000000000000000ffffc0000201 ${'00'.repeat(16)} 0001 0002`),
    '::ffff:192.0.2.1',
  ],
  [hex(`${SIGNATURE} 20 00 0000`), undefined],
  [hex(`${SIGNATURE} 20 11 000c 7f000001 7f000001 0001 0002`), undefined],
  [hex(`${SIGNATURE} 21 31 00d8 ${'61'.repeat(216)}`), undefined],
];

test('both versions are read, octet by octet, and not an octet too many', () => {
  for (const [octets, source] of complete) {
    const more = Buffer.concat([octets, text('EHLO x\r\n')]);
    assert.deepEqual(parseProxyHeader(more), { state: 'complete', length: octets.length, source });
    for (let length = 0; length < octets.length; length++) {
      const result = parseProxyHeader(octets.subarray(0, length));
      assert.ok(result.state === 'incomplete', `${octets.toString('latin1')} at ${length}`);
      assert.ok(result.needs > length && result.needs <= octets.length);
    }
  }
});

const invalid: readonly Buffer[] = [
  text('EHLO x\r\n'),
  text('P\n'),
  text('PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n'),
  text('proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n'),
  text('PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n'),
  text('PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n'),
  text('PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n'),
  text('PROXY TCP4 192.0.2.1\r\n'),
  text('PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n'),
  text(`PROXY TCP4 ${'1'.repeat(100)}\r\n`),
  text(`PROXY ${'x'.repeat(102)}`),
  hex(`${SIGNATURE} 11 11 000c c0000201 c0000202 0001 0002`),
  hex(`${SIGNATURE} 22 11 000c c0000201 c0000202 0001 0002`),
  hex(`${SIGNATURE} 21 12 000c c0000201 c0000202 0001 0002`),
  hex(`${SIGNATURE} 21 11 0004 c0000201`),
  hex(`${SIGNATURE} 21 11 ffff`),
  hex('0d0a0d0b'),
];

test('anything else is invalid', () => {
  for (const octets of invalid)
    assert.deepEqual(parseProxyHeader(octets), { state: 'invalid' }, octets.toString('latin1'));
});
