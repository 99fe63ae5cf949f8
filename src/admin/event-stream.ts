/** Server-sent events (WHATWG HTML, "Server-sent events") of one listener, as a byte stream that ends for slow readers. */
import type { Live } from './live.ts';
import { inChunks } from './pieces.ts';

export interface EventStream {
  readonly body: ReadableStream<Uint8Array>;
  /** Ends the stream; idempotent. */
  end(): void;
}

/** Octets that may wait for a reader before it is cut off: it can come back, our memory cannot. */
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024;
/** Of a snapshot only this much is made ahead of its reader. */
const SNAPSHOT_BACKLOG_BYTES = 256 * 1024;
/** A comment this often keeps proxies from closing a quiet stream. */
const KEEP_ALIVE_MS = 15_000;
/** A reader for whom something waits, and who takes nothing during so many of these times, is cut off. */
const STALLED_TIMES = 4;
/** What a browser waits before it connects again. */
const RETRY_MS = 1_000;

export interface EventStreamHooks {
  /** Hears once that it has ended. */
  onClose(): void;
  /** Ends the reader's connection: one who does not read would hold what waits for him for ever. */
  cut(): void;
}

/** Opens a stream: `snapshot` first, then events as they come. */
export function openEventStream(live: Live, { onClose, cut }: EventStreamHooks): EventStream {
  let out: ReadableStreamDefaultController<Uint8Array> | undefined;
  let keepAlive: NodeJS.Timeout | undefined;
  let unsubscribe = (): void => {};
  /** Octets. */
  let made = 0;
  let taken = 0;
  let stalledTimes = 0;
  /** Events that wait until the snapshot is out; undefined: it is. */
  let waiting: string[] | undefined = [];
  let waitingBytes = 0;
  let readOn = (): void => {};

  const stop = (): void => {
    if (out === undefined) return;
    out = undefined;
    readOn();
    clearInterval(keepAlive);
    unsubscribe();
    onClose();
  };
  const end = (): void => {
    const closing = out;
    stop();
    closing?.close();
  };
  const endNow = (): void => {
    end();
    cut();
  };
  const put = (text: string): void => {
    const octets = Buffer.from(text);
    made += octets.length;
    out?.enqueue(octets);
  };
  const keepOpen = (): void => {
    const backlog = -(out?.desiredSize ?? 0);
    stalledTimes = backlog > 0 && made - backlog === taken ? stalledTimes + 1 : 0;
    taken = made - backlog;
    if (stalledTimes >= STALLED_TIMES) endNow();
    else write(':\n\n');
  };
  const write = (text: string): void => {
    if (waiting === undefined) {
      put(text);
      if ((out?.desiredSize ?? 0) < -MAX_BACKLOG_BYTES) endNow();
      return;
    }
    waiting.push(text);
    waitingBytes += text.length;
    if (waitingBytes > MAX_BACKLOG_BYTES) endNow();
  };
  const send = (name: string, json: string): void => write(`event: ${name}\ndata: ${json}\n\n`);

  /** As fast as the reader reads; JSON may be broken into lines between its parts. */
  async function sendSnapshot(): Promise<void> {
    put(`retry: ${RETRY_MS}\n\nevent: snapshot\n`);
    for await (const chunk of inChunks(live.snapshot())) {
      if (out === undefined) return;
      put(`data: ${chunk}\n`);
      if ((out.desiredSize ?? 0) < -SNAPSHOT_BACKLOG_BYTES)
        await new Promise<void>((resume) => {
          readOn = resume;
        });
    }
    const late = waiting ?? [];
    waiting = undefined;
    write(['\n', ...late].join(''));
  }

  const body = new ReadableStream<Uint8Array>(
    {
      start: (controller) => {
        out = controller;
        unsubscribe = live.hub.subscribe((event) => send(event.name, event.json));
        keepAlive = setInterval(keepOpen, KEEP_ALIVE_MS).unref();
        sendSnapshot().catch(endNow);
      },
      pull: () => readOn(),
      cancel: stop,
    },
    { highWaterMark: 0, size: (chunk) => chunk.byteLength },
  );
  return { body, end };
}
