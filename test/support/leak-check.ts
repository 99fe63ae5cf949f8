/** Makes a test fail when it leaves sockets, servers or child processes open. */
import type { TestContext } from 'node:test';

/** Registers a closer; closers run last to first when the test ends, however it ends. */
export type Defer = (close: () => unknown) => void;

const WATCHED = /^(TCPSocketWrap|TCPServerWrap|TCPWRAP|TCPSERVERWRAP|TLSWRAP|ProcessWrap|PipeServerWrap)$/i;
const SETTLE_MS = 3000;

const openResources = (): string[] => process.getActiveResourcesInfo().filter((name) => WATCHED.test(name));

/**
 * Wraps a test: gives it `defer`, runs the closers at the end and then fails it if more sockets,
 * servers or children are open than before (after up to 3 s for closes under way).
 */
export function leakless(
  body: (t: TestContext, defer: Defer) => Promise<void>,
): (t: TestContext) => Promise<void> {
  return async (t) => {
    const before = openResources().length;
    const closers: (() => unknown)[] = [];
    const errors: unknown[] = [];
    try {
      await body(t, (close) => void closers.push(close));
    } catch (error) {
      errors.push(error);
    }
    for (const close of closers.reverse()) {
      try {
        await close();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
    const deadline = Date.now() + SETTLE_MS;
    while (openResources().length > before) {
      if (Date.now() > deadline) {
        throw new Error(`left open: ${openResources().join(', ')} (${before} were open before)`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
}
