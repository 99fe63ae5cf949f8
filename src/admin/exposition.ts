/** Lines of the exposition format of Prometheus (text, 0.0.4). Pure. */

/** `account="…"`; backslash, quote and line feed are escaped. */
export const label = (name: string, value: string): string =>
  `${name}="${/[\\"\n]/.test(value) ? value.replace(/[\\"]/g, '\\$&').replace(/\n/g, '\\n') : value}"`;

/** `labels` as `label` writes them, joined by commas. */
export const sample = (name: string, labels: string, value: number): string =>
  `${name}{${labels}} ${value}\n`;

export const head = (name: string, type: 'counter' | 'gauge' | 'histogram', help: string): string =>
  `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
