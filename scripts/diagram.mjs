/**
 * `npm run diagram`, see `HELP`. The picture follows the reader's light or dark scheme by itself; text stays text.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { readCommandLine } from './command-line.mjs';

const HELP = `npm run diagram

Draws docs/way-of-a-message.svg: the sequence in docs/way-of-a-message.txt.
`;

const LANE_WIDTH = 232;
const MARGIN = 108;
const HEAD_HEIGHT = 52;
const STAGE_HEIGHT = 40;
const ARROW_HEIGHT = 42;

const escapeXml = (text) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

/** Reads the source. Throws with the line's number where a line is none of the forms. */
export function parseSequence(source) {
  const lanes = [];
  const steps = [];
  for (const [i, line] of source.split('\n').entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    const lane = /^lane (\S+)\s+([^|]+?)(?:\s*\|\s*(.+))?$/.exec(line);
    const stage = /^stage (.+)$/.exec(line);
    const arrow = /^(\S+) (-->|->) (\S+) (.+)$/.exec(line);
    if (lane) lanes.push({ name: lane[1], label: lane[2], below: lane[3] ?? '' });
    else if (stage) steps.push({ stage: stage[1] });
    else if (arrow) {
      const [from, to] = [arrow[1], arrow[3]].map((name) => lanes.findIndex((l) => l.name === name));
      if (from < 0 || to < 0 || from === to) throw new Error(`line ${i + 1}: no two lanes in "${line}"`);
      steps.push({ from, to, dashed: arrow[2] === '-->', text: arrow[4] });
    } else throw new Error(`line ${i + 1}: cannot read "${line}"`);
  }
  return { lanes, steps };
}

/** The sequence as an SVG document, the same for the same source. */
export function drawSequence({ lanes, steps }) {
  const width = MARGIN * 2 + LANE_WIDTH * (lanes.length - 1);
  const x = (lane) => MARGIN + lane * LANE_WIDTH;
  const body = [];
  let y = HEAD_HEIGHT + 12;
  for (const step of steps) {
    if (step.stage !== undefined) {
      y += STAGE_HEIGHT;
      body.push(
        `<line class="rule" x1="8" y1="${y - 22}" x2="${width - 8}" y2="${y - 22}"/>`,
        `<text class="stage" x="12" y="${y - 4}">${escapeXml(step.stage)}</text>`,
      );
      continue;
    }
    y += ARROW_HEIGHT;
    const way = Math.sign(step.to - step.from);
    const [x1, x2] = [x(step.from) + way * 3, x(step.to) - way * 4];
    body.push(
      `<text class="said" x="${(x1 + x2) / 2}" y="${y - 8}">${escapeXml(step.text)}</text>`,
      `<line class="arrow${step.dashed ? ' dashed' : ''}" x1="${x1}" y1="${y}" x2="${x2}" y2="${y}"/>`,
      `<path class="head" d="M${x2} ${y} l${-way * 9} -4.5 v9 z"/>`,
    );
  }
  const height = y + 22;
  const heads = lanes.flatMap(({ label, below }, i) => [
    `<line class="life" x1="${x(i)}" y1="${8 + HEAD_HEIGHT}" x2="${x(i)}" y2="${height - 8}"/>`,
    `<rect class="${i === 1 ? 'box own' : 'box'}" x="${x(i) - 96}" y="8" width="192" height="${HEAD_HEIGHT}" rx="8"/>`,
    `<text class="${i === 1 ? 'name own' : 'name'}" x="${x(i)}" y="30">${escapeXml(label)}</text>`,
    `<text class="${i === 1 ? 'below own' : 'below'}" x="${x(i)}" y="48">${escapeXml(below)}</text>`,
  ]);
  const told = steps.map((step) => step.stage ?? step.text).join('; ');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title told">
<title id="title">The way of a message through xoauth2-relay</title>
<desc id="told">${escapeXml(told)}</desc>
<style>
svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --edge: #d1d9e0; --box: #f6f8fa; --own: #0757b8; --on-own: #ffffff; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #0d1117; --ink: #f0f6fc; --soft: #9198a1; --edge: #3d444d; --box: #151b23; --own: #4493f8; --on-own: #0d1117; }
}
.paper { fill: var(--paper); }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--ink); }
.name { font-size: 15px; font-weight: 600; text-anchor: middle; }
.below { font-size: 12px; text-anchor: middle; fill: var(--soft); }
.box { fill: var(--box); stroke: var(--edge); }
.box.own { fill: var(--own); stroke: var(--own); }
.name.own, .below.own { fill: var(--on-own); }
.life { stroke: var(--edge); stroke-width: 1.5; }
.rule { stroke: var(--edge); }
.stage, .said { font-size: 12.5px; paint-order: stroke; stroke: var(--paper); stroke-width: 5px; }
.stage { font-weight: 600; fill: var(--soft); }
.said { text-anchor: middle; }
.arrow { stroke: var(--own); stroke-width: 1.8; }
.dashed { stroke-dasharray: 6 4; }
.head { fill: var(--own); }
</style>
<rect class="paper" width="${width}" height="${height}" rx="10"/>
${[...heads, ...body].join('\n')}
</svg>
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  readCommandLine('diagram', HELP);
  const page = (ending) => new URL(`../docs/way-of-a-message.${ending}`, import.meta.url);
  writeFileSync(page('svg'), drawSequence(parseSequence(readFileSync(page('txt'), 'utf8'))));
}
