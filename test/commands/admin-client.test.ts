import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { createAdminClient } from '../../src/commands/admin-client.ts';
import { loadSettings } from '../../src/config.ts';
import { type Defer, leakless } from '../support/leak-check.ts';

/** A client of something that answers `answer` to everything. */
async function clientOf(defer: Defer, status: number, answer: unknown) {
  const server = createServer((_request, response) => {
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
    response.end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  defer(() => new Promise<void>((resolve) => void server.close(() => resolve())));
  const { port } = server.address() as AddressInfo;
  return createAdminClient(await loadSettings({ flags: { adminPort: String(port) }, env: {} }));
}

const RELOADED = { ok: true, added: ['a@x'], changed: [], removed: [], untouched: [], errors: [] };

test(
  'keys of a later version are no trouble; an answer that lacks something is told, with the cure',
  leakless(async (_t, defer) => {
    const later = await clientOf(defer, 200, { ...RELOADED, later: 1 });
    assert.deepEqual((await later.reload()).added, ['a@x']);
    const { added: _, ...lacking } = RELOADED;
    const other = await clientOf(defer, 200, lacking);
    await assert.rejects(other.reload(), /does not understand \(added: .*another version\? restart it/);
  }),
);

test(
  "the relay's own error is told as it is",
  leakless(async (_t, defer) => {
    const client = await clientOf(defer, 400, { error: 'not like this' });
    await assert.rejects(client.accounts(), { message: 'not like this' });
  }),
);
