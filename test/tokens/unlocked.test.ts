import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Credential, Secret } from '../../src/accounts/credential.ts';
import type { Grant } from '../../src/tokens/grant.ts';
import { mayAskAlone } from '../../src/tokens/unlocked.ts';
import { refreshCredential } from './support.ts';

const grant = (more: Partial<Grant> = {}): Grant => ({
  accountId: 'a@x',
  fingerprint: 'f',
  state: 'original',
  refreshToken: undefined,
  obtainedAt: undefined,
  generation: 0,
  signedInAs: undefined,
  signedInAt: undefined,
  seenAt: 500,
  failedSaves: 0,
  isHere: false,
  spare: undefined,
  ...more,
});
const google = refreshCredential('https://oauth2.googleapis.com/token', 'a@x');
const microsoft = refreshCredential('https://login.microsoftonline.com/common/oauth2/v2.0/token', 'a@x');
const application: Credential = {
  grant: 'client_credentials',
  tokenUrl: microsoft.tokenUrl,
  scope: '',
  safetyBufferMs: 1,
  clientId: 'c',
  clientSecret: new Secret('s'),
};

const ROWS: readonly [what: string, Credential, Grant, aloneSince: number | undefined, may: boolean][] = [
  ['an application', application, grant(), undefined, true],
  ['Google, never another refresh token', google, grant(), undefined, true],
  ['Google, but one came', google, grant({ state: 'kept', generation: 1 }), undefined, false],
  ['Google, but one came and is unsaved', google, grant({ state: 'unsaved' }), undefined, false],
  ['another endpoint, others there', microsoft, grant(), undefined, false],
  ['alone, and read since', microsoft, grant(), 400, true],
  ['alone, and read at that moment', microsoft, grant(), 500, true],
  ['alone, but read while others were there', microsoft, grant(), 501, false],
  ['alone, but never read', microsoft, grant({ seenAt: undefined }), 0, false],
];

for (const [what, credential, of, aloneSince, may] of ROWS)
  test(`without the store: ${what}: ${may ? 'asked' : 'waits'}`, () => {
    assert.equal(mayAskAlone(credential, of, aloneSince), may);
  });
