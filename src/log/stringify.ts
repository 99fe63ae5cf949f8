/**
 * A stringifier made once for a shape, for the one record that is written for every message. In: the writer of
 * each key. Out: a function from a value to its JSON members, at half of what a general one costs.
 */

/** JSON text of a value. */
export type Writer<T> = (value: T) => string;
/** A writer for every key of `T`: a key that is added or renamed does not compile until it has one. */
export type LineShape<T> = { readonly [K in keyof T]-?: Writer<T[K]> };

// biome-ignore lint/suspicious/noControlCharactersInRegex: what JSON must escape
const UNSAFE = /["\\\u0000-\u001f\ud800-\udfff]/;

/** Text; what needs no escape is only quoted. */
export const text: Writer<string> = (value) => (UNSAFE.test(value) ? JSON.stringify(value) : `"${value}"`);
export const number: Writer<number> = (value) => (Number.isFinite(value) ? `${value}` : 'null');
/** A number of three decimals at most, from whole numbers: those are written several times faster than others. */
export const thousandths: Writer<number> = (value) => {
  const all = Math.round(value * 1000);
  if (!Number.isSafeInteger(all) || all < 0) return number(value);
  const rest = all % 1000;
  const whole = `${(all - rest) / 1000}`;
  return rest === 0 ? whole : `${whole}.${`${rest + 1000}`.slice(1)}`;
};
export const boolean: Writer<boolean> = (value) => (value ? 'true' : 'false');
export const texts: Writer<readonly string[]> = (values) =>
  values.length === 1 ? `[${text(values[0] as string)}]` : `[${values.map(text).join(',')}]`;
export const orNull =
  <T>(writer: Writer<T>): Writer<T | null> =>
  (value) =>
    value === null ? 'null' : writer(value);

export function object<T>(shape: LineShape<T>): Writer<T> {
  const write = members(shape);
  return (value) => `{${write(value)}}`;
}

/** The members without the braces, in the order of `shape`. */
export function members<T>(shape: LineShape<T>): Writer<T> {
  const columns = (Object.entries(shape) as [keyof T & string, Writer<unknown>][]).map(([key, write], i) => ({
    key,
    write,
    name: `${i === 0 ? '' : ','}${JSON.stringify(key)}:`,
  }));
  return (value) => {
    let json = '';
    for (const { key, write, name } of columns) json += name + write(value[key]);
    return json;
  };
}
