/** The answers of the running relay against the shapes that declare them: a fake backend cannot drift unseen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type OpenApi, openApi } from '../../src/admin/openapi.ts';
import { OPERATIONS } from '../../src/admin/operations.ts';
import { SHAPES, type ShapeName } from '../../src/admin/shapes.ts';
import { sendMail } from '../support/dialogue.ts';
import { leakless } from '../support/leak-check.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';
import { schemaFaults } from '../support/schema-check.ts';
import { waitFor } from '../support/wait-for.ts';

const ANN = 'ann@gmail.example';
const BEN = 'ben@gmail.example';
/** What is sent to operations that take something. */
const BODIES: Readonly<Partial<Record<ShapeName, object>>> = {
  LogLevel: { level: 'info' },
  NewAccount: { email: 'new@gmail.example', provider: 'gmail', way: 'browser' },
  SignInWay: { way: 'device' },
  Pasted: { url: 'http://127.0.0.1/?code=c&state=s' },
  GivenToken: { access_token: 'abc', expires_in: 60 },
};
const described: OpenApi = openApi('x');

test(
  'every answer and event of the running relay is as described',
  leakless(async (_t, defer) => {
    const provider = await startProvider({ users: [ANN, BEN] });
    defer(() => provider.close());
    const relay = await startRelay({
      accounts: [
        ...[ANN, BEN].map((user) => provider.entry(user)),
        // Cannot be used: its rows have to be whole all the same.
        { email: 'dora@gmail.example', provider: 'no-such-provider' },
      ],
      caFile: provider.caFile,
    });
    defer(() => relay.stop());
    const base = `http://127.0.0.1:${relay.adminPort}`;
    const stream = new AbortController();
    defer(() => stream.abort());
    const events: string[] = [];
    const reading = (async () => {
      const answer = await fetch(`${base}/admin/events`, { signal: stream.signal });
      let text = '';
      for await (const chunk of answer.body ?? []) {
        text += Buffer.from(chunk).toString();
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          events.push(text.slice(0, end));
          text = text.slice(end + 2);
        }
      }
    })().catch(() => undefined);
    await waitFor(() => events.some((event) => event.startsWith('event: snapshot')));
    await sendMail(relay.smtpPort, { from: ANN });
    provider.smtp.script(
      'end-of-data',
      { user: BEN, times: 1 },
      { reply: '550 5.4.5 Daily user sending limit exceeded. \u001b[2J' },
    );
    await sendMail(relay.smtpPort, { from: BEN }).catch(() => undefined);

    const { accounts } = (await (
      await fetch(`${base}/admin/accounts?search=BEN&status=throttled`)
    ).json()) as {
      accounts: { id: string; cause: string; cure: string }[];
    };
    assert.deepEqual(
      accounts.map(({ id, cause }) => [id, cause]),
      [[BEN, 'daily-limit']],
    );

    for (const { method, path, answers, takes } of OPERATIONS) {
      if (path === '/admin/events' || path === '/metrics') continue;
      const body = takes === undefined ? undefined : JSON.stringify(BODIES[takes]);
      const answer = await fetch(base + path.replace('{id}', encodeURIComponent(BEN)), {
        method: method.toUpperCase(),
        ...(body === undefined ? {} : { body, headers: { 'content-type': 'application/json' } }),
      });
      const shape = answers[answer.status]?.[1];
      assert.ok(shape !== undefined, `${method} ${path}: ${answer.status}`);
      const json: unknown = await answer.json();
      if (!(shape in SHAPES)) continue;
      const schema = { $ref: `#/components/schemas/${shape}` };
      assert.deepEqual(schemaFaults(json, schema, described.components.schemas), [], `${method} ${path}`);
      assert.ok(SHAPES[shape as keyof typeof SHAPES].safeParse(json).success, `${method} ${path}`);
      assert.doesNotMatch(JSON.stringify(json), /\\u001b/);
    }

    const EVENT_SHAPES: Readonly<Record<string, string>> = {
      snapshot: 'Snapshot',
      account: 'Account',
      transaction: 'Transaction',
      rate: 'Rate',
      reload: 'Reload',
      breakers: 'Breakers',
    };
    await waitFor(() =>
      ['transaction', 'account', 'rate', 'reload'].every((name) =>
        events.some((e) => e.startsWith(`event: ${name}\n`)),
      ),
    );
    for (const event of events) {
      const [, name = '', data = ''] = /^event: (\w+)\n(?:.*\n)*?data: (.*)$/s.exec(event) ?? [];
      const shape = EVENT_SHAPES[name];
      if (shape === undefined) continue;
      const faults = schemaFaults(
        JSON.parse(data),
        { $ref: `#/components/schemas/${shape}` },
        described.components.schemas,
      );
      assert.deepEqual(faults, [], name);
    }
    stream.abort();
    await reading;
  }),
);
