/** What a new sign-in from the dashboard or an invitation asks for. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readAccountsFile } from '../../src/accounts/accounts-file.ts';
import { draftOf } from '../../src/enrol/draft.ts';

test('consent to IMAP is asked for again where the entry names its scope', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'draft-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'accounts.json');
  const entry = { provider: 'yandex', client_id: 'c', client_secret: 's', refresh_token: 'r' };
  writeFileSync(
    path,
    JSON.stringify([
      { ...entry, email: 'reads@yandex.com', imap_scope: 'mail:imap_full' },
      { ...entry, email: 'sends@yandex.com' },
    ]),
    { mode: 0o600 },
  );
  const { accounts } = await readAccountsFile(path, {});
  const scopes = await Promise.all(
    accounts.map(async (loaded) => (await draftOf(path, loaded.account.id, loaded)).target.scope),
  );
  assert.deepEqual(scopes, ['mail:smtp mail:imap_full', undefined]);
});
