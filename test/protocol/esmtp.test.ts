import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCapabilities } from '../../src/protocol/capabilities.ts';
import { fitParameters } from '../../src/protocol/esmtp.ts';

test('a lone ORCPT is dropped where the upstream lacks DSN, one that asks for something is refused', () => {
  const without = parseCapabilities(['x', 'PIPELINING']);
  const withDsn = parseCapabilities(['x', 'DSN']);
  const lone = ['ORCPT=rfc822;b@y.test'];
  assert.deepEqual(fitParameters(lone, without), { parameters: [] });
  assert.deepEqual(fitParameters(lone, withDsn), { parameters: lone });
  const asking = fitParameters([...lone, 'NOTIFY=SUCCESS'], without);
  assert.ok('refusal' in asking && asking.refusal.code === 555);
});
