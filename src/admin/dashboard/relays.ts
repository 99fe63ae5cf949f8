/** The relays that serve these accounts together; nothing to see where there is only this one. */
import { MISSING_AFTER_MS } from '../../protocol/vocabulary.ts';
import type { FleetView } from '../shapes.ts';
import { byId, dotted, h, setText, sub } from './dom.ts';
import { formatAgo, formatCount } from './format.ts';
import { ask } from './requests.ts';

const ASK_EVERY_MS = 5_000;

function show(fleet: FleetView): void {
  byId('relays-part').hidden = !fleet.shared;
  if (!fleet.shared) return;
  const part = `${Math.round(fleet.share * 100)} %`;
  setText(
    byId('relays-note'),
    fleet.apart ? `Redis is away: each keeps to its share, ${part} of every limit` : 'limits are shared',
  );
  byId('relays').replaceChildren(
    ...fleet.relays.map((relay) => {
      const isMissing = relay.silent_ms > MISSING_AFTER_MS;
      const since = relay.since === null ? 0 : (Date.now() - Date.parse(relay.since)) / 1000;
      const notes = [
        `v${relay.version ?? '?'}`,
        `started ${formatAgo(since)}`,
        `${formatCount(relay.relayed)} relayed`,
        `${formatCount(relay.deferred)} deferred`,
        `lag ${relay.lag_ms} ms`,
      ];
      return h(
        'li',
        { 'data-state': isMissing ? 'open' : 'closed' },
        h(
          'span',
          { class: 'breaker-name' },
          `${relay.host ?? relay.id}${relay.pid === null ? '' : ` (${relay.pid})`}${relay.self ? ', this one' : ''}`,
        ),
        dotted(isMissing ? 'missing' : 'here'),
        sub(notes.join(', ')),
      );
    }),
  );
}

/** Asks now and then, while the page is seen. */
export function watchRelays(): void {
  const look = async (): Promise<void> => {
    if (document.hidden) return;
    const { body, trouble } = await ask('/admin/fleet');
    if (trouble === undefined) show(body as FleetView);
  };
  void look();
  setInterval(look, ASK_EVERY_MS);
}
