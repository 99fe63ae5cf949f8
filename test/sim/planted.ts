/** Faults to be planted in the compiled product, to see that the simulation finds them. Data only. */

import type { Focus } from './focus.ts';

export interface Planted {
  readonly name: string;
  /** What it does to people. */
  readonly harm: string;
  /** In compiled text: each `find` occurs in `file` at least once, white space apart, and all of them are replaced. */
  readonly edits: readonly { readonly file: string; readonly find: string; readonly put: string }[];
  /** Worlds in which it can show. */
  readonly stores: string;
  /** Worlds that press on its place; undefined: any. */
  readonly focus?: Focus;
  /** It is found within so many runs from seed 1. */
  readonly within: number;
}

const LOOKED = 'await mailbox.look(draft, until, refusal === undefined ? settleOf(answer) : 0);';
const LOOK = { file: 'upstream/graph/delivery.js', find: `const seen = ${LOOKED}` };

/** Answers to a send after which Graph may have sent it or not. */
const UNCLEAR: Readonly<Record<string, string>> = {
  'a 504': 'answer.refusal?.status === 504',
  'a 429': 'answer.refusal?.status === 429',
  'a reset': "answer.code === 'ECONNRESET'",
  'a 200': 'answer.refusal?.status === 200',
};

/** After this answer to a send it is not looked whether it was carried out. */
const unlooked = (name: string, condition: string, is: 'draft' | 'sent', harm: string): Planted => ({
  name,
  harm: `it is not looked whether Graph has sent it: ${harm}`,
  edits: [{ ...LOOK, put: `const seen = ${condition} ? { is: '${is}' } : ${LOOKED}` }],
  stores: 'memory,file',
  focus: 'graph',
  within: 100,
});

export const PLANTED: readonly Planted[] = [
  {
    name: 'the lost recipient',
    harm: 'one that the provider refuses hears 250 and gets nothing',
    edits: [
      {
        file: 'upstream/smtp-delivery.js',
        find: 'if (isPositive(reply)) return inKnownCode(reply);',
        put: "if (reply.code > 0) return { code: 250, enhanced: '2.1.5', text: 'ok' };",
      },
      {
        file: 'upstream/smtp-delivery.js',
        find: 'if (told.length > this.#confirmed.length) this.#release();',
        put: '',
      },
    ],
    stores: 'memory,file',
    within: 400,
  },
  {
    name: 'a promise after a question',
    harm: 'one that comes after others were refused hears 250 and is not in the envelope',
    edits: [
      { file: 'relay/transaction-states.js', find: '? LIVE', put: '? START' },
      {
        file: 'upstream/smtp-delivery.js',
        find: 'if (told.length > this.#confirmed.length) this.#release();',
        put: '',
      },
    ],
    stores: 'memory,file',
    focus: 'recipients',
    within: 100,
  },
  {
    name: 'a refusal of RSET taken for the verdict',
    harm: 'a provider that is tired of the connection bounces a message it was not asked about',
    edits: [{ file: 'upstream/submission.js', find: 'if (isTemporary(first))', put: 'if (true)' }],
    stores: 'memory,file',
    focus: 'resets',
    within: 50,
  },
  {
    name: 'connections counted by account',
    harm: 'while an account is renamed its mailbox has more connections than the provider takes',
    edits: [
      {
        file: 'upstream/account-upstream.js',
        find: 'deps.connectionsOf(mailbox)',
        put: 'deps.connectionsOf(id)',
      },
    ],
    stores: 'memory,file',
    focus: 'renames',
    within: 50,
  },
  {
    name: 'a replay after the final octet',
    harm: 'a message that the provider took without a word goes out again',
    edits: [{ file: 'upstream/talk.js', find: '!event.finalByteSent &&', put: '' }],
    stores: 'memory,file',
    within: 400,
  },
  {
    name: 'a limiter in wall time',
    harm: 'a clock that steps lets too many through, or keeps mail waiting for an hour',
    edits: [{ file: 'relay/limits.js', find: 'clock.monotonic()', put: 'clock.now()' }],
    stores: 'memory,file',
    within: 400,
  },
  {
    name: 'a lease that is not given back',
    harm: 'after a failure the connection counts as busy for ever',
    edits: [{ file: 'upstream/smtp-delivery.js', find: 'on?.lease.release();', put: '' }],
    stores: 'memory,file',
    within: 50,
  },
  {
    name: 'a lock extended too late',
    harm: 'while an answer is slow another relay asks as well, and the provider takes both refresh tokens',
    edits: [{ file: 'tokens/store-redis.js', find: 'lockMs / 3', put: 'lockMs * 1.5' }],
    stores: 'redis',
    focus: 'slow tokens',
    within: 6,
  },
  {
    name: 'an answer shifted by one',
    harm: 'a reply that nobody asked for is taken for the next one, and so on: 250 for a message that was refused',
    edits: [
      {
        file: 'upstream/connection.js',
        find: 'replies = this.#parser.feed(chunk);',
        put: 'replies = [...(this.early ?? []), ...this.#parser.feed(chunk)]; this.early = [];',
      },
      {
        file: 'upstream/connection.js',
        find: 'if (flight === undefined) {',
        put: 'if (flight === undefined) { this.early.push(reply); continue; }\n            if (flight === undefined) {',
      },
      // It would show by what answers the EHLO behind a body.
      { file: 'upstream/submission.js', find: 'this.#checkMarker(reply, replies[stages.length]);', put: '' },
    ],
    stores: 'memory,file',
    focus: 'extra replies',
    within: 400,
  },
  {
    name: 'a lost waiter',
    harm: 'a connection comes back and whoever waits for it is not told',
    edits: [
      {
        file: 'upstream/pool.js',
        find: "keep(place, connection, as !== 'unused'); serve();",
        put: "keep(place, connection, as !== 'unused');",
      },
    ],
    stores: 'memory,file',
    focus: 'waiters',
    within: 150,
  },
  {
    name: 'two refreshes',
    harm: 'one refresh token is used twice at once, and a provider that revokes the old one takes both',
    edits: [
      {
        file: 'tokens/token-service.js',
        find: 'if (slot.flight !== undefined) return',
        put: 'if (false) return',
      },
      { file: 'tokens/grant-turns.js', find: 'let hasTurn = isFree;', put: 'let hasTurn = true;' },
      {
        file: 'tokens/grant-turns.js',
        find: 'if (!isFree && line.lateUntil === undefined)',
        put: 'if (false)',
      },
    ],
    stores: 'memory,file',
    within: 400,
  },
  {
    name: '`invalid_grant` believed at once',
    harm: 'a relay that could not hear of a rotation has a person sign in for a grant that lives',
    edits: [
      {
        file: 'tokens/disbelief.js',
        find: "if (failure.kind !== 'needs_consent' || !isShared) return failure;",
        put: 'return failure;',
      },
    ],
    stores: 'redis',
    focus: 'grants without Redis',
    within: 10,
  },
  {
    name: 'a reload that closes a busy connection',
    harm: 'an edit of the accounts file makes the outcome of messages under way unknown, and some come twice',
    edits: [
      {
        file: 'upstream/upstream.js',
        find: 'current.update(account);',
        put: '{ current.update(account); current.pool.cut(); }',
      },
    ],
    stores: 'memory,file',
    focus: 'reloads',
    within: 10,
  },
  {
    name: 'a draft sent again without a look',
    harm: 'Graph has sent it and only its answer was lost: everybody gets it twice',
    edits: [
      {
        file: 'upstream/graph/delivery.js',
        find: 'await mailbox.look(draft, until, refusal === undefined ? settleOf(answer) : 0);',
        put: "{ is: 'draft' };",
      },
    ],
    stores: 'memory,file',
    within: 100,
  },
  ...Object.entries(UNCLEAR).flatMap(([answer, condition]) => [
    unlooked(`a draft sent again after ${answer}`, condition, 'draft', 'everybody gets it twice'),
    unlooked(`a 250 after ${answer}`, condition, 'sent', 'nobody gets it'),
  ]),
  {
    name: 'a 202 with Retry-After taken for a refusal',
    harm: 'Graph has sent it and wants the next one to wait: everybody gets it twice',
    edits: [
      {
        file: 'upstream/graph/client.js',
        find: 'if (answer.status === spec.wanted) {',
        put: 'if (answer.status === spec.wanted && (answer.status !== 202 || retryAfterMs === undefined)) {',
      },
      { ...LOOK, put: `const seen = answer.refusal?.status === 202 ? { is: 'draft' } : ${LOOKED}` },
    ],
    stores: 'memory,file',
    focus: 'graph',
    within: 100,
  },
  {
    name: 'any success taken for the wanted one',
    harm: 'Graph says 200 for what it has not done (too large a message): nobody gets it',
    edits: [
      {
        file: 'upstream/graph/client.js',
        find: 'if (answer.status === spec.wanted) {',
        put: 'if (answer.status >= 200 && answer.status < 300) {',
      },
    ],
    stores: 'memory,file',
    focus: 'graph',
    within: 100,
  },
  {
    name: 'a lost request taken for one that was never sent',
    harm: 'drafts that Graph has made and nobody knows of stay in the mailbox for ever',
    edits: [{ file: 'http.js', find: 'maybeSent: isBegun', put: 'maybeSent: false' }],
    stores: 'file',
    focus: 'graph',
    within: 100,
  },
  {
    name: 'a draft that is not found taken for an unsent one',
    harm: 'for a while after the send Graph says 404: everybody gets it twice',
    edits: [
      {
        file: 'upstream/graph/mailbox-search.js',
        find: "if (now - missingSince >= MISSING_MS) return { is: 'unclear', why };",
        put: "return { is: 'draft' };",
      },
    ],
    stores: 'memory,file',
    focus: 'graph',
    within: 100,
  },
  {
    name: 'a draft that nobody noted taken for its own',
    harm: 'a device gives all it says one Message-ID: one message is lost, another goes out twice',
    edits: [
      {
        file: 'upstream/graph/mailbox-search.js',
        find: "(await find(outgoing, 'drafts'))?.own.find(",
        put: "(await find(outgoing, 'drafts'))?.nobodys.find(",
      },
    ],
    stores: 'memory,file',
    focus: 'graph devices',
    within: 100,
  },
  {
    name: 'what a device says again taken for a retry',
    harm: 'it hears 250 and the message is not sent',
    edits: [{ file: 'upstream/graph/ledger.js', find: 'subject|date|', put: 'subject|' }],
    stores: 'memory,file',
    focus: 'graph again',
    within: 20,
  },
  {
    name: 'more than four requests at once',
    harm: 'Graph throttles a mailbox by our own doing',
    edits: [{ file: 'upstream/graph/pacing.js', find: 'AT_ONCE = 4;', put: 'AT_ONCE = 8;' }],
    stores: 'memory,file',
    focus: 'graph',
    within: 100,
  },
  {
    name: 'a draft sent before it is noted',
    harm: 'the relay ends before Graph has answered, and the next one knows nothing: everybody gets it twice',
    edits: [
      {
        file: 'upstream/graph/delivery.js',
        find: 'await claim.note(entry); } catch { // It may have been noted all the same',
        put: '} catch { // It may have been noted all the same',
      },
    ],
    stores: 'file',
    focus: 'graph and kills',
    within: 100,
  },
  {
    name: 'the retry by SMTP not compared',
    harm: 'an account is taken off Graph while a message of it is unclear: everybody gets it twice',
    edits: [
      {
        file: 'upstream/graph/guarded-way.js',
        find: 'if (!mayBeKnown) return delivery;',
        put: 'return delivery;',
      },
    ],
    stores: 'memory,file',
    focus: 'graph and back',
    within: 100,
  },
  {
    name: 'a journal that is not synced',
    harm: 'after a power cut nobody knows which drafts were sent: everybody gets them twice',
    edits: [
      { file: 'upstream/graph/ledger-local.js', find: 'if (isSynced) await file.datasync();', put: '' },
    ],
    stores: 'file',
    focus: 'graph and kills',
    within: 100,
  },
  {
    name: 'a journal whose name is not synced',
    harm: 'after a power cut the journal is the one before the last start: everybody gets messages twice',
    edits: [
      {
        file: 'upstream/graph/ledger-local.js',
        find: 'await directory.sync()',
        put: 'await Promise.resolve()',
      },
    ],
    stores: 'file',
    focus: 'graph and kills',
    within: 200,
  },
];
