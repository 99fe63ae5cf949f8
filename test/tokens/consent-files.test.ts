import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { silentLog } from '../../src/log.ts';
import { createConsentFiles } from '../../src/tokens/consent-files.ts';
import type { Grant } from '../../src/tokens/grant.ts';
import { createGrantFiles } from '../../src/tokens/grant-files.ts';
import { createProcesses } from '../../src/tokens/process-mark.ts';
import { stateFiles } from '../../src/tokens/state-files.ts';

const grantOf = (id: string) => ({ fingerprint: `of ${id}` }) as Grant;

test('whose an unreadable file is is known without a name made of every account each time', async () => {
  const clock = systemClock;
  const files = { ...stateFiles, list: async () => [] };
  const grantFiles = createGrantFiles('/state', {
    files,
    sealer: undefined,
    processes: createProcesses(),
    clock,
    log: silentLog,
    isOwner: true,
  });
  let asked = 0;
  const pathOf = (id: string): string => {
    asked += 1;
    return grantFiles.pathOf(id);
  };
  const consents = createConsentFiles('/state', { files, grantFiles: { ...grantFiles, pathOf }, clock });
  const ids = Array.from({ length: 100 }, (_, i) => `u${i}@x`);
  consents.serves(new Map(ids.map((id) => [id, { grant: grantOf(id) }])));
  for (const id of ids) assert.equal(await consents.of(grantFiles.pathOf(id)), grantOf(id).fingerprint);
  assert.equal(await consents.of(join('/state', 'nobody.grant')), undefined);
  assert.ok(asked <= ids.length, String(asked));
});
