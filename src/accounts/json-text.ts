/**
 * JSON with positions. In: text of a file a person edits. Out: a tree whose nodes know where they stand,
 * so that an error can name line and column and an edit can leave the rest of the file as it was.
 * Pure; owns nothing. Errors never repeat the text: it holds secrets. RFC 8259.
 */
import { runAtOnce, runInSlices, type Slices } from '../slices.ts';

export interface JsonNode {
  readonly value: unknown;
  /** Offsets into the text: first character, and one past the last. */
  readonly start: number;
  readonly end: number;
  /** Elements of an array. */
  readonly items?: readonly JsonNode[];
  /** Members of an object, by key. */
  readonly members?: ReadonlyMap<string, JsonNode>;
}

/** The message holds line and column, from 1, and the cure. */
export class JsonSyntaxError extends Error {
  override readonly name = 'JsonSyntaxError';
  constructor(text: string, offset: number, what: string) {
    const { line, column } = positionAt(text, offset);
    super(`line ${line}, column ${column}: ${what}`);
  }
}

/** Line and column, both from 1, of an offset. */
const positionAt = (text: string, offset: number): { line: number; column: number } =>
  createLineIndex(text)(offset);

/** As `positionAt`, for many offsets of one text. */
export function createLineIndex(text: string): (offset: number) => { line: number; column: number } {
  const starts = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return (offset) => {
    let low = 0;
    let high = starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((starts[middle] ?? 0) <= offset) low = middle;
      else high = middle;
    }
    return { line: low + 1, column: offset - (starts[low] ?? 0) + 1 };
  };
}

/** Nesting beyond this is an error, not a stack overflow. */
const MAX_DEPTH = 100;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /[A-Za-z_$][\w$]*/y;
const WORDS = new Map<string, unknown>([
  ['true', true],
  ['false', false],
  ['null', null],
]);

/** Parses JSON text, a byte order mark allowed. Throws `JsonSyntaxError`. */
export const parseJsonText = (text: string): JsonNode => runAtOnce(parseSteps(text));

/** As `parseJsonText`, in slices: a file of 10,000 entries takes as long as many messages. */
export const parseJsonInSlices = (text: string, slices?: Slices): Promise<JsonNode> =>
  runInSlices(parseSteps(text), slices);

/** Lists this deep and above are read step by step: the file, its `accounts`. */
const STEP_DEPTH = 1;

function* parseSteps(text: string): Generator<undefined, JsonNode> {
  let at = text.startsWith('\ufeff') ? 1 : 0;

  const fail = (what: string, offset = at): never => {
    throw new JsonSyntaxError(text, offset, what);
  };
  const skipSpace = (): void => {
    while (' \t\r\n'.includes(text[at] ?? 'x')) at++;
    if (text.startsWith('//', at) || text.startsWith('/*', at))
      fail('JSON has no comments: remove it (a "comment" key is allowed in an account)');
  };
  const matched = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const [found] = pattern.exec(text) ?? [];
    if (found !== undefined) at += found.length;
    return found;
  };

  const readString = (): string => {
    const start = at++;
    while (at < text.length && text[at] !== '"') {
      if (text[at] === '\n') fail('the text that begins here is not closed: add a "', start);
      at += text[at] === '\\' ? 2 : 1;
    }
    if (at >= text.length) fail('the text that begins here is not closed: add a "', start);
    at++;
    try {
      return JSON.parse(text.slice(start, at)) as string;
    } catch {
      return fail('a wrong escape or control character in this text: write \\\\ for a backslash', start);
    }
  };

  /** Whether there is a first element; steps over the opening, and an end that follows at once. */
  const begins = (close: '}' | ']'): boolean => {
    at++;
    skipSpace();
    if (text[at] !== close) return true;
    at++;
    return false;
  };
  /** Whether another element follows; steps over the comma or the end. */
  const goesOn = (close: '}' | ']', start: number): boolean => {
    skipSpace();
    if (text[at] === close) {
      at++;
      return false;
    }
    if (at >= text.length) fail(`the ${text[start]} that begins here is not closed: add a ${close}`, start);
    if (text[at] !== ',') fail(`expected a comma or ${close}`);
    const comma = at++;
    skipSpace();
    if (text[at] === close) fail('a comma with nothing after it: remove the comma', comma);
    return true;
  };

  /** Up to the value of a member. */
  const readKey = (members: ReadonlyMap<string, JsonNode>): string => {
    if (text[at] !== '"') fail('expected a key in double quotes');
    const keyAt = at;
    const key = readString();
    if (members.has(key)) fail(`the key ${JSON.stringify(key)} stands twice in one object`, keyAt);
    skipSpace();
    if (text[at] !== ':') fail('expected a colon after the key');
    at++;
    skipSpace();
    return key;
  };
  const objectOf = (members: ReadonlyMap<string, JsonNode>, start: number): JsonNode => {
    const value: Record<string, unknown> = Object.create(null);
    for (const [key, node] of members) value[key] = node.value;
    return { value, start, end: at, members };
  };
  const arrayOf = (items: readonly JsonNode[], start: number): JsonNode => ({
    value: items.map((item) => item.value),
    start,
    end: at,
    items,
  });

  const readScalar = (): JsonNode => {
    const start = at;
    const first = text[at];
    if (first === '"') return { value: readString(), start, end: at };
    if (first === undefined) return fail('the file ends where a value was expected');
    if (first === "'") return fail('JSON wants double quotes');
    const number = matched(NUMBER);
    if (number !== undefined) return { value: Number(number), start, end: at };
    const word = matched(WORD);
    if (word !== undefined && WORDS.has(word)) return { value: WORDS.get(word), start, end: at };
    return fail('expected a value: text in double quotes, a number, true, false, null, { or [', start);
  };

  /** Of the outer values a step after each element. */
  function* readValue(depth: number): Generator<undefined, JsonNode> {
    if (depth > MAX_DEPTH) fail('nested too deeply');
    const start = at;
    if (text[at] === '{') {
      const members = new Map<string, JsonNode>();
      if (begins('}'))
        do members.set(readKey(members), yield* readValue(depth + 1));
        while (goesOn('}', start));
      return objectOf(members, start);
    }
    if (text[at] === '[') {
      const items: JsonNode[] = [];
      if (begins(']'))
        do {
          items.push(yield* readValue(depth + 1));
          if (depth <= STEP_DEPTH) yield;
        } while (goesOn(']', start));
      return arrayOf(items, start);
    }
    return readScalar();
  }

  skipSpace();
  const root = yield* readValue(0);
  skipSpace();
  if (at < text.length) fail('expected nothing more after the value');
  return root;
}

/** The node at a path of keys and indexes, or undefined. */
export function nodeAt(root: JsonNode, path: readonly PropertyKey[]): JsonNode | undefined {
  return path.reduce<JsonNode | undefined>(
    (node, step) => (typeof step === 'number' ? node?.items?.[step] : node?.members?.get(String(step))),
    root,
  );
}

/** `accounts[3].client_id` from `['accounts', 3, 'client_id']`. */
export function formatPath(path: readonly PropertyKey[]): string {
  return path
    .map((step, i) =>
      typeof step === 'number' ? `[${step}]` : `${i > 0 ? '.' : ''}${String(step).slice(0, 100)}`,
    )
    .join('');
}
