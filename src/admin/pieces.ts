/**
 * Long answers in pieces. In: many small parts of a text. Out: chunks of it, made as they are read, in slices.
 * However many accounts there are, neither the whole answer nor a long turn of the loop is needed for it.
 */
import { createSlices } from '../slices.ts';

/** Octets of a chunk, about: few writes, little memory. */
const CHUNK = 65_536;

/** Gathers parts into chunks. */
export async function* inChunks(parts: Iterable<string>): AsyncGenerator<string> {
  const slices = createSlices();
  let chunk = '';
  for (const part of parts) {
    chunk += part;
    if (chunk.length >= CHUNK) {
      yield chunk;
      chunk = '';
    }
    if (slices.isOver) await slices.rest();
  }
  if (chunk !== '') yield chunk;
}

/** JSON of an object with a long list in it: `members`, then `list` under `name`, then `after`. What is undefined in the list is left out. */
export function* listJson(
  members: object,
  name: string,
  list: Iterable<object | undefined>,
  after: () => object = () => ({}),
): Generator<string> {
  const opened = JSON.stringify(members).slice(0, -1);
  yield `${opened}${opened === '{' ? '' : ','}${JSON.stringify(name)}:[`;
  let comma = '';
  for (const item of list) {
    yield item === undefined ? '' : comma + JSON.stringify(item);
    if (item !== undefined) comma = ',';
  }
  const rest = JSON.stringify(after()).slice(1);
  yield rest === '}' ? ']}' : `],${rest}`;
}

/**
 * A stream of octets of a text that is made as it is read, `first` of which is made already. The generator ends where
 * the reader leaves; where it fails `onFault` hears it and the stream ends.
 */
export function toByteStream(
  first: IteratorResult<string, unknown>,
  rest: AsyncGenerator<string>,
  onFault: (error: unknown) => void,
): ReadableStream<Uint8Array> {
  let made: IteratorResult<string, unknown> | undefined = first;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = made ?? (await rest.next());
        made = undefined;
        if (done) controller.close();
        else controller.enqueue(Buffer.from(value));
      } catch (error) {
        onFault(error);
        controller.close();
      }
    },
    async cancel() {
      await rest.return(undefined);
    },
  });
}
