import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { leakless } from '../support/leak-check.ts';
import { ANN } from '../support/relay-room.ts';
import type { Submission } from '../support/submission.ts';
import { waitFor, within } from '../support/wait-for.ts';
import { type Front, startFront } from './front.ts';

/** What a client does, in units; `text` goes out as it is, `message` as a whole transaction. */
type Step =
  | { readonly kind: 'text'; readonly text: string }
  | {
      readonly kind: 'message';
      readonly to: readonly number[];
      readonly size: number;
      readonly dots: boolean;
      /** With line ends that end nothing. */
      readonly bare: boolean;
    };

interface Plan {
  readonly steps: readonly Step[];
  /** Octets per write, cyclic. */
  readonly cuts: readonly number[];
  /** Where the client hangs up, as a part of the whole; 1 is the end. */
  readonly until: number;
  readonly how: 'fin' | 'reset' | 'quit';
}

const noise = fc.constantFrom(
  'NOOP\r\n',
  'RSET\r\n',
  'EHLO again.test\r\n',
  'HELO again.test\r\n',
  'VRFY x\r\n',
  'DATA\r\n',
  'RCPT TO:<early@example.net>\r\n',
  `MAIL FROM:<${ANN}>\r\n`,
  'MAIL FROM:<stranger@example.org>\r\n',
  `MAIL FROM:<${ANN}> SIZE=999999999999\r\n`,
  'AUTH PLAIN\r\n*\r\n',
  'AUTH LOGIN\r\n*\r\n',
  'STARTTLS\r\n',
  'garbage\r\n',
  '\r\n',
  '\n',
  '.\r\n',
  '\0\xff\r\n',
  `${'x'.repeat(20_000)}\r\n`,
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: noise.map((text): Step => ({ kind: 'text', text })) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('message' as const),
      to: fc.uniqueArray(fc.nat(9), { minLength: 1, maxLength: 4 }),
      size: fc.oneof(fc.nat(200), fc.nat(90_000), fc.constant(200_000)),
      dots: fc.boolean(),
      bare: fc.nat(5).map((n) => n === 0),
    }),
  },
);
const plan: fc.Arbitrary<Plan> = fc.record({
  steps: fc.array(step, { minLength: 1, maxLength: 8 }),
  cuts: fc.array(fc.oneof(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 500, max: 70_000 })), {
    minLength: 1,
    maxLength: 4,
  }),
  until: fc.oneof(
    { weight: 1, arbitrary: fc.constant(1) },
    { weight: 1, arbitrary: fc.nat(999).map((n) => n / 1000) },
  ),
  how: fc.constantFrom('fin', 'reset', 'quit'),
});

let serial = 0;

interface Sent {
  readonly id: string;
  readonly recipients: readonly string[];
  readonly content: string;
  readonly bare: boolean;
}

/** The octets of a plan and the messages in it, each with an id of its own in the body. */
function script(steps: readonly Step[]): { readonly wire: string; readonly sent: readonly Sent[] } {
  let wire = 'EHLO fuzz.test\r\n';
  const sent: Sent[] = [];
  for (const s of steps) {
    if (s.kind === 'text') {
      wire += s.text;
      continue;
    }
    const id = `id-${++serial}-`;
    const recipients = s.to.map((n) => `r${n}.${id}@example.net`);
    const line = s.dots
      ? '..dotted line of text\r\n.\t\r\n'
      : 'a line of text that is longer than the other\r\n';
    const trap = s.bare ? 'a\n.\r\nb\r.\rc\n.\nd\r\n' : '';
    const content = `Subject: ${id}\r\n\r\n${trap}${line.repeat(Math.ceil(s.size / line.length))}`;
    sent.push({ id, recipients, content, bare: s.bare });
    const stuffed = content.replace(/(^|\r\n)\./g, '$1..');
    wire += `RSET\r\nMAIL FROM:<${ANN}>\r\n${recipients.map((r) => `RCPT TO:<${r}>\r\n`).join('')}`;
    wire += `DATA\r\n${stuffed}.\r\n`;
  }
  return { wire, sent };
}

/** Sends the plan and collects every octet of the answer until the connection is over. */
async function run(
  port: number,
  p: Plan,
): Promise<{ readonly heard: string; readonly sent: readonly Sent[] }> {
  const { wire, sent } = script(p.steps);
  const octets = Buffer.from(p.how === 'quit' && p.until === 1 ? `${wire}QUIT\r\n` : wire, 'latin1');
  const end = Math.floor(octets.length * p.until);
  const socket: Socket = connect({ host: '127.0.0.1', port, noDelay: true, allowHalfOpen: true });
  let heard = '';
  socket.on('data', (chunk) => {
    heard += chunk.toString('latin1');
  });
  socket.on('error', () => {});
  const over = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.once('end', () => socket.end());
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
  for (let at = 0, i = 0; at < end && socket.writable; i++) {
    const next = Math.min(end, at + (p.cuts[i % p.cuts.length] ?? end));
    await new Promise<void>((resolve) => socket.write(octets.subarray(at, next), () => resolve()));
    // A few octets at a time is slow on the wire as well; after some of them the rest goes at once.
    at = i > 60 ? Math.min(end, at + 70_000) : next;
    if (i > 60 && at > next) {
      await new Promise<void>((resolve) => socket.write(octets.subarray(next, at), () => resolve()));
    }
  }
  if (p.how === 'reset') socket.resetAndDestroy();
  else socket.end();
  await within(over, 20_000, 'the end of the connection');
  return { heard, sent };
}

/** `250` replies to a body carry the provider's words, which no other reply does. */
const PROVIDER_OK = /^250 2\.0\.0 OK {2}\d/gm;

async function settled(front: Front): Promise<void> {
  await waitFor(() => front.listener.counts().sessions === 0, { what: 'no session left' });
  await waitFor(() => front.provider.submissions.every((s) => s.outcome !== undefined));
}

/** Each message upstream is one that was sent, once and with its own envelope, or one that the noise began. */
function checkTaken(taken: readonly Submission[], all: readonly Sent[], mayBeBare: boolean): void {
  const byContent = new Map(all.map((one) => [one.content, one]));
  const seen = new Set<string>();
  for (const message of taken) {
    const content = message.body.toString('latin1');
    const origin = byContent.get(content);
    const recipients = message.recipients.map((r) => r.address);
    assert.equal(message.sender, ANN);
    if (origin === undefined) assert.deepEqual([...new Set(recipients)], ['early@example.net']);
    else {
      assert.deepEqual(recipients, origin.recipients);
      assert.ok(mayBeBare || !origin.bare, `${origin.id} has bare line ends`);
      assert.ok(!seen.has(origin.id), `${origin.id} went out twice`);
      seen.add(origin.id);
    }
  }
}

for (const [chunking, bareLineEnds] of [
  [true, 'reject'],
  [false, 'pass'],
  [false, 'normalize'],
] as const) {
  test(
    `whatever clients do: every 250 is one message upstream with its own envelope (${chunking ? 'BDAT' : 'DATA'}, ${bareLineEnds})`,
    leakless(async (_t, defer) => {
      const front = await startFront(defer, {
        account: { chunking, messages_per_minute: 100_000, max_connections: 4 },
        settings: { bareLineEnds, limits: { maxBadCommands: 50 } },
      });
      const everything: Sent[] = [];
      await fc.assert(
        fc.asyncProperty(fc.array(plan, { minLength: 1, maxLength: 3 }), async (plans) => {
          const before = front.provider.messages.length;
          const results = await Promise.all(plans.map((p) => run(front.port, p)));
          await settled(front);
          const taken = front.provider.messages.slice(before);
          const all = results.flatMap((r) => r.sent);
          everything.push(...all);
          checkTaken(taken, all, bareLineEnds === 'pass');
          const acknowledged = results.flatMap((r) => r.heard.match(PROVIDER_OK) ?? []).length;
          assert.ok(acknowledged <= taken.length, `${acknowledged} acknowledged, ${taken.length} upstream`);
          const isComplete = plans.every((p, i) => {
            return p.until === 1 && p.how !== 'reset' && results[i]?.heard.includes('\r\n421 ') === false;
          });
          if (isComplete) assert.equal(acknowledged, taken.length);
        }),
        { seed: 20_261_121, numRuns: 150, interruptAfterTimeLimit: 60_000 },
      );
      assert.equal(front.listener.counts().heldBytes, 0);
      assert.ok(
        front.provider.messages.length > 20,
        `${front.provider.messages.length} messages got through`,
      );
      // Still alive and well; what may have been delivered behind a check's back is there by now.
      const last = await run(front.port, {
        steps: [{ kind: 'message', to: [1], size: 10, dots: false, bare: false }],
        cuts: [70_000],
        until: 1,
        how: 'quit',
      });
      assert.match(last.heard, PROVIDER_OK);
      checkTaken(front.provider.messages, [...everything, ...last.sent], bareLineEnds === 'pass');
    }),
  );
}
