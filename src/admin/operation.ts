/** What an operation of the admin API is, and what all of them share. In: nothing. Out: types, answers, the operation on one account. */
import { type Answer, ok, refuse } from './answer.ts';
import type { AdminBackend } from './backend.ts';
import type { Access } from './guard.ts';
import type { Live } from './live.ts';
import type { Metrics } from './metrics.ts';
import type { Series } from './series.ts';
import type { AccountDetail, Shape, ShapeName } from './shapes.ts';
import type { TransactionLog } from './transaction-log.ts';

/** What operations work on. */
export interface House {
  readonly backend: AdminBackend;
  readonly metrics: Metrics;
  readonly transactions: TransactionLog;
  readonly series: Series;
  readonly live: Live;
  /** An action by an operator, for the log. */
  acted(
    action: string,
    fields: { readonly account: string } | { readonly level: string } | { readonly key: string },
  ): void;
  /** Undefined: too many are open. `cut` ends the connection of a reader who does not read. */
  openEvents(cut: () => void): ReadableStream | undefined;
  /** What runs here. */
  relay(): Promise<Shape<'Relay'>>;
  /** The description of all this. */
  description(): object;
}

/** The parts of a request that operations read. */
export interface AdminRequest {
  param(name: string): string;
  query(name: string): string | undefined;
  /** Rejects where it is none. */
  json(): Promise<unknown>;
  header(name: string): string | undefined;
  /** Ends the connection, whatever is under way on it. */
  cut(): void;
  /** Scheme and host under which the browser reaches the relay. */
  origin(): string;
}

export interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query';
  readonly description: string;
  readonly schema: Asked;
}

export interface Operation {
  readonly method: 'get' | 'post' | 'put' | 'delete';
  /** `open`: without the admin token, for it asks for a key of its own. Default `token`. */
  readonly access?: Access;
  /** With `{id}` for the account. */
  readonly path: string;
  readonly id: string;
  readonly summary: string;
  readonly parameters?: readonly Parameter[];
  /** Shape of the request's body. */
  readonly takes?: ShapeName;
  /** By status: what it means, and the shape or content type of the body. */
  readonly answers: Readonly<
    Record<
      number,
      readonly [meaning: string, body: ShapeName | 'text/plain' | 'text/event-stream' | 'object']
    >
  >;
  handle(house: House, asked: AdminRequest): Answer | Promise<Answer>;
}

/** Tells the log what an operator did, and him what has become of the account. */
export function acted(house: House, action: string, id: string): Answer {
  house.acted(action, { account: id });
  return ok('Drained', { ok: true, account: house.backend.account(id) ?? null });
}

/** What a query may be: of some values, or a whole number up to `maximum`; else any text. */
interface Asked {
  readonly type?: 'string' | 'integer';
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default?: number;
  readonly enum?: readonly string[];
}

export const query = (name: string, description: string, schema: Asked = { type: 'string' }): Parameter => ({
  name,
  in: 'query',
  description,
  schema,
});

/** Why what was asked for cannot be answered; undefined: it can. */
export function oddQuery(
  parameters: readonly Parameter[],
  of: (name: string) => string | undefined,
): string | undefined {
  for (const { name, schema } of parameters) {
    const text = of(name);
    if (text === undefined) continue;
    const { enum: words, minimum = 0, maximum } = schema;
    if (words?.includes(text) === false) return `${name} must be one of ${words.join(', ')}`;
    if (maximum === undefined) continue;
    const number = Number(text);
    if (!Number.isInteger(number) || number < minimum || number > maximum)
      return `${name} must be a whole number from ${minimum} to ${maximum}`;
  }
  return undefined;
}

export const ID: Parameter = {
  name: 'id',
  in: 'path',
  description: 'Account id or e-mail address, percent-encoded',
  schema: { type: 'string' },
};
const NO_ACCOUNT = ['No such account', 'Error'] as const;

/** An operation on one account; answers 404 where there is none. */
export const onAccount = (
  operation: Omit<Operation, 'handle' | 'parameters'> & {
    readonly run: (house: House, account: AccountDetail, asked: AdminRequest) => Answer | Promise<Answer>;
  },
): Operation => {
  const { run, ...rest } = operation;
  return {
    ...rest,
    parameters: [ID],
    answers: { ...rest.answers, 404: NO_ACCOUNT },
    handle(house, asked) {
      const account = house.backend.account(asked.param('id'));
      return account === undefined ? refuse(404, 'no such account') : run(house, account, asked);
    },
  };
};
