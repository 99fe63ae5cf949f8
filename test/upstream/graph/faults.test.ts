/**
 * Many messages through a Graph that fails in every way it is known to: each is delivered once. The
 * client retries as a mail server does, the relay is restarted in between. GRAPH_MESSAGES sets how many
 * (default 200), GRAPH_SEED the order of the faults.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '../../../src/log.ts';
import { KEEP_MS } from '../../../src/upstream/graph/ledger.ts';
import { createSweep } from '../../../src/upstream/graph/sweep.ts';
import { mailTo, startGraphRoom } from '../../support/graph-room.ts';
import type { GraphCallName, GraphFault } from '../../support/graph-server.ts';
import { leakless } from '../../support/leak-check.ts';

const MESSAGES = Number(process.env.GRAPH_MESSAGES ?? 200);
const SEED = Number(process.env.GRAPH_SEED ?? 1);
const MAILBOXES = 40;
const AT_ONCE = 24;
/** After so many rounds every message must have been taken. */
const ROUNDS = 40;
const HOUR_MS = 60 * 60_000;
/** Hourly looks, through the same faults. */
const SWEEPS = 20;
/** Share of requests that go wrong. */
const FAULTS: Readonly<Record<GraphCallName, number>> = {
  create: 0.15,
  send: 0.2,
  look: 0.1,
  search: 0.1,
  delete: 0.2,
  send_mail: 0,
};

/** mulberry32 */
function random(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function createFaults(dice: () => number): (call: GraphCallName) => GraphFault | undefined {
  const answers: readonly GraphFault['answer'][] = [
    { status: 504 },
    { status: 503, code: 'ErrorServerBusy' },
    { status: 500, code: 'UnknownError' },
    { status: 429, code: 'ApplicationThrottled', retryAfter: '1' },
    { status: 200 },
    { status: 202, retryAfter: '1' },
    'reset',
    'reset',
    'silence',
  ];
  return (call) => {
    if (dice() >= FAULTS[call]) return undefined;
    const answer = answers[Math.floor(dice() * answers.length)] ?? 'reset';
    // A 202 is only said of what is done.
    const isTaken = typeof answer === 'object' && 'status' in answer && answer.status === 202;
    const carriedOut = isTaken || dice() < 0.5;
    return { answer, carriedOut, ...(carriedOut && !isTaken && dice() < 0.3 ? { lateMs: 5 } : {}) };
  };
}

test(
  `${MESSAGES} messages under faults: none twice, none lost`,
  leakless(async (t, defer) => {
    const directory = await mkdtemp(join(tmpdir(), 'graph-faults-'));
    t.after(() => rm(directory, { recursive: true }));
    const dice = random(SEED);
    const room = await startGraphRoom(defer, {
      directory,
      record: false,
      rules: { hiddenMs: 5, chaos: createFaults(dice) },
      client: { answerMs: 5_000, uploadMs: 5_000 },
    });
    let waiting = Array.from({ length: MESSAGES }, (_, i) => i);
    const taken = new Set<string>();
    const startedAt = performance.now();
    for (let round = 0; round < ROUNDS && waiting.length > 0; round++) {
      const next: number[] = [];
      const queue = [...waiting];
      const work = async (): Promise<void> => {
        for (let i = queue.shift(); i !== undefined; i = queue.shift()) {
          const mailbox = `user${i % MAILBOXES}@example.com`;
          const result = await room.send(
            mailTo('bob@example.net', `m${i}`).replace('ann@example.com', mailbox),
            ['bob@example.net'],
            {
              mailbox,
              gone: () => dice() < 0.01,
            },
          );
          if (result.kind === 'taken') taken.add(`<m${i}@client.test>`);
          else {
            assert.ok(result.verdict.answer.code < 500, `bounced: ${result.verdict.answer.text}`);
            next.push(i);
          }
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      waiting = next;
      await room.restart();
    }
    const ms = performance.now() - startedAt;
    const left = room.server.drafts.length;
    // What could not be tidied up at once (three times, each of which may fail) is deleted by the hourly look.
    const sweep = createSweep({
      ledger: room.ledger,
      clientOf: room.clientOf,
      log: silentLog,
      clock: { ...room.clock, now: () => room.clock.now() + KEEP_MS + HOUR_MS },
    });
    let sweeps = 0;
    for (; sweeps < SWEEPS && room.server.drafts.length > 0; sweeps++) await sweep.run();
    sweep.close();
    const copies = new Map<string, number>();
    for (const { messageId = '' } of room.server.delivered)
      copies.set(messageId, (copies.get(messageId) ?? 0) + 1);
    const twice = [...copies].filter(([, n]) => n > 1).map(([id]) => id);
    const lost = [...taken].filter((id) => !copies.has(id));
    t.diagnostic(
      `${MESSAGES} messages, ${room.server.requests.length} requests, ${Math.round(ms)} ms, ${left} drafts left, ${room.server.drafts.length} after ${sweeps} hourly looks, ${twice.length} twice, ${lost.length} lost, ${waiting.length} not taken`,
    );
    assert.deepEqual({ twice, lost, notTaken: waiting }, { twice: [], lost: [], notTaken: [] });
    assert.equal(room.server.drafts.length, 0, 'drafts left over');
  }),
);
