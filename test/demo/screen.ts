/** How the demo looks: headings, hops with their time, tables. Colours only on a terminal. */
import { styleText } from 'node:util';

const colourful = process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
type Style = Parameters<typeof styleText>[0];
export const paint = (style: Style, text: string): string => (colourful ? styleText(style, text) : text);

/** Of a pipe, too: a line stays a line. */
const columns = process.stdout.columns ?? 133;
const started = performance.now();
/** As much of a text as has room after `at` columns. */
export const cut = (text: string, at: number): string => {
  const room = Math.max(20, columns - at);
  return text.length > room ? `${text.slice(0, room - 1)}…` : text;
};

export const say = (text = ''): void => void process.stdout.write(`${text}\n`);
export const heading = (text: string): void => say(`\n${paint('bold', text)}`);

/** One hop: `from` and `to` are parties; an answer points back. */
export function hop(left: string, arrow: '→' | '←', right: string, text: string): void {
  const at = `${((performance.now() - started) / 1000).toFixed(3)} s`.padStart(10);
  const refused = arrow === '←' && /^[45]/.test(text);
  const style: Style = refused ? 'red' : arrow === '←' ? 'green' : 'cyan';
  const parties = `${left} ${arrow} ${right}`.padEnd(24);
  say(`${paint('dim', at)}  ${parties} ${paint(style, cut(text, at.length + parties.length + 3))}`);
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('   ')
      .trimEnd();
  say(`  ${paint('dim', cut(line(head), 2))}`);
  for (const row of rows) say(`  ${cut(line(row), 2)}`);
}
