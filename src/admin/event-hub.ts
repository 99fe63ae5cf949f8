/** Hands events to whoever listens now: nobody listening costs nothing. In: named events. Out: the same, as text once. */

export interface HubEvent {
  /** `account`, `transaction`, … (the names of `GET /admin/events`). */
  readonly name: string;
  /** JSON on one line. */
  readonly json: string;
}

export interface EventHub {
  publish(name: string, body: object): void;
  /** Returns the unsubscribe function; idempotent. */
  subscribe(listener: (event: HubEvent) => void): () => void;
  readonly listeners: number;
}

/** `onChange` hears the number of listeners whenever it changes. */
export function createEventHub(onChange: (listeners: number) => void = () => {}): EventHub {
  const listeners = new Set<(event: HubEvent) => void>();
  return {
    publish: (name, body) => {
      if (listeners.size === 0) return;
      const event = { name, json: JSON.stringify(body) };
      for (const listener of listeners) listener(event);
    },
    subscribe: (listener) => {
      // Wrapped, so that one function subscribed twice is two listeners.
      const own = (event: HubEvent): void => listener(event);
      listeners.add(own);
      onChange(listeners.size);
      return () => {
        if (listeners.delete(own)) onChange(listeners.size);
      };
    },
    get listeners() {
      return listeners.size;
    },
  };
}
