/**
 * No text from outside may cost more than linear time: every regular expression of the relay is run on
 * hostile strings of 100 kB, found by reading the sources, so that a new one is tried as well.
 * Judged is the ratio when the string doubles, not the clock.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { repositoryRoot } from './support/relay-process.ts';

/** Runs in the browser on what the relay has cleaned. */
const ELSEWHERE = /^admin\/dashboard\//;

const LONGEST = 100_000;
/** Below this a time is noise: a quadratic pattern is far above it at the longest. */
const NOISE_MS = 8;
/** At four times the length linear takes 4 times as long, quadratic 16 times. */
const MAX_RATIO = 9;

const LITERAL =
  /(?<=[=(,:!&|?[{};\n]\s*|\breturn\s+|=>\s*)\/(?![*/])((?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+)\/([dgimsuvy]*)(?=\s*[,.;)\]}\n])/g;

const source = join(repositoryRoot, 'src');
const patterns = readdirSync(source, { recursive: true })
  .map(String)
  .filter((path) => path.endsWith('.ts') && !ELSEWHERE.test(path))
  .flatMap((path) => {
    const lines = readFileSync(join(source, path), 'utf8').replace(/^\s*(?:\*|\/\/|\/\*).*$/gm, '');
    return [...lines.matchAll(LITERAL)].map(([, body = '', flags = '']) => ({
      path,
      pattern: new RegExp(body, flags.includes('g') ? flags : `${flags}g`),
    }));
  });

/** Strings to repeat: what the pattern itself speaks of, and what usually makes one stumble. */
function pumpsFor({ source: body }: RegExp): readonly string[] {
  const words = body.match(/[A-Za-z0-9@<>"'.:;,=(){}_-]{2,}/g) ?? [];
  return [
    ...new Set([
      ...words,
      ...[
        ' ',
        '\t',
        '\r\n',
        '\n ',
        '\n',
        '\r',
        'a',
        'A',
        '0',
        '.',
        '-',
        '@',
        '<',
        '>',
        '"',
        '\\',
        '(',
        ')',
        '[',
        ',',
      ],
      ...[
        ';',
        ':',
        '=',
        '/',
        '_',
        '+',
        '%',
        '\u0000',
        '\u00e9',
        'a@',
        'a ',
        'a.',
        '<a',
        '"a',
        'a=',
        '1.',
        'From:',
        '(\\',
        '"\\',
        '<\\',
        '[\\',
        '\\a',
        '=?',
        '(a',
      ],
    ]),
  ];
}

/** CPU time of finding all matches, ms: a busy machine does not count. */
function costOf(pattern: RegExp, text: string): number {
  const before = process.cpuUsage();
  pattern.lastIndex = 0;
  for (let at = 0; pattern.test(text); at = pattern.lastIndex)
    if (pattern.lastIndex === at) pattern.lastIndex += 1;
  return process.cpuUsage(before).user / 1000;
}

/** How many times more it costs at four times the length, where that can be told from noise. */
function growth(pattern: RegExp, prefix: string, pump: string): number {
  const textOf = (length: number): string => `${prefix}${pump.repeat(Math.ceil(length / pump.length))}\u0001`;
  // What is slow at a quarter already is not tried at its full length.
  const length = costOf(pattern, textOf(LONGEST / 4)) > 5 * NOISE_MS ? LONGEST / 4 : LONGEST;
  const [long, short] = [textOf(length), textOf(length / 4)];
  let ratio = Number.POSITIVE_INFINITY;
  // What was stretched by something else is not stretched three times.
  for (let i = 0; i < 3 && ratio > MAX_RATIO; i++) {
    const whole = costOf(pattern, long);
    ratio = whole < NOISE_MS ? 0 : whole / costOf(pattern, short);
  }
  return ratio;
}

/** The first string on which the pattern costs more than linear time. */
function slowOn(pattern: RegExp): string | undefined {
  const lead = /[A-Za-z<"(@[]{1,12}/.exec(pattern.source)?.[0] ?? '';
  for (const pump of pumpsFor(pattern))
    for (const prefix of pattern.source.startsWith('^') ? ['', lead] : ['']) {
      const ratio = growth(pattern, prefix, pump);
      if (ratio > MAX_RATIO) return `${JSON.stringify(prefix + pump)}: ${ratio.toFixed(1)}`;
    }
  return undefined;
}

test('every pattern that sees text from outside costs linear time', () => {
  const once = new Map(patterns.map((entry) => [String(entry.pattern), entry]));
  const slow = [...once.values()].flatMap(({ path, pattern }) => {
    const on = slowOn(pattern);
    return on === undefined ? [] : [`${path} ${pattern} on ${on}`];
  });
  assert.deepEqual(slow, []);
});
