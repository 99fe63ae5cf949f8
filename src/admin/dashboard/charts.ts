/** The two charts: messages per second stacked by outcome, and latency percentiles. The one file that knows uPlot. */

import { OUTCOMES } from '../../protocol/vocabulary.ts';
import type { SeriesPoint } from '../shapes.ts';
import { byId, h, setAttribute, setText } from './dom.ts';
import { formatMs, formatRate, OUTCOME_WORDS } from './format.ts';
import uPlot from './uplot.js';

export interface Charts {
  /** Shows the last `seconds` of `points`, up to `nowS`. */
  draw(points: readonly SeriesPoint[], seconds: number, nowS: number): void;
  /** The theme has changed: colours are read again. */
  repaint(): void;
}

const HEIGHT = 190;
/** Bars across the chart: seconds are gathered until about this many are left. */
const BARS = 150;
const PERCENTILES = ['p50', 'p95', 'p99'] as const;
type Columns = [number[], ...(number | null)[][]];

/** The colour a CSS variable stands for now, as the canvas wants it. */
function colour(name: string): string {
  const probe = h('span');
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/** Points → columns per bucket of `step` seconds: counts per second, percentiles. */
function gather(
  points: readonly SeriesPoint[],
  from: number,
  to: number,
  step: number,
): { rates: Columns; latencies: Columns } {
  const size = Math.ceil((to - from) / step);
  const rates: Columns = [
    Array.from({ length: size }, (_, i) => from + i * step),
    ...OUTCOMES.map(() => Array<number>(size).fill(0)),
  ];
  const latencies: Columns = [rates[0], ...PERCENTILES.map(() => Array<number | null>(size).fill(null))];
  const weights = Array<number>(size).fill(0);
  for (const point of points) {
    const i = Math.floor((point.at_s - from) / step);
    if (i < 0 || i >= size) continue;
    let count = 0;
    for (const [s, outcome] of OUTCOMES.entries()) {
      const column = rates[s + 1];
      if (column !== undefined) column[i] = (column[i] ?? 0) + point[outcome] / step;
      count += point[outcome];
    }
    const [, p50s, p95s, p99s] = latencies;
    if (point.p50_ms === null || p50s === undefined || p95s === undefined || p99s === undefined) continue;
    // Percentiles of a bucket are near the weighted mean of its seconds'; of the last the worst is shown.
    const weight = weights[i] ?? 0;
    p50s[i] = ((p50s[i] ?? 0) * weight + point.p50_ms * count) / (weight + count);
    p95s[i] = ((p95s[i] ?? 0) * weight + (point.p95_ms ?? 0) * count) / (weight + count);
    p99s[i] = Math.max(p99s[i] ?? 0, point.p99_ms ?? 0);
    weights[i] = weight + count;
  }
  return { rates, latencies };
}

/** Sums from the last series down, so that drawing in order paints smaller stacks over larger ones. */
function stack([xs, ...columns]: Columns): Columns {
  const sums = columns.map((column) => [...column]);
  for (let s = sums.length - 2; s >= 0; s--) {
    const own = sums[s];
    const below = sums[s + 1];
    for (let i = 0; own !== undefined && below !== undefined && i < own.length; i++)
      own[i] = (own[i] ?? 0) + (below[i] ?? 0);
  }
  return [xs, ...sums];
}

interface Legend {
  show(values: readonly (number | null)[] | undefined): void;
}

function createLegend(
  host: HTMLElement,
  entries: readonly { label: string; colour: string }[],
  format: (n: number) => string,
): Legend {
  const values = entries.map(({ label, colour }) => {
    const value = h('b');
    const swatch = h('i', { class: 'swatch', 'aria-hidden': 'true' });
    swatch.style.background = `var(--${colour})`;
    host.append(h('span', { class: 'key' }, swatch, label, value));
    return value;
  });
  return {
    show: (numbers) => {
      for (const [i, value] of values.entries()) {
        const n = numbers?.[i];
        setText(value, n === undefined ? '' : n === null ? ' –' : ` ${format(n)}`);
      }
    },
  };
}

/** Of values too close for points to stand apart, those between two gaps: no line leads to them. */
const lonely: uPlot.Series.Points.Filter = (u, series, isSparse) => {
  if (isSparse) return null;
  const column = u.data[series] ?? [];
  const has = (i: number): boolean => (column[i] ?? null) !== null;
  return [...column.keys()].filter((i) => has(i) && !has(i - 1) && !has(i + 1));
};

/** Builds both charts in their places on the page. */
export function createCharts(): Charts {
  const rateHost = byId('chart-rate');
  const latencyHost = byId('chart-latency');
  const rateLegend = createLegend(
    byId('legend-rate'),
    OUTCOMES.map((outcome) => ({ label: OUTCOME_WORDS[outcome], colour: `outcome-${outcome}` })),
    formatRate,
  );
  const latencyLegend = createLegend(
    byId('legend-latency'),
    PERCENTILES.map((p) => ({ label: p, colour: p })),
    formatMs,
  );
  let plain: { rates: Columns; latencies: Columns } = { rates: [[]], latencies: [[]] };
  let latest: { rates: Columns; latencies: Columns } = plain;
  let range: [number, number] = [0, 1];
  let plots: uPlot[] = [];

  const axes = (format: (n: number) => string): uPlot.Axis[] => {
    const stroke = colour('text-muted');
    const grid = { stroke: colour('line'), width: 1 };
    const font = '11px system-ui, sans-serif';
    return [
      {
        stroke,
        font,
        grid: { show: false },
        ticks: { show: false },
        size: 26,
        space: 70,
        values: (_, xs) =>
          xs.map((x) =>
            new Date(x * 1000).toLocaleTimeString('en-GB', {
              hour: '2-digit',
              minute: '2-digit',
              ...(range[1] - range[0] <= 120 ? { second: '2-digit' as const } : {}),
            }),
          ),
      },
      {
        stroke,
        font,
        grid,
        ticks: { show: false },
        size: 56,
        space: 38,
        values: (_, ys) => ys.map((y) => (y === 0 ? '0' : format(y))),
      },
    ];
  };

  const make = (
    host: HTMLElement,
    series: uPlot.Series[],
    format: (n: number) => string,
    legend: Legend,
    values: () => Columns,
  ): uPlot =>
    new uPlot(
      {
        width: Math.max(200, host.clientWidth),
        height: HEIGHT,
        padding: [8, 6, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: 'time' } },
        scales: {
          x: { time: true, range: () => range },
          y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] },
        },
        axes: axes(format),
        series: [{}, ...series],
        hooks: {
          setCursor: [
            (u) => {
              const { idx } = u.cursor;
              const columns = values().slice(1);
              legend.show(typeof idx === 'number' ? columns.map((c) => c[idx] ?? null) : undefined);
            },
          ],
        },
      },
      latest === plain ? [[], ...series.map(() => [])] : host === rateHost ? latest.rates : latest.latencies,
      host,
    );

  const build = (): void => {
    for (const plot of plots) plot.destroy();
    const bars = uPlot.paths.bars?.({ size: [0.86, 24], align: 1 });
    plots = [
      make(
        rateHost,
        OUTCOMES.map((outcome) => ({
          fill: colour(`outcome-${outcome}`),
          width: 0,
          points: { show: false },
          ...(bars === undefined ? {} : { paths: bars }),
        })),
        formatRate,
        rateLegend,
        () => plain.rates,
      ),
      make(
        latencyHost,
        PERCENTILES.map((p) => ({
          stroke: colour(p),
          width: p === 'p50' ? 2 : 1.5,
          points: { size: 4, fill: colour(p), filter: lonely },
        })),
        formatMs,
        latencyLegend,
        () => plain.latencies,
      ),
    ];
  };

  build();
  new ResizeObserver(() => {
    for (const [i, host] of [rateHost, latencyHost].entries()) {
      const width = Math.max(200, host.clientWidth);
      const plot = plots[i];
      if (plot !== undefined && plot.width !== width) plot.setSize({ width, height: HEIGHT });
    }
  }).observe(rateHost);

  return {
    draw: (points, seconds, nowS) => {
      const step = Math.max(1, Math.round(seconds / BARS));
      const to = Math.ceil(nowS / step) * step;
      const from = to - seconds;
      range = [from, to];
      plain = gather(points, from, to, step);
      latest = { rates: stack(plain.rates), latencies: plain.latencies };
      plots[0]?.setData(latest.rates);
      plots[1]?.setData(latest.latencies);
      const shown = points.filter((p) => p.at_s >= from);
      const totals = OUTCOMES.map(
        (o) => `${shown.reduce((sum, p) => sum + p[o], 0)} ${OUTCOME_WORDS[o].toLowerCase()}`,
      );
      setAttribute(rateHost, 'aria-label', `Messages in the last ${seconds / 60} min: ${totals.join(', ')}`);
      const worst = shown.reduce((max, p) => Math.max(max, p.p99_ms ?? 0), 0);
      setAttribute(
        latencyHost,
        'aria-label',
        `Time to final reply in the last ${seconds / 60} min: 99th percentile at most ${formatMs(worst)}`,
      );
    },
    repaint: build,
  };
}
