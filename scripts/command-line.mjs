/**
 * What a script of this repository is asked for. In: its help, its options and words. Out: their values. `--help` prints
 * the help and ends; what is wrong is one line and exit code 2. Plain JavaScript without dependencies, because some
 * scripts run before any of them is there.
 */
import { parseArgs } from 'node:util';

/**
 * @template {NonNullable<import('node:util').ParseArgsConfig['options']>} [const O={}]
 * @param {string} script as in package.json
 * @param {string} help
 * @param {O} [options] as Node's parser takes them
 * @param {RegExp} [words] what may stand beside the options; default nothing
 * @returns {{ values: ReturnType<typeof parseArgs<{ options: O }>>['values'], words: string[] }}
 */
export function readCommandLine(script, help, options, words) {
  const { values, positionals } = parse(script, { ...options, help: { type: 'boolean', short: 'h' } });
  if (values.help === true) {
    process.stdout.write(help);
    process.exit(0);
  }
  const unknown = positionals.find((word) => !words?.test(word));
  if (unknown !== undefined) wrongUsage(script, `Unknown word '${unknown}'`);
  return { values: /** @type {any} */ (values), words: positionals };
}

/** @type {(script: string, options: import('node:util').ParseArgsConfig['options']) => ReturnType<typeof parseArgs>} */
function parse(script, options) {
  try {
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    // Its first sentence; the others are about words that begin with a dash.
    return wrongUsage(script, /** @type {Error} */ (error).message.split(/[.\n]/, 1)[0]);
  }
}

/** @type {(script: string, reason: string | undefined) => never} */
export function wrongUsage(script, reason) {
  console.error(`${reason}: see npm run ${script} -- --help`);
  process.exit(2);
}

/**
 * The value of an option as a number that is `fine`; undefined where the option is not given.
 * @template {string | undefined} T
 * @param {string} script
 * @param {string} option
 * @param {T} text
 * @param {'above 0' | 'whole from 0'} fine
 * @returns {T extends string ? number : number | undefined}
 */
export function readNumber(script, option, text, fine) {
  if (text === undefined) return /** @type {any} */ (undefined);
  const value = text.trim() === '' ? Number.NaN : Number(text);
  const isFine = fine === 'above 0' ? value > 0 : Number.isSafeInteger(value) && value >= 0;
  if (!isFine) wrongUsage(script, `Option '--${option}' takes a number, ${fine}`);
  return /** @type {any} */ (value);
}
