/** What an operation answers. */
import { inChunks } from './pieces.ts';
import type { Shape, ShapeName } from './shapes.ts';

export interface Answer {
  readonly status: number;
  readonly body: unknown;
  /** `body` as it is, with this content type, in place of JSON. */
  readonly type?: string;
  /** A long text in place of `body`, made as it is read. */
  readonly chunks?: AsyncGenerator<string>;
}

export const ok = <N extends ShapeName>(_shape: N, body: Shape<N>, status = 200): Answer => ({
  status,
  body,
});
export const refuse = (status: number, error: string): Answer => ok('Error', { error }, status);

/** JSON that is written as it is read. */
export const inPieces = (parts: Iterable<string>): Answer => ({
  status: 200,
  body: undefined,
  chunks: inChunks(parts),
  type: 'application/json',
});
