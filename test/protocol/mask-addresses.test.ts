import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { maskAddresses } from '../../src/protocol/mask-addresses.ts';
import { assertLinear } from '../support/cost.ts';

describe('maskAddresses', () => {
  for (const [text, masked] of [
    ['ann@example.com', '*@example.com'],
    ['', ''],
    ['The recipient address <bob.o@example.org> is wrong', 'The recipient address <*@example.org> is wrong'],
    ['a@b.example, c@d.example;e@f.example', '*@b.example, *@d.example;*@f.example'],
    ['löwe@münchen.example', '*@münchen.example'],
    ['odd@part@example.com', '*@example.com'],
    ['at @ alone and @handle', 'at @ alone and @handle'],
  ] as const) {
    it(`${JSON.stringify(text)} becomes ${JSON.stringify(masked)}`, () =>
      assert.equal(maskAddresses(text), masked));
  }

  it('takes a long hostile line in one go', async () => {
    await assertLinear('x', (size) => assert.equal(maskAddresses('x'.repeat(size)).length, size), 250_000);
    await assertLinear('x@', (size) => assert.equal(maskAddresses('x@'.repeat(size / 2)).length, 2), 250_000);
  });
});
