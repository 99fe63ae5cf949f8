/**
 * What goes over the wire, whole: one file of test/dialogues for each face of the provider, compared
 * exactly, so that every change on the wire is seen in review. An empty line begins a flight. Written
 * anew with `UPDATE_DIALOGUES=1 npm test -- upstream/dialogues`.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { type Defer, leakless } from '../support/leak-check.ts';
import { repositoryRoot } from '../support/relay-process.ts';
import { ANN, mailOf, type Room, type RoomOptions, startRoom } from '../support/relay-room.ts';
import { waitFor } from '../support/wait-for.ts';

const DIRECTORY = join(repositoryRoot, 'test/dialogues');

/** Ids, times and host names of one run. */
const unnamed = (line: string): string =>
  Buffer.from(line, 'latin1')
    .toString()
    .replace(/[0-9a-f]{13}-[0-9a-f]{11}sm\d+ad\.83/g, '<id>')
    .replace(/(OK {2})\d{10}\b/g, '$1<time>')
    .replace(/<[0-9a-f-]{36}@/g, '<<id>@')
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
    .replace(/ready at .* \[/, 'ready at <time> [')
    .replace(/[0-9A-F]{16}\]/g, '<sid>]')
    .replace(/\.prod\.outlook\.com|\.PROD\.OUTLOOK\.COM/g, '')
    .trimEnd();

const faces: Readonly<Record<string, RoomOptions>> = {
  gmail: {},
  microsoft: { provider: { flavour: 'microsoft' } },
  'microsoft-chunking': { provider: { flavour: 'microsoft' }, account: { chunking: true } },
  'pipelining-only': { provider: { rules: { withhold: ['CHUNKING'] } } },
  'lock-step': { provider: { rules: { withhold: ['CHUNKING', 'PIPELINING'] } } },
  'runs-refused-chunks': { provider: { rules: { refusedChunk: 'run' } } },
};

interface Scenario {
  readonly name: string;
  /** Whole connections are shown, the way to AUTH included. */
  readonly isCold?: boolean;
  /** Written as it comes: where a flight begins is a matter of time. */
  readonly isStream?: boolean;
  readonly options?: RoomOptions;
  play(room: Room, pass: (ms: number) => void): Promise<unknown>;
}

const scenarios: readonly Scenario[] = [
  { name: 'cold start and QUIT', isCold: true, play: async (room) => room.upstreams.close() },
  {
    name: 'a refused token, then a good one',
    isCold: true,
    options: { warm: false },
    async play(room) {
      room.provider.smtp.script('AUTH', {}, { reply: '535 5.7.8 Username and Password not accepted' });
      assert.equal((await room.send()).final?.code, 250);
    },
  },
  { name: 'one recipient', play: (room) => room.send() },
  { name: 'two messages in a row', play: async (room) => [await room.send(), await room.send()] },
  { name: 'an empty message', play: (room) => room.send({ body: Buffer.alloc(0) }) },
  { name: 'three recipients that come together', play: (room) => room.send({ to: THREE, together: true }) },
  { name: 'three recipients one by one', play: (room) => room.send({ to: THREE }) },
  {
    name: 'three recipients, the first refused, together',
    async play(room) {
      room.provider.smtp.script('RCPT', { line: /ann@/ }, { reply: '550 5.1.1 no such user' });
      await room.send({ to: THREE, together: true });
    },
  },
  {
    name: 'first_recipient live',
    options: { account: { first_recipient: 'live' } },
    play: (room) => room.send(),
  },
  {
    name: 'a body that streams',
    isStream: true,
    play: (room) => room.send({ body: Array.from({ length: 10 }, () => mailOf(64 * 1024)) }),
  },
  {
    name: 'SMTPUTF8 and SIZE',
    play: (room) =>
      room.send({ to: ['pelé@example.net'], mailParameters: ['SMTPUTF8', 'BODY=8BITMIME', 'SIZE=24'] }),
  },
  {
    name: 'DSN',
    play: (room) => room.send({ mailParameters: ['RET=HDRS', 'ENVID=x1'] }),
  },
  ...(['MAIL', 'RCPT', 'end-of-data'] as const).map((stage) => ({
    name: `refused at ${stage}, and the next message`,
    async play(room: Room) {
      room.provider.smtp.script(stage, {}, { reply: '550 5.7.1 not this one' });
      assert.equal((await room.send()).final?.code, 550);
      await waitFor(() => room.upstreams.status(ANN)?.counts.idle === 1);
      assert.equal((await room.send()).final?.code, 250);
    },
  })),
  {
    name: 'RSET after two recipients, and the next message',
    async play(room) {
      const { transaction } = await room.mail();
      await transaction?.rcpt([{ address: 'a@x.net', parameters: [] }]);
      await transaction?.rcpt([{ address: 'b@x.net', parameters: [] }]);
      transaction?.abort();
      await room.send();
    },
  },
  {
    name: 'two minutes idle',
    async play(room, pass) {
      pass(120_000);
      await room.send();
    },
  },
  {
    name: 'closed for idleness with the answer to the next command',
    async play(room) {
      room.provider.smtp.disturb('next-command');
      assert.equal((await room.send()).final?.code, 250);
    },
  },
];
const THREE = ['ann@example.net', 'bob@example.net', 'eve@example.net'];

async function play(defer: Defer, face: string, scenario: Scenario): Promise<string[]> {
  let passed = 0;
  const clock = { ...systemClock, monotonic: () => systemClock.monotonic() + passed };
  const of = faces[face] ?? {};
  const room = await startRoom(defer, {
    ...of,
    ...scenario.options,
    account: { ...of.account, ...scenario.options?.account, max_connections: 1 },
    open: { clock },
  });
  const { sessions } = room.provider.smtp;
  const seen = sessions.map((s) => s.dialogue.length);
  await scenario.play(room, (ms) => {
    passed += ms;
  });
  const lines: string[] = [];
  for (const [i, session] of sessions.entries()) {
    if (i > 0) lines.push('', '(another connection)');
    const start = scenario.isCold === true ? 0 : (seen[i] ?? afterLogin(session.dialogue));
    lines.push(...session.dialogue.slice(start).map(unnamed));
  }
  return scenario.isStream === true ? lines.filter((line) => line !== '') : lines;
}

/** Where the first command after AUTH and EHLO begins. */
const afterLogin = (dialogue: readonly string[]): number => {
  const at = dialogue.findIndex((line) => /^C: (RSET )?MAIL/.test(line));
  return at < 0 ? dialogue.length : at - 1;
};

for (const face of Object.keys(faces)) {
  test(
    `dialogues with a provider that is ${face}`,
    leakless(async (_t, defer) => {
      const parts: string[] = [];
      for (const scenario of scenarios) {
        const lines = await play(defer, face, scenario);
        parts.push(`== ${scenario.name}\n${lines.join('\n').replace(/^\n+/, '')}\n`);
      }
      const text = parts.join('\n');
      const file = join(DIRECTORY, `${face}.txt`);
      if (process.env.UPDATE_DIALOGUES === '1') {
        mkdirSync(DIRECTORY, { recursive: true });
        writeFileSync(file, text);
      }
      assert.equal(text, readFileSync(file, 'utf8'));
    }),
  );
}
