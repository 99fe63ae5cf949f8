import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGuard, type GuardOptions } from '../../src/admin/guard.ts';

const secret = (text: string) => ({ reveal: () => text });
const HERE: GuardOptions = { host: '127.0.0.1' };
const THERE: GuardOptions = { host: '0.0.0.0', tokenWrite: secret('write-me'), tokenRead: secret('read-me') };
const basic = (password: string): string => `Basic ${Buffer.from(`admin:${password}`).toString('base64')}`;

describe('guard', () => {
  const cases: readonly [string, GuardOptions, string, Record<string, string>, number | undefined][] = [
    ['a plain request on loopback', HERE, 'GET', { host: '127.0.0.1:9090' }, undefined],
    ['localhost through a forwarded port', HERE, 'GET', { host: 'localhost:8080' }, undefined],
    ['a name below localhost', HERE, 'GET', { host: 'a.localhost:9090' }, undefined],
    ['IPv6', HERE, 'GET', { host: '[::1]:9090' }, undefined],
    ['no Host', HERE, 'GET', {}, 400],
    ['a Host that is none', HERE, 'GET', { host: 'a b' }, 400],
    ['user information in Host', HERE, 'GET', { host: 'localhost@evil.example' }, 400],
    ['a rebound name', HERE, 'GET', { host: 'evil.example:9090' }, 403],
    ['a rebound name that looks local', HERE, 'GET', { host: 'localhost.evil.example' }, 403],
    [
      'a name that was allowed',
      { ...HERE, allowedHosts: ['Relay.Example'] },
      'GET',
      { host: 'relay.example' },
      undefined,
    ],
    [
      'a POST from the page itself',
      HERE,
      'POST',
      { host: 'localhost:9090', origin: 'http://localhost:9090', 'sec-fetch-site': 'same-origin' },
      undefined,
    ],
    [
      'a POST from another page',
      HERE,
      'POST',
      { host: 'localhost:9090', origin: 'https://evil.example' },
      403,
    ],
    [
      'a POST from another port',
      HERE,
      'POST',
      { host: 'localhost:9090', origin: 'http://localhost:3000' },
      403,
    ],
    [
      'a POST from a page of another kind',
      HERE,
      'POST',
      { host: 'localhost:9090', origin: 'ftp://localhost:9090' },
      403,
    ],
    ['a POST from a sandboxed page', HERE, 'POST', { host: 'localhost:9090', origin: 'null' }, 403],
    [
      'a DELETE from another site without Origin',
      HERE,
      'DELETE',
      { host: 'localhost:9090', 'sec-fetch-site': 'cross-site' },
      403,
    ],
    ['a POST from the shell', HERE, 'POST', { host: 'localhost:9090' }, undefined],
    ...(
      [
        ['an image on another page', { 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' }, 403],
        ['a fetch of another page', { 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'empty' }, 403],
        ['a frame of another page', { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe' }, 403],
        ['a link', { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }, undefined],
      ] as const
    ).flatMap(([name, headers, status]) =>
      ['cross-site', 'same-site'].map((site): (typeof cases)[number] => [
        `${name}, ${site}`,
        HERE,
        'GET',
        { host: 'localhost:9090', 'sec-fetch-site': site, ...headers },
        status,
      ]),
    ),
    [
      'a HEAD from another page',
      HERE,
      'HEAD',
      { host: 'localhost:9090', 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' },
      403,
    ],
    [
      'the stream of the page itself',
      HERE,
      'GET',
      { host: 'localhost:9090', 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors' },
      undefined,
    ],
    ['a GET from another page', HERE, 'GET', { host: 'localhost:9090', origin: 'https://evil.example' }, 403],
    ['no token elsewhere', THERE, 'GET', { host: 'relay.example' }, 401],
    ['a wrong token', THERE, 'GET', { host: 'relay.example', authorization: 'Bearer nope' }, 401],
    ['the beginning of a token', THERE, 'GET', { host: 'relay.example', authorization: 'Bearer write' }, 401],
    ['an empty token', THERE, 'GET', { host: 'relay.example', authorization: 'Bearer ' }, 401],
    [
      'the writing token',
      THERE,
      'POST',
      { host: 'relay.example', authorization: 'Bearer write-me' },
      undefined,
    ],
    [
      'the scheme in capitals',
      THERE,
      'POST',
      { host: 'relay.example', authorization: 'BEARER write-me' },
      undefined,
    ],
    [
      'the reading token',
      THERE,
      'GET',
      { host: 'relay.example', authorization: 'Bearer read-me' },
      undefined,
    ],
    [
      'the reading token, acting',
      THERE,
      'POST',
      { host: 'relay.example', authorization: 'Bearer read-me' },
      403,
    ],
    [
      'the reading token, deleting',
      THERE,
      'DELETE',
      { host: 'relay.example', authorization: 'Bearer read-me' },
      403,
    ],
    [
      'a browser that asked for the password',
      THERE,
      'GET',
      { host: 'relay.example', authorization: basic('read-me') },
      undefined,
    ],
    [
      'a browser on another page with the password remembered',
      THERE,
      'POST',
      { host: 'relay.example', authorization: basic('write-me'), origin: 'https://evil.example' },
      403,
    ],
    ['another scheme', THERE, 'GET', { host: 'relay.example', authorization: 'Digest write-me' }, 401],
    ['a token set on loopback', { ...HERE, tokenWrite: secret('w') }, 'GET', { host: 'localhost' }, 401],
  ];
  for (const [what, options, method, headers, status] of cases) {
    it(`${status === undefined ? 'lets pass' : `answers ${status} to`} ${what}`, () => {
      const refusal = createGuard(options)({ method, header: (name) => headers[name] });
      assert.equal(refusal?.status, status);
      assert.ok(!JSON.stringify(refusal ?? {}).includes('-me'));
    });
  }

  it('does not start beyond loopback without a token', () => {
    for (const host of ['0.0.0.0', '::', '192.0.2.1']) {
      assert.throws(() => createGuard({ host }), /not loopback/);
    }
  });
});
