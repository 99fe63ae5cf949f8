/** What an endpoint repeats of a request stands in no message: whoever was invited reads them, and the log keeps them. */
import assert from 'node:assert/strict';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { Secret } from '../../src/accounts/credential.ts';
import { builtInProviders } from '../../src/accounts/providers.ts';
import { beginBrowserSignIn, type SignInTarget, signInWithDevice } from '../../src/enrol/sign-in.ts';
import { type Defer, leakless } from '../support/leak-check.ts';

const CLIENT_SECRET = 'GOCSPX-q7+Zk2/Wm=9 Rv4Tx';
const DEVICE_CODE = 'DVX-5190382764';
const CODE = '4/0Ab q8+Yd3Jf6Ns1';

/** How an endpoint or a gateway before it repeats a form. */
const ECHOES: Readonly<Record<string, (response: ServerResponse, form: string) => void>> = {
  'in the description': (response, form) =>
    json(response, 400, { error: 'invalid_client', error_description: `bad request: ${form}` }),
  'in the description, decoded': (response, form) =>
    json(response, 400, {
      error: 'invalid_client',
      error_description: [...new URLSearchParams(form)].map((pair) => pair.join(' is ')).join(', '),
    }),
  'far behind in the description': (response, form) =>
    json(response, 400, { error: 'invalid_client', error_description: `${'x '.repeat(120)}${form}` }),
  'as the code': (response, form) => json(response, 400, { error: form }),
  'as text': (response, form) => void response.writeHead(400).end(form),
  'as what should be JSON': (response, form) =>
    void response.writeHead(200, { 'content-type': 'application/json' }).end(form),
  'in JSON that is broken': (response, form) =>
    void response.writeHead(200, { 'content-type': 'application/json' }).end(`{"asked":"${form}"`),
};

function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

async function startEndpoint(
  echo: (response: ServerResponse, form: string) => void,
  defer: Defer,
): Promise<{ readonly target: SignInTarget; readonly asked: URLSearchParams[] }> {
  const asked: URLSearchParams[] = [];
  const server = createServer(async (request, response) => {
    let form = '';
    for await (const chunk of request) form += String(chunk);
    response.setHeader('connection', 'close');
    if (request.url === '/device')
      return json(response, 200, {
        device_code: DEVICE_CODE,
        user_code: 'ABCD-1234',
        verification_uri: 'https://login.example/device',
        expires_in: 30,
        interval: 0.05,
      });
    asked.push(new URLSearchParams(form));
    echo(response, form);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  defer(() => server.close());
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const urls = {
    tokenUrl: `${origin}/token`,
    authorizeUrl: `${origin}/authorize`,
    deviceUrl: `${origin}/device`,
  };
  return {
    asked,
    target: {
      profile: { ...(builtInProviders.get('outlook') ?? assert.fail()), ...urls },
      tenant: undefined,
      clientId: 'the-client',
      clientSecret: new Secret(CLIENT_SECRET),
      email: 'ann@example.com',
    },
  };
}

/** Six characters of a secret are no chance. */
function assertKeepsSecret(message: string, secret: string): void {
  for (const spelled of [
    secret,
    encodeURIComponent(secret),
    new URLSearchParams({ s: secret }).toString().slice(2),
  ])
    for (let at = 0; at + 6 <= spelled.length; at += 1)
      assert.ok(!message.includes(spelled.slice(at, at + 6)), `${spelled.slice(at, at + 6)} in ${message}`);
}

for (const [how, echo] of Object.entries(ECHOES)) {
  test(
    `a sign-in by device whose request comes back ${how} tells neither client secret nor device code`,
    leakless(async (_t, defer) => {
      const { target, asked } = await startEndpoint(echo, defer);
      const failure = await signInWithDevice(target, () => {}).catch((error: Error) => error);
      assert.ok(failure instanceof Error);
      assert.equal(asked[0]?.get('device_code'), DEVICE_CODE);
      assert.equal(asked[0]?.get('client_secret'), CLIENT_SECRET);
      for (const secret of [CLIENT_SECRET, DEVICE_CODE]) assertKeepsSecret(failure.message, secret);
    }),
  );

  test(
    `a sign-in by browser whose request comes back ${how} tells neither client secret, code nor verifier`,
    leakless(async (_t, defer) => {
      const { target, asked } = await startEndpoint(echo, defer);
      const page = await beginBrowserSignIn(target, 'http://127.0.0.1:1/');
      const redirect = new URL('http://127.0.0.1:1/');
      redirect.search = new URLSearchParams({ state: page.state, code: CODE }).toString();
      const failure = await page.finish(redirect).catch((error: Error) => error);
      assert.ok(failure instanceof Error);
      assert.equal(asked[0]?.get('code'), CODE);
      const verifier = asked[0]?.get('code_verifier') ?? '';
      assert.notEqual(verifier, '');
      for (const secret of [CLIENT_SECRET, CODE, verifier]) assertKeepsSecret(failure.message, secret);
    }),
  );
}

test(
  'of what an endpoint says all else is told',
  leakless(async (_t, defer) => {
    const { target } = await startEndpoint(
      (response, form) =>
        json(response, 400, { error: 'invalid_client', error_description: `no such client in ${form}` }),
      defer,
    );
    await assert.rejects(
      signInWithDevice(target, () => {}),
      /invalid_client \(no such client in .*client_id=the-client/,
    );
  }),
);
