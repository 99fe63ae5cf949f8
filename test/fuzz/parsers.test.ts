/**
 * The pure parsers under anything at all: random text, and the corpus with pieces cut, doubled, exchanged
 * and put together. None may throw what it does not announce, hang, or depend on how the octets are split.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AccountsFileError, parseAccounts } from '../../src/accounts/accounts-file.ts';
import { type BareLineEnds, createBodyDecoder } from '../../src/protocol/body-decoder.ts';
import { createDotStuffer } from '../../src/protocol/dot-stuffing.ts';
import { parseMailParameters, refusalOfRcptParameters } from '../../src/protocol/esmtp-parameters.ts';
import { parseFromAddresses } from '../../src/protocol/from-header.ts';
import { createHeaderCollector } from '../../src/protocol/header-section.ts';
import { parseHeader } from '../../src/protocol/message-header.ts';
import { parsePathArgument } from '../../src/protocol/path.ts';
import { countReceived } from '../../src/protocol/received.ts';
import { createReplyParser, parseReply, ReplySyntaxError } from '../../src/protocol/reply-parser.ts';
import { judgeTokenAnswer, refreshTokenIn } from '../../src/protocol/token-response.ts';
import { ACCOUNTS, BODIES, HEADERS, PARAMETERS, PATHS, REPLIES, SECRET, TOKEN_ANSWERS } from './corpus.ts';

const RUNS = { numRuns: Number(process.env.FUZZ_RUNS ?? 2_000) };

/** Corpus entries, whole and mangled, and anything else. */
function near(corpus: readonly string[]): fc.Arbitrary<string> {
  const whole = fc.constantFrom(...corpus);
  const piece = fc.tuple(whole, fc.nat(80), fc.nat(80)).map(([text, from, n]) => text.slice(from, from + n));
  const odd = fc.constantFrom(
    '\r\n',
    '\n',
    '\r',
    '.',
    ' ',
    '<',
    '>',
    '"',
    '\\',
    '\0',
    '\u212A',
    '\ud800',
    '9'.repeat(30),
  );
  const mangled = fc.array(fc.oneof(whole, piece, odd, fc.string({ unit: 'binary' })), { maxLength: 8 });
  return fc.oneof(
    whole,
    mangled.map((parts) => parts.join('')),
    fc.string({ unit: 'binary' }),
  );
}

/** Octets cut into chunks at places the property chooses. */
function split(octets: Buffer, cuts: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let at = 0;
  for (let i = 0; at < octets.length; i++) {
    const size = 1 + (cuts[i % Math.max(1, cuts.length)] ?? octets.length);
    chunks.push(octets.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

const cuts = fc.array(fc.nat(20), { maxLength: 5 });

test('replies: the same whatever the chunks, or a ReplySyntaxError', () => {
  const read = (chunks: readonly Buffer[]): unknown => {
    const parser = createReplyParser();
    const replies: unknown[] = [];
    try {
      for (const chunk of chunks) replies.push(...parser.feed(chunk));
    } catch (error) {
      assert.ok(error instanceof ReplySyntaxError, String(error));
      return 'no SMTP';
    }
    return replies;
  };
  fc.assert(
    fc.property(near(REPLIES), cuts, (text, at) => {
      const octets = Buffer.from(text);
      assert.deepEqual(read(split(octets, at)), read([octets]));
      const one = parseReply(text);
      if (one !== undefined) assert.ok(one.code >= 200 && one.code <= 599);
    }),
    RUNS,
  );
});

test('paths: an address without brackets and controls, or a refusal of class 5', () => {
  fc.assert(
    fc.property(near(PATHS), fc.constantFrom('MAIL', 'RCPT'), (text, command) => {
      const result = parsePathArgument(command, text);
      if ('code' in result) assert.match(String(result.code), /^5\d\d$/);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is what is tested
      else assert.doesNotMatch(result.address, /[<>\u0000-\u001f\u007f]/);
    }),
    RUNS,
  );
});

test('parameters: what passes on was given, and holds nothing that could end the command', () => {
  fc.assert(
    fc.property(fc.array(near(PARAMETERS), { maxLength: 5 }), (parameters) => {
      const result = parseMailParameters(parameters);
      if (!('code' in result))
        for (const passed of result.passed) {
          assert.ok(parameters.includes(passed));
          // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is what is tested
          assert.doesNotMatch(passed, /[\u0000-\u0020]/);
        }
      const refusal = refusalOfRcptParameters(parameters);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is what is tested
      if (refusal === undefined) for (const p of parameters) assert.doesNotMatch(p, /[\u0000-\u0020]/);
    }),
    RUNS,
  );
});

test('bodies: the same content, end and fault whatever the chunks', () => {
  const read = (chunks: readonly Buffer[], mode: BareLineEnds): unknown => {
    const decoder = createBodyDecoder(mode);
    const pieces: Buffer[] = [];
    let before = 0;
    for (const chunk of chunks) {
      const end = decoder.decode(chunk, 0, pieces);
      if (end >= 0) return { content: Buffer.concat(pieces), end: before + end, fault: decoder.fault() };
      before += chunk.length;
    }
    return { end: -1, fault: decoder.fault() };
  };
  fc.assert(
    fc.property(near(BODIES), cuts, fc.constantFrom('normalize', 'reject', 'pass'), (text, at, mode) => {
      const octets = Buffer.from(text, 'latin1');
      assert.deepEqual(read(split(octets, at), mode), read([octets], mode));
    }),
    RUNS,
  );
});

test('bodies: stuffed and unstuffed again they are what they were', () => {
  fc.assert(
    fc.property(near(BODIES), cuts, cuts, (text, at, again) => {
      const latin = Buffer.from(text, 'latin1').toString('latin1');
      const body = Buffer.from(`${latin.replace(/\r\n|\r|\n/g, '\r\n')}\r\n`, 'latin1');
      const stuffer = createDotStuffer();
      const wire = Buffer.concat(
        [...split(body, at).flatMap((chunk) => stuffer.push(chunk)), stuffer.end()].flat(),
      );
      const decoder = createBodyDecoder('reject');
      const pieces: Buffer[] = [];
      let before = 0;
      let end = -1;
      for (const chunk of split(wire, again)) {
        end = decoder.decode(chunk, 0, pieces);
        if (end >= 0) break;
        before += chunk.length;
      }
      assert.equal(before + end, wire.length);
      assert.deepEqual(Buffer.concat(pieces), body);
    }),
    RUNS,
  );
});

test('headers: addresses look like addresses; no text takes long', () => {
  fc.assert(
    fc.property(near(HEADERS), (text) => {
      for (const address of parseFromAddresses(text) ?? []) assert.match(address, /@[^\s"@]+$/);
      assert.ok(countReceived(text) >= 0);
    }),
    RUNS,
  );
});

test('headers: the same section whatever the chunks; its fields are its octets, in order', () => {
  const collect = (chunks: readonly Buffer[], most: number): unknown => {
    const collector = createHeaderCollector(most);
    for (const chunk of chunks) {
      const section = collector.push(chunk);
      if (section !== undefined) return { section, isTooLong: collector.isTooLong() };
    }
    return { section: collector.end(), isTooLong: collector.isTooLong() };
  };
  fc.assert(
    fc.property(near(HEADERS), cuts, fc.constantFrom(20, 1_000_000), (text, at, most) => {
      const message = Buffer.from(`${text}\r\nbody`, 'latin1');
      // Just at the limit it depends on the chunks whether the end is seen before the section is too long.
      fc.pre(Math.abs(message.indexOf('\r\n\r\n') - most) > 4);
      const whole = collect([message], most);
      assert.deepEqual(collect(split(message, at), most), whole);
      const { fields, end } = parseHeader(message);
      const raw = Buffer.from(fields.map((field) => field.raw).join(''), 'latin1');
      assert.deepEqual(raw, message.subarray(0, raw.length));
      assert.ok(raw.length <= end && !message.subarray(raw.length, end).includes('\r\n'));
    }),
    RUNS,
  );
});

test('token answers: a refresh token is kept, an access token can be sent, a secret is never repeated', () => {
  fc.assert(
    fc.property(
      near(TOKEN_ANSWERS),
      fc.constantFrom(200, 201, 302, 400, 401, 429, 500, 503),
      (body, status) => {
        const secret = 'refresh-token-of-the-request';
        const judged = judgeTokenAnswer({
          status,
          retryAfter: undefined,
          contentType: 'application/json',
          location: undefined,
          body: `${body}${body.length % 7 === 0 ? secret : ''}`,
          receivedAt: 0,
          secrets: [secret],
        });
        if (judged.ok) {
          assert.match(judged.grant.accessToken, /^[\x21-\x7e]+$/);
          assert.ok(judged.grant.lifetimeMs > 0);
        } else assert.ok(!JSON.stringify(judged.failure).includes(secret));
        const kept = refreshTokenIn(status, body);
        assert.ok(kept === undefined || (status < 300 && kept !== ''));
      },
    ),
    RUNS,
  );
});

test('accounts files: read with problems named, or an AccountsFileError; no secret in either', async () => {
  await fc.assert(
    fc.asyncProperty(near(ACCOUNTS), async (text) => {
      try {
        const file = await parseAccounts(text, { env: {}, directory: '/' });
        for (const { message } of file.problems) assert.ok(!message.includes(SECRET), message);
      } catch (error) {
        assert.ok(error instanceof AccountsFileError, String(error));
        assert.ok(!error.message.includes(SECRET), error.message);
      }
    }),
    { numRuns: Math.ceil((RUNS.numRuns ?? 0) / 10) },
  );
});
