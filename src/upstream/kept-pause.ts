/** A pause of an account as it comes back from a file or another relay: checked, because neither is this process. */

import { isRecord } from '../protocol/json-object.ts';
import { PAUSE_SCOPES, PAUSE_STATUSES } from '../protocol/verdict.ts';
import type { KeptPause } from './account-health.ts';

const SCOPES = new Set<string>(PAUSE_SCOPES);
const STATUSES = new Set<string>(PAUSE_STATUSES);

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);

/** Throws where `value` is no pause. */
export function parseKeptPause(value: unknown): KeptPause {
  if (!isRecord(value) || !isRecord(value.pause) || !isRecord(value.verdict)) throw new Error('no pause');
  const { pause, verdict, step, until, way } = value;
  const answer = verdict.answer;
  const isWhole =
    SCOPES.has(String(pause.scope)) &&
    STATUSES.has(String(pause.status)) &&
    Array.isArray(pause.stepsMinutes) &&
    pause.stepsMinutes.every(isNumber) &&
    (way === undefined || way === 'graph') &&
    isNumber(step) &&
    isNumber(until) &&
    typeof verdict.class === 'string' &&
    isRecord(answer) &&
    isNumber(answer.code) &&
    answer.code >= 400 &&
    answer.code < 600 &&
    typeof answer.text === 'string';
  if (!isWhole) throw new Error('no pause');
  return value as unknown as KeptPause;
}
