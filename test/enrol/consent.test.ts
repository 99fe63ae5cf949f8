/** What a person is asked to consent to, and for what the code is redeemed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { builtInProviders } from '../../src/accounts/providers.ts';
import { consentOf } from '../../src/enrol/consent.ts';

const profile = (name: string) => {
  const found = builtInProviders.get(name);
  assert(found !== undefined);
  return found;
};
const SMTP = 'https://outlook.office.com/SMTP.Send offline_access';
const email = 'a@example.com';

test('reading by IMAP is asked for beside sending, never in its place', () => {
  const { scope, tokenScope } = consentOf(profile('outlook'), { email, imap: true });
  assert.equal(scope, `${SMTP} https://outlook.office.com/IMAP.AccessAsUser.All`);
  assert.equal(tokenScope, SMTP, 'the code brings the token that mail leaves with');
  const graph = consentOf(profile('outlook'), { email, imap: true, transport: 'graph' });
  assert.match(graph.scope ?? '', /Mail\.Send .*IMAP\.AccessAsUser\.All/);
  assert.doesNotMatch(graph.tokenScope ?? '', /IMAP/);
  const us = consentOf(profile('outlook-us'), { email, imap: true });
  assert.match(us.scope ?? '', /outlook\.office365\.us\/IMAP\.AccessAsUser\.All/);
});

test('a personal account has no mailbox of another person, whatever its sign-in name', () => {
  const consent = { email, transport: 'graph', user: 'other@example.com' };
  assert.match(consentOf(profile('outlook'), consent).scope ?? '', /Mail\.Send\.Shared/);
  assert.doesNotMatch(consentOf(profile('outlook-personal'), consent).scope ?? '', /Shared/);
});

test('where one scope is enough for both nothing more is asked; where nobody knows one, that is said', () => {
  assert.deepEqual(consentOf(profile('gmail'), { email, imap: true }), {});
  assert.deepEqual(consentOf(profile('outlook'), { email }), {});
  assert.throws(() => consentOf(profile('yandex'), { email, imap: true }), /name it with imap_scope/);
  assert.deepEqual(consentOf(profile('yandex'), { email, imap: true, imapScope: 'mail:imap_full' }), {
    scope: 'mail:smtp mail:imap_full',
    tokenScope: 'mail:smtp',
  });
});
