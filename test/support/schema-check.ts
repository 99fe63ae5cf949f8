/** Checks a value against the JSON Schema keywords the API description uses; an unknown keyword fails the test that meets it. */

interface Schema {
  readonly [keyword: string]: unknown;
}

const isSchema = (value: unknown): value is Schema => typeof value === 'object' && value !== null;

const NOTES = new Set(['description', 'default']);

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return typeof value;
}

function hasType(value: unknown, type: unknown): boolean {
  const actual = typeOf(value);
  return type === actual || (type === 'integer' && Number.isInteger(value));
}

/** All faults of `value`, as `$.accounts[0].id: …`; `schemas` resolves `#/components/schemas/…`. */
export function schemaFaults(
  value: unknown,
  schema: unknown,
  schemas: Readonly<Record<string, unknown>>,
  path = '$',
): string[] {
  if (!isSchema(schema)) return [`${path}: no schema`];
  const faults: string[] = [];
  const inner = (v: unknown, s: unknown, p: string): string[] => schemaFaults(v, s, schemas, p);
  for (const [keyword, rule] of Object.entries(schema)) {
    switch (keyword) {
      case '$ref':
        faults.push(...inner(value, schemas[String(rule).replace('#/components/schemas/', '')], path));
        break;
      case 'type':
        if (![rule].flat().some((t) => hasType(value, t))) {
          faults.push(`${path}: ${typeOf(value)} is not ${String(rule)}`);
        }
        break;
      case 'enum':
        if (!Array.isArray(rule) || !rule.includes(value))
          faults.push(`${path}: ${String(value)} is not in ${String(rule)}`);
        break;
      case 'oneOf': {
        const fitting = [rule].flat().filter((s) => inner(value, s, path).length === 0).length;
        if (fitting !== 1) faults.push(`${path}: fits ${fitting} of oneOf`);
        break;
      }
      case 'anyOf':
        if (![rule].flat().some((s) => inner(value, s, path).length === 0))
          faults.push(`${path}: fits none of anyOf`);
        break;
      case 'const':
        if (value !== rule) faults.push(`${path}: ${String(value)} is not ${String(rule)}`);
        break;
      case 'format':
        if (typeof value === 'string' && rule === 'date-time' && !/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value)) {
          faults.push(`${path}: ${value} is no date-time`);
        }
        break;
      case 'minimum':
        if (typeof value === 'number' && value < Number(rule))
          faults.push(`${path}: ${value} < ${String(rule)}`);
        break;
      case 'maximum':
        if (typeof value === 'number' && value > Number(rule))
          faults.push(`${path}: ${value} > ${String(rule)}`);
        break;
      case 'items':
        if (Array.isArray(value))
          for (const [i, item] of value.entries()) faults.push(...inner(item, rule, `${path}[${i}]`));
        break;
      case 'properties':
        if (isSchema(rule) && isSchema(value) && !Array.isArray(value)) {
          for (const [key, sub] of Object.entries(rule)) {
            if (key in value) faults.push(...inner(value[key], sub, `${path}.${key}`));
          }
        }
        break;
      case 'required':
        if (Array.isArray(rule) && isSchema(value) && !Array.isArray(value)) {
          for (const key of rule) if (!(key in value)) faults.push(`${path}: ${String(key)} is missing`);
        }
        break;
      case 'additionalProperties':
        if (rule === false && isSchema(value) && !Array.isArray(value) && isSchema(schema.properties)) {
          for (const key of Object.keys(value)) {
            if (!(key in schema.properties)) faults.push(`${path}: ${key} is not described`);
          }
        }
        break;
      default:
        if (!NOTES.has(keyword)) faults.push(`${path}: keyword ${keyword} is not known to this checker`);
    }
  }
  return faults;
}
