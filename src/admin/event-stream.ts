/** Server-sent events (WHATWG HTML, "Server-sent events") of one listener, as a byte stream that ends for slow readers. */
import type { Live } from './live.ts';

export interface EventStream {
  readonly body: ReadableStream<Uint8Array>;
  /** Ends the stream; idempotent. */
  end(): void;
}

/** Octets that may wait for a reader before it is cut off: it can come back, our memory cannot. */
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024;
/** A comment this often keeps proxies from closing a quiet stream. */
const KEEP_ALIVE_MS = 15_000;
/** What a browser waits before it connects again. */
const RETRY_MS = 1_000;

/** Opens a stream: `snapshot` first, then events as they come. `onClose` hears once when it has ended. */
export function openEventStream(live: Live, onClose: () => void = () => {}): EventStream {
  let out: ReadableStreamDefaultController<Uint8Array> | undefined;
  let keepAlive: NodeJS.Timeout | undefined;
  let unsubscribe = (): void => {};

  const stop = (): void => {
    if (out === undefined) return;
    out = undefined;
    clearInterval(keepAlive);
    unsubscribe();
    onClose();
  };
  const end = (): void => {
    const closing = out;
    stop();
    closing?.close();
  };
  const write = (text: string): void => {
    out?.enqueue(Buffer.from(text));
    if ((out?.desiredSize ?? 0) < -MAX_BACKLOG_BYTES) end();
  };
  const send = (name: string, json: string): void => write(`event: ${name}\ndata: ${json}\n\n`);

  const body = new ReadableStream<Uint8Array>(
    {
      start: (controller) => {
        out = controller;
        unsubscribe = live.hub.subscribe((event) => send(event.name, event.json));
        keepAlive = setInterval(() => write(':\n\n'), KEEP_ALIVE_MS).unref();
        write(`retry: ${RETRY_MS}\n\n`);
        send('snapshot', JSON.stringify(live.snapshot()));
      },
      cancel: stop,
    },
    { highWaterMark: 0, size: (chunk) => chunk.byteLength },
  );
  return { body, end };
}
