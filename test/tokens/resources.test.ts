/** Access tokens by account and resource: one refresh token serves all, one request at a time. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTokenService } from '../../src/tokens/token-service.ts';
import { waitFor } from '../support/wait-for.ts';
import { answerJson, createTestLog, entryFor, grant, startEndpoint } from './support.ts';

const GRAPH = 'https://graph.microsoft.com/Mail.Send offline_access';

test('each resource has a token of its own, from the refresh token that the last one brought', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (request, response) =>
    grant(response, {
      access_token: `for ${request.form.get('scope') ?? 'smtp'}`.replaceAll(' ', '_'),
      refresh_token: `rotated-${endpoint.requests.length}`,
    });
  const tokens = createTokenService({ log: createTestLog() });
  t.after(() => tokens.close());
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x', { scopes: { graph: GRAPH } })]);
  const [smtp, graph] = await Promise.all([tokens.get('a@x'), tokens.get('a@x', 'graph')]);
  assert.equal(endpoint.peak(), 1);
  assert.deepEqual(
    endpoint.requests.map(({ form }) => form.get('refresh_token')),
    ['refresh-of-a@x', 'rotated-1'],
  );
  assert.notEqual(smtp.reveal(), graph.reveal());
  assert.equal(tokens.peek('a@x'), smtp);
  assert.equal(tokens.peek('a@x', 'graph'), graph);
  const renewed = await tokens.renew('a@x', graph, 'graph');
  assert.equal(tokens.peek('a@x'), smtp, 'the other token is not concerned');
  assert.equal(tokens.peek('a@x', 'graph'), renewed);
  const rows = tokens.statusOf('a@x')?.resources.map((row) => [row.resource, row.cached]);
  assert.deepEqual(rows, [
    ['smtp', true],
    ['graph', true],
  ]);
  tokens.forget('a@x');
  assert.deepEqual([tokens.peek('a@x'), tokens.peek('a@x', 'graph')], [undefined, undefined]);
});

test('what is missing for one resource stops no other', async (t) => {
  const endpoint = await startEndpoint(t);
  endpoint.answer = (request, response) => {
    if (request.form.get('scope') === GRAPH) answerJson(response, 400, { error: 'invalid_scope' });
    else grant(response, { access_token: 'smtp' });
  };
  const tokens = createTokenService({ log: createTestLog() });
  t.after(() => tokens.close());
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x', { scopes: { graph: GRAPH } })]);
  await assert.rejects(tokens.get('a@x', 'graph'), { code: 'bad_request' });
  assert.equal((await tokens.get('a@x')).reveal(), 'smtp');
  await assert.rejects(tokens.get('a@x', 'imap'), { code: 'bad_request', message: /no scope for imap/ });
  assert.equal(tokens.statusOf('a@x')?.state.status, 'ready');
});

test('where the scope is the same, so is the token', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = createTokenService({ log: createTestLog() });
  t.after(() => tokens.close());
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x', { scopes: { imap: '' } })]);
  assert.equal(await tokens.get('a@x'), await tokens.get('a@x', 'imap'));
  assert.equal(endpoint.requests.length, 1);
});

test('the resources an account names are fetched ahead, and its state is theirs', async (t) => {
  const endpoint = await startEndpoint(t);
  const tokens = createTokenService({ log: createTestLog() });
  t.after(() => tokens.close());
  tokens.applyAccounts([entryFor(endpoint.url, 'a@x', { scopes: { graph: GRAPH }, ahead: ['graph'] })]);
  await tokens.precache();
  assert.equal(endpoint.requests.length, 1);
  assert.ok(tokens.peek('a@x', 'graph'));
  await waitFor(() => tokens.statusOf('a@x')?.state.status === 'ready', { what: 'ready' });
});
