/**
 * How a setting is declared: form, default, the reason for the default, what it means. Each stands in the table
 * of its room; flags, environment, config file, validation, --help and the manual page are derived. Pure.
 */
import { z } from 'zod';

/** How a value is written as text (flag, environment) and read. `path` is resolved where it was written. */
export type SettingKind = 'text' | 'path' | 'number' | 'boolean' | 'list' | 'json' | 'secret';

/** Heading in --help and the manual. */
export type SettingGroup = 'Serving' | 'Listener' | 'Tokens' | 'Upstream' | 'Admin' | 'Log and alerts';

export interface SettingDefinition<T = unknown> {
  readonly kind: SettingKind;
  readonly schema: z.ZodType<T>;
  readonly fallback: T;
  /** What it is, with its unit. */
  readonly help: string;
  /** Why the default is what it is; empty where there is nothing to say. */
  readonly why: string;
  readonly group: SettingGroup;
}

/** How settings of a group are declared, by kind: form with its default, what it is, the reason for the default. */
export function settingsOf(group: SettingGroup) {
  const of =
    (kind: SettingKind) =>
    <S extends z.ZodDefault | z.ZodOptional>(
      form: S,
      help: string,
      why = '',
    ): SettingDefinition<z.output<S>> => ({
      group,
      kind,
      schema: (form instanceof z.ZodDefault ? form.unwrap() : form) as z.ZodType<z.output<S>>,
      fallback: form.parse(undefined) as z.output<S>,
      help,
      why,
    });
  return {
    text: of('text'),
    number: of('number'),
    list: of('list'),
    json: of('json'),
    path: (help: string, why = '') => of('path')(text.optional(), help, why),
    pathOr: (fallback: string, help: string) => of('path')(text.default(fallback), help),
    flag: (help: string, why = '') => of('boolean')(z.boolean().default(false), help, why),
    flagOn: (help: string) => of('boolean')(z.boolean().default(true), help),
    /** A default would be known to everybody. */
    secret: (help: string, why = '', form: z.ZodType<string> = text) =>
      of('secret')(form.optional(), help, why),
  };
}

type Unchangeable<T> = T extends readonly (infer E)[] ? readonly E[] : T;

/** The checked value of a setting. */
export type SettingValue<D> = D extends SettingDefinition<infer T> ? Unchangeable<T> : never;

/** `stateDir` → `state_dir`, the key in the config file. */
export const settingKey = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const MIB = 1_048_576;

export const host = z.string().min(1, 'must not be empty').max(255);
export const port = z.int().min(0).max(65_535);
export const text = z.string().min(1, 'must not be empty');
export const list = z.array(text);
export const milliseconds = (min: number, max: number) => z.int().min(min).max(max);
