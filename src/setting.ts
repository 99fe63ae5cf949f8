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

export function define<T>(
  group: SettingGroup,
  kind: SettingKind,
  schema: z.ZodType<T>,
  fallback: NoInfer<T>,
  help: string,
  why = '',
): SettingDefinition<T> {
  return { group, kind, schema, fallback, help, why };
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
export const optional = <T>(schema: z.ZodType<T>): z.ZodType<T | undefined> => schema.optional();
