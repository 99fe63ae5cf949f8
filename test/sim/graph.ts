/**
 * Microsoft Graph: drafts and sent messages of mailboxes, and the ways in which an answer can be late, odd
 * or lost, before or after the request was carried out. Stands in for the HTTP requests of the product. What
 * is not known of the real one it does the worse way: a second send of a draft delivers a second time.
 */
import type { HttpAnswer, HttpRequest } from './token-endpoint.ts';
import { failure, pauseUnless } from './token-endpoint.ts';
import { type Actor, EPOCH, type World } from './world.ts';

export const GRAPH_URL = 'https://graph.sim/v1.0';

export interface GraphDelivery {
  readonly account: string;
  /** As the recipients get it. */
  readonly text: string;
  readonly recipients: readonly string[];
  readonly at: number;
}

/** What happens to one request. */
export interface GraphMood {
  readonly delayMs: number;
  /** Whether the request is carried out; `late`: after the answer. */
  readonly done: 'yes' | 'no' | 'late';
  /** Status in place of the honest answer; `lost`, `hang`: none; `refused`: nobody listens. */
  readonly answer?: number | 'lost' | 'hang' | 'refused' | undefined;
  /** With whatever status, s. */
  readonly retryAfter?: number | undefined;
  /** What is sent now cannot be found for so long, ms. */
  readonly hiddenMs: number;
}

export interface GraphEndpoint {
  request(url: string, request: HttpRequest): Promise<HttpAnswer>;
  mood: () => GraphMood;
  /** Told of each request more than a mailbox takes at once; `ofOne`: of one relay alone. */
  onTooMany: (account: string, ofOne: boolean) => void;
  readonly delivered: readonly GraphDelivery[];
  /** Drafts in the mailboxes now. */
  readonly drafts: readonly { readonly id: string; readonly messageId: string }[];
}

/** Requests at once for a mailbox. */
const AT_ONCE = 4;
/** Later than the answer, sooner than a draft counts as unsent, ms. */
const LATE_MS = 2_000;
const HEALTHY: GraphMood = { delayMs: 40, done: 'yes', hiddenMs: 0 };

interface Item {
  readonly account: string;
  readonly text: string;
  readonly createdAt: number;
  isDraft: boolean;
  hiddenUntil: number;
}

interface Said {
  readonly statusCode: number;
  readonly json?: object;
}

export function createGraphEndpoint(
  world: World,
  accepts: (account: string, accessToken: string) => boolean,
): GraphEndpoint {
  const actor = world.spawn('graph');
  const items = new Map<string, Item>();
  const delivered: GraphDelivery[] = [];
  const underWay = new Map<string, Set<{ readonly relay: Actor }>>();
  let serial = 0;

  /** Counts a request in; the result counts it out. */
  function enter(account: string, relay: Actor): { readonly isTooMany: boolean; readonly leave: () => void } {
    const ticket = { relay };
    const all = underWay.get(account) ?? new Set();
    underWay.set(account, all);
    for (const other of all) if (!other.relay.isAlive) all.delete(other);
    all.add(ticket);
    const isTooMany = all.size > AT_ONCE;
    if (isTooMany) graph.onTooMany(account, [...all].filter((t) => t.relay === relay).length > AT_ONCE);
    return { isTooMany, leave: () => void all.delete(ticket) };
  }

  /** Unfolded. */
  const headOf = (text: string): string =>
    text.slice(0, text.indexOf('\r\n\r\n') + 2).replace(/\r\n(?=[ \t])/g, '');
  const fieldOf = (text: string, name: string): string =>
    new RegExp(`^${name}: (.*)\r$`, 'im').exec(headOf(text))?.[1] ?? '';
  const listOf = (text: string, name: string): string[] =>
    fieldOf(text, name)
      .split(',')
      .map((one) => one.trim().replace(/^<(.*)>$/, '$1'))
      .filter((one) => one !== '');
  const recipientsOf = (text: string): string[] => ['To', 'Cc', 'Bcc'].flatMap((name) => listOf(text, name));

  function show(id: string, item: Item): object {
    const list = (name: string): object[] =>
      listOf(item.text, name).map((address) => ({ emailAddress: { address } }));
    return {
      id,
      isDraft: item.isDraft,
      internetMessageId: fieldOf(item.text, 'Message-ID'),
      createdDateTime: new Date(EPOCH + item.createdAt).toISOString(),
      toRecipients: list('To'),
      ccRecipients: list('Cc'),
      bccRecipients: list('Bcc'),
    };
  }

  function perform(
    method: string,
    account: string,
    path: readonly string[],
    url: URL,
    body: string,
    hiddenMs: number,
  ): Said {
    const [, id = '', verb] = path;
    const item = items.get(id);
    const isVisible = item !== undefined && item.account === account && item.hiddenUntil <= world.now;
    if (method === 'POST' && path[0] === 'sendMail') {
      const text = Buffer.from(body, 'base64').toString('latin1');
      const hiddenUntil = world.now + hiddenMs;
      items.set(`sent-${++serial}`, { account, text, createdAt: world.now, isDraft: false, hiddenUntil });
      delivered.push({ account, text, recipients: recipientsOf(text), at: world.now });
      world.note(`sends in one call (${fieldOf(text, 'X-Sim')})`, actor);
      return { statusCode: 202 };
    }
    const missing: Said = { statusCode: 404, json: { error: { code: 'ErrorItemNotFound', message: '' } } };
    if (method === 'POST' && path.length === 1) {
      const made: Item = {
        account,
        text: Buffer.from(body, 'base64').toString('latin1'),
        createdAt: world.now,
        isDraft: true,
        hiddenUntil: 0,
      };
      const name = `draft-${++serial}`;
      items.set(name, made);
      return { statusCode: 201, json: show(name, made) };
    }
    if (method === 'POST' && verb === 'send') {
      if (!isVisible) return missing;
      item.isDraft = false;
      item.hiddenUntil = world.now + hiddenMs;
      delivered.push({ account, text: item.text, recipients: recipientsOf(item.text), at: world.now });
      world.note(`sends ${id} (${fieldOf(item.text, 'X-Sim')})`, actor);
      return { statusCode: 202 };
    }
    const isDrafts = path.join('/') === 'mailFolders/drafts/messages';
    if (method === 'GET' && (isDrafts || path.length === 1)) {
      const wanted = /eq '(.*)'/.exec(url.searchParams.get('$filter') ?? '')?.[1];
      const found = [...items].filter(
        ([, i]) =>
          i.account === account &&
          (i.isDraft || !isDrafts) &&
          i.hiddenUntil <= world.now &&
          fieldOf(i.text, 'Message-ID') === wanted,
      );
      return { statusCode: 200, json: { value: found.map(([name, i]) => show(name, i)) } };
    }
    if (!isVisible) return missing;
    if (method === 'GET') return { statusCode: 200, json: show(id, item) };
    items.delete(id);
    return { statusCode: 204 };
  }

  const graph: GraphEndpoint = {
    mood: () => HEALTHY,
    onTooMany: () => undefined,
    delivered,
    get drafts() {
      return [...items].flatMap(([id, { isDraft, text }]) =>
        isDraft ? [{ id, messageId: fieldOf(text, 'Message-ID') }] : [],
      );
    },
    async request(text, asked) {
      const { pathname } = new URL(text);
      const [, , , account = ''] = pathname.split('/').map(decodeURIComponent);
      const { isTooMany, leave } = enter(account, world.current);
      try {
        return await answerTo(text, asked, isTooMany);
      } finally {
        leave();
      }
    },
  };
  return graph;

  async function answerTo(
    text: string,
    { body, signal, method = 'GET', headers = {}, begin }: HttpRequest,
    isTooMany: boolean,
  ): Promise<HttpAnswer> {
    const relay = world.current;
    const url = new URL(text);
    const [, , , account = '', ...path] = url.pathname.split('/').map(decodeURIComponent);
    const mood = graph.mood();
    const { delayMs, answer, hiddenMs } = mood;
    if (answer === 'refused') throw failure('ECONNREFUSED');
    begin();
    const bearer = (headers.authorization ?? '').replace('Bearer ', '');
    const isKnown = accepts(account, bearer);
    const done = isTooMany ? 'no' : mood.done;
    world.note(
      `${method} /${path.join('/')}: ${done}, ${isTooMany ? 'too many' : (answer ?? 'honest')}`,
      actor,
    );
    const act = (): Said => perform(method, account, path, url, body ?? '', hiddenMs);
    // What it does it does whether or not the relay still waits.
    const judged = new Promise<Said>((resolve) => {
      world.after(actor, delayMs / 2, () => {
        if (!isKnown) resolveAt(relay, resolve, { statusCode: 401 });
        else if (isTooMany) resolveAt(relay, resolve, { statusCode: 429 });
        else if (done === 'yes') resolveAt(relay, resolve, act());
        else {
          if (done === 'late') world.after(actor, LATE_MS, act);
          resolveAt(relay, resolve, { statusCode: 503 });
        }
      });
    });
    await pauseUnless(world, relay, answer === 'hang' ? Number.POSITIVE_INFINITY : delayMs, signal);
    const honest = await judged;
    if (answer === 'lost') throw failure('ECONNRESET');
    const isReplaced = typeof answer === 'number' && honest.statusCode !== 401 && !isTooMany;
    const { statusCode, json } = isReplaced ? { statusCode: answer, json: undefined } : honest;
    const octets = json === undefined ? '' : JSON.stringify(json);
    const retryAfter = mood.retryAfter ?? (statusCode === 429 ? 2 : undefined);
    return {
      statusCode,
      headers: retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) },
      body: (async function* () {
        if (octets !== '') yield Buffer.from(octets);
      })(),
    };
  }

  function resolveAt(relay: Actor, resolve: (said: Said) => void, said: Said): void {
    world.after(relay, 0, () => resolve(said), 'token');
  }
}
