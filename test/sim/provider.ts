/**
 * A provider's submission server: extensions, authentication, strict limits, and the moods that make it
 * refuse, hang, drip or close at any stage. Owns what it has taken and everything it has said.
 */
import type { End, Network } from './network.ts';
import type { Actor, World } from './world.ts';

export type Flavour = 'chunking' | 'pipelining' | 'plain';
/** `auth line` names the mechanism, `auth` brings the token. */
export type Stage =
  | 'greeting'
  | 'starttls'
  | 'ehlo'
  | 'auth line'
  | 'auth'
  | 'mail'
  | 'rcpt'
  | 'data'
  | 'end'
  | 'rset'
  | 'idle';

/** What it does instead of the normal reply. */
export type Mood =
  | { readonly kind: 'reply'; readonly code: number; readonly text: string; readonly closes?: boolean }
  /** Closes without a word: before or after acting on the command. */
  | { readonly kind: 'drop'; readonly how: 'fin' | 'reset'; readonly acts: boolean }
  /** Never answers again. */
  | { readonly kind: 'silence' }
  /** The reply comes an octet at a time. */
  | { readonly kind: 'drip'; readonly stepMs: number }
  /** The right reply, late. */
  | { readonly kind: 'late'; readonly ms: number }
  /** The right reply and, after a while, another one that nobody asked for. */
  | { readonly kind: 'extra'; readonly ms: number }
  /** At EHLO: somebody on the way takes STARTTLS out and offers AUTH in clear text. */
  | { readonly kind: 'strip' };

export interface Envelope {
  readonly account: string;
  readonly sender: string;
  /** Accepted ones. */
  readonly recipients: string[];
  /** When the relay wrote MAIL, true time. */
  readonly begunAt: number;
}

/** A message taken with 250. */
export interface Delivery {
  readonly serial: number;
  readonly account: string;
  readonly sender: string;
  readonly recipients: readonly string[];
  readonly body: Buffer;
  readonly at: number;
  /** When the relay wrote MAIL, true time. */
  readonly begunAt: number;
  /** When the relay wrote the last octet, true time. */
  readonly sentAt: number;
  readonly relay: Actor;
}

/** A reply with a number of its own in it. */
export interface Said {
  readonly serial: number;
  readonly code: number;
  readonly stage: Stage;
  readonly account: string;
  readonly sender: string;
  /** Recipients of the envelope it was said in, the one it is about last. */
  readonly recipients: readonly string[];
}

export interface Provider {
  readonly name: string;
  readonly place: string;
  readonly actor: Actor;
  readonly deliveries: readonly Delivery[];
  readonly said: ReadonlyMap<number, Said>;
  mood: (stage: Stage, account: string) => Mood | undefined;
  /** Told of every login, with how many connections of the account that relay then has open. */
  onLogin: (account: string, atOnce: number) => void;
  /** AUTH came over a stream that is not TLS. */
  onClear: () => void;
  accepts: (account: string, accessToken: string) => boolean;
  /** Closes idle connections after this, and any after that, ms. */
  idleMs: number;
  ageMs: number;
  /** Stops listening and closes everything, until `up`. */
  down(how: 'fin' | 'reset' | '421'): void;
  up(): void;
}

interface IncomingBody {
  readonly pieces: Buffer[];
  left: number;
  readonly isLast: boolean;
  readonly isData: boolean;
}

const PORTS = { implicit: 465, starttls: 587 };
const BAD_TOKEN = { code: 535, text: '5.7.3 Authentication unsuccessful' };
const ERROR_AS_JSON = Buffer.from('{"status":"400","schemes":"Bearer","scope":"smtp"}').toString('base64');

const MARK = /#(\d+)$/;

/** The number in a reply's text. */
export function serialOf(text: string): number | undefined {
  const found = MARK.exec(text.trim());
  return found === null ? undefined : Number(found[1]);
}

export function createProvider(
  world: World,
  network: Network,
  options: {
    readonly name: string;
    readonly address: string;
    readonly flavour: Flavour;
    readonly isTagged: boolean;
    readonly tls: 'implicit' | 'starttls';
    /** Says 334 with the error as JSON before it refuses a token. */
    readonly challenges: boolean;
  },
): Provider {
  const { name, flavour } = options;
  const actor = world.spawn(name);
  const place = `${options.address}:${PORTS[options.tls]}`;
  const dice = world.random.branch(name);
  const deliveries: Delivery[] = [];
  const said = new Map<number, Said>();
  const sessions = new Set<Session>();
  let serial = 0;
  let stopListening: (() => void) | undefined;

  class Session {
    readonly #end: End;
    account = '';
    #input = Buffer.alloc(0);
    #octetsRead = 0;
    #isBusy = false;
    #isSilent = false;
    #envelope: Envelope | undefined;
    /** Octets of a BDAT chunk to come, or a DATA body. */
    #body: IncomingBody | undefined;
    /** What the next line is where it is no command. */
    #awaits: 'token' | 'acknowledgement' | undefined;
    #refusal: { readonly code: number; readonly text: string } = BAD_TOKEN;
    #isSecure = options.tls === 'implicit';
    #lastAt = world.now;
    readonly #openedAt = world.now;

    constructor(end: End) {
      this.#end = end;
      end.ears = {
        octets: (chunk) => {
          this.#input = Buffer.concat([this.#input, chunk]);
          this.#lastAt = world.now;
          this.#work();
          return true;
        },
        fin: () => this.close('fin'),
        reset: () => void sessions.delete(this),
      };
      sessions.add(this);
      this.#answer('greeting', 220, `${name} ESMTP`, () => undefined);
      this.#watch();
    }

    get isAuthenticated(): boolean {
      return this.account !== '';
    }

    get relay(): string {
      return this.#end.peer.actor.name;
    }

    /** Whether the relay still has it open. */
    get isHeld(): boolean {
      return this.#end.peer.closedAt === undefined;
    }

    close(how: 'fin' | 'reset'): void {
      sessions.delete(this);
      if (how === 'fin') this.#end.close();
      else this.#end.abort();
    }

    leave(text: string): void {
      // In the middle of a reply there is no other.
      if (!this.#isSilent) this.#say(421, text, 'idle');
      this.close('fin');
    }

    #watch(): void {
      world.after(actor, 5_000, () => {
        if (!sessions.has(this)) return;
        // Not in the middle of a message.
        if (this.#isBusy || this.#envelope !== undefined) this.#watch();
        else if (world.now - this.#openedAt > provider.ageMs) this.leave('4.4.1 Connection expired');
        else if (world.now - this.#lastAt > provider.idleMs) {
          if (dice.chance(0.5)) this.leave('4.4.2 idle for too long');
          else this.close('fin');
        } else this.#watch();
      });
    }

    #work(): void {
      while (!this.#isBusy && !this.#isSilent && sessions.has(this)) {
        if (this.#body !== undefined) {
          if (!this.#takeBody(this.#body)) return;
          continue;
        }
        const lf = this.#input.indexOf('\r\n');
        if (lf < 0) return;
        const line = this.#input.subarray(0, lf).toString();
        this.#consume(lf + 2);
        this.#command(line);
      }
    }

    #consume(octets: number): void {
      this.#input = this.#input.subarray(octets);
      this.#octetsRead += octets;
    }

    #takeBody(body: IncomingBody): boolean {
      if (body.isData) {
        const start =
          this.#input.subarray(0, 3).toString() === '.\r\n' ? 0 : this.#input.indexOf('\r\n.\r\n');
        if (start < 0) return false;
        const length = this.#input.subarray(0, 3).toString() === '.\r\n' ? 0 : start + 2;
        body.pieces.push(unstuff(this.#input.subarray(0, length)));
        this.#consume(length + 3);
      } else {
        const taken = Math.min(body.left, this.#input.length);
        if (taken === 0 && body.left > 0) return false;
        body.pieces.push(this.#input.subarray(0, taken));
        body.left -= taken;
        this.#consume(taken);
        if (body.left > 0) return false;
      }
      const isWhole = body.isData || body.isLast;
      const sentAt = this.#end.peer.sentAt(this.#octetsRead - 1);
      if (isWhole) {
        this.#body = undefined;
        this.#finish(Buffer.concat(body.pieces), sentAt);
      } else {
        body.left = -1;
        this.#body = undefined;
        this.#held = body.pieces;
        // RFC 3030 §2: a chunk that was refused takes the message with it.
        const wasRefused = this.#isChunkRefused;
        this.#isChunkRefused = true;
        if (wasRefused) this.#say(503, '5.5.1 a chunk was refused', 'data', this.#envelope);
        else
          this.#answer('data', 250, '2.0.0 chunk', () => {
            this.#isChunkRefused = false;
          });
      }
      return true;
    }

    /** Pieces of earlier chunks. */
    #held: Buffer[] = [];
    #isChunkRefused = false;

    #finish(body: Buffer, sentAt: number): void {
      const envelope = this.#envelope;
      this.#envelope = undefined;
      this.#held = [];
      const isChunkRefused = this.#isChunkRefused;
      this.#isChunkRefused = false;
      if (isChunkRefused) {
        this.#say(503, '5.5.1 a chunk was refused', 'end', envelope);
        return;
      }
      if (envelope === undefined || envelope.recipients.length === 0) {
        this.#say(503, '5.5.1 no valid recipients', 'end', envelope);
        return;
      }
      const number = ++serial;
      this.#answer(
        'end',
        250,
        `2.0.0 OK #${number}`,
        () => {
          deliveries.push({
            serial: number,
            account: envelope.account,
            sender: envelope.sender,
            recipients: [...envelope.recipients],
            body,
            at: world.now,
            begunAt: envelope.begunAt,
            sentAt,
            relay: this.#end.peer.actor,
          });
          said.set(number, { ...envelope, serial: number, code: 250, stage: 'end' });
          world.note(`takes ${markOf(body)} for ${envelope.recipients.join(' ')}`, actor);
        },
        envelope,
      );
    }

    #command(line: string): void {
      const [verb = ''] = line.split(' ', 1);
      const awaited = this.#awaits;
      this.#awaits = undefined;
      if (awaited !== undefined) {
        if (awaited === 'token') this.#login(line);
        else this.#say(this.#refusal.code, this.#refusal.text, 'auth');
        return;
      }
      switch (verb.toUpperCase()) {
        case 'EHLO':
          this.#envelope = undefined;
          this.#answer('ehlo', 250, name, () => undefined, undefined, this.#offers());
          return;
        case 'STARTTLS':
          if (this.#isSecure) this.#say(503, '5.5.1 it is TLS already', 'starttls');
          else
            this.#answer('starttls', 220, '2.0.0 ready to start TLS', () => {
              this.#isSecure = true;
            });
          return;
        case 'AUTH':
          if (!this.#isSecure) {
            provider.onClear();
            this.#say(530, '5.7.0 must issue STARTTLS first', 'auth line');
            return;
          }
          this.#answer('auth line', 334, '', () => {
            this.#awaits = 'token';
          });
          return;
        case 'MAIL':
          this.#mail(line);
          return;
        case 'RCPT':
          this.#rcpt(line);
          return;
        case 'DATA':
          if ((this.#envelope?.recipients.length ?? 0) === 0)
            this.#say(503, '5.5.1 no valid recipients', 'data', this.#envelope);
          else
            this.#answer(
              'data',
              354,
              'go ahead',
              () => {
                this.#body = { pieces: [], left: 0, isLast: true, isData: true };
              },
              this.#envelope,
            );
          return;
        case 'BDAT': {
          const [, octets = '0', last = ''] = line.split(' ');
          // Read whether or not there is anybody to deliver to (RFC 3030 §2).
          this.#body = {
            pieces: this.#held,
            left: Number(octets),
            isLast: last.toUpperCase() === 'LAST',
            isData: false,
          };
          return;
        }
        case 'RSET':
          this.#answer('rset', 250, '2.0.0 flushed', () => {
            this.#envelope = undefined;
            this.#held = [];
            this.#isChunkRefused = false;
          });
          return;
        case 'NOOP':
          this.#say(250, '2.0.0 ok', 'mail');
          return;
        case 'QUIT':
          this.#say(221, '2.0.0 bye', 'mail');
          this.close('fin');
          return;
        default:
          this.#say(500, '5.5.1 unknown command', 'mail');
      }
    }

    #login(blob: string): void {
      const [head = '', bearer = ''] = Buffer.from(blob, 'base64').toString().split('\x01');
      const user = head.slice('user='.length);
      const token = bearer.slice('auth=Bearer '.length);
      if (!provider.accepts(user, token)) {
        this.#refuse(BAD_TOKEN);
        return;
      }
      this.#answer('auth', 235, '2.7.0 ok', () => {
        this.account = user;
        const held = [...sessions].filter((s) => s.account === user && s.isHeld && s.relay === this.relay);
        provider.onLogin(user, held.length);
      });
    }

    #refuse(refusal: { readonly code: number; readonly text: string }): void {
      if (!options.challenges || refusal.code !== 535) {
        this.#say(refusal.code, refusal.text, 'auth');
        return;
      }
      this.#refusal = refusal;
      this.#awaits = 'acknowledgement';
      this.#say(334, ERROR_AS_JSON, 'auth');
    }

    #mail(line: string): void {
      if (!this.isAuthenticated) {
        this.#say(530, '5.7.57 not authenticated', 'mail');
        return;
      }
      if (this.#envelope !== undefined) {
        this.#say(503, '5.5.1 a transaction is under way', 'mail');
        return;
      }
      const sender = /<([^>]*)>/.exec(line)?.[1] ?? '';
      const begunAt = this.#end.peer.sentAt(this.#octetsRead - 1);
      const envelope: Envelope = { account: this.account, sender, recipients: [], begunAt };
      this.#answer(
        'mail',
        250,
        '2.1.0 ok',
        () => {
          this.#envelope = envelope;
        },
        envelope,
      );
    }

    #rcpt(line: string): void {
      const envelope = this.#envelope;
      const recipient = /<([^>]*)>/.exec(line)?.[1] ?? '';
      if (envelope === undefined) {
        this.#say(503, '5.5.1 MAIL first', 'rcpt');
        return;
      }
      const about = { ...envelope, recipients: [...envelope.recipients, recipient] };
      this.#answer('rcpt', 250, '2.1.5 ok', () => void envelope.recipients.push(recipient), about);
    }

    #offers(isStripped = false): readonly string[] {
      if (!this.#isSecure) return ['8BITMIME', isStripped ? 'AUTH LOGIN XOAUTH2' : 'STARTTLS'];
      const auth = 'AUTH LOGIN XOAUTH2';
      const tags = options.isTagged ? ['ENHANCEDSTATUSCODES'] : [];
      const all = ['SIZE 157286400', '8BITMIME', 'SMTPUTF8', ...tags, auth];
      if (flavour === 'plain') return all;
      return flavour === 'chunking' ? ['PIPELINING', 'CHUNKING', ...all] : ['PIPELINING', ...all];
    }

    /** The reply to a command, after a moment; a mood may change it. */
    #answer(
      stage: Stage,
      code: number,
      text: string,
      act: () => void,
      envelope?: Envelope,
      more: readonly string[] = [],
    ): void {
      this.#isBusy = true;
      const mood = provider.mood(stage, this.account);
      if (mood !== undefined)
        world.note(`${moodText(mood)} at ${stage} ${envelope?.recipients.at(-1) ?? ''}`, actor);
      const delay = dice.chance(0.3) ? 0 : dice.between(1, stage === 'end' ? 200 : 30);
      world.after(actor, mood?.kind === 'late' ? mood.ms : delay, () => {
        this.#isBusy = false;
        if (!sessions.has(this)) return;
        this.#react(mood, stage, code, text, act, envelope, more);
        this.#work();
      });
    }

    #react(
      mood: Mood | undefined,
      stage: Stage,
      code: number,
      text: string,
      act: () => void,
      envelope: Envelope | undefined,
      more: readonly string[],
    ): void {
      switch (mood?.kind) {
        case undefined:
        case 'late':
          act();
          this.#say(code, text, stage, envelope, more);
          return;
        case 'strip':
          act();
          this.#say(code, text, stage, envelope, stage === 'ehlo' ? this.#offers(true) : more);
          return;
        case 'reply':
          if (stage === 'auth') this.#refuse(mood);
          else this.#say(mood.code, mood.text, stage, envelope);
          if (mood.closes === true) this.close('fin');
          return;
        case 'drop':
          if (mood.acts) act();
          this.close(mood.how);
          return;
        case 'silence':
          this.#isSilent = true;
          return;
        case 'drip':
          act();
          this.#isSilent = true;
          this.#drip(
            `${code} ${options.isTagged ? text : text.replace(/^\d\.\d\.\d+ /, '')}\r\n`,
            mood.stepMs,
          );
          return;
        case 'extra':
          act();
          this.#say(code, text, stage, envelope, more);
          world.after(actor, mood.ms, () => {
            // In the middle of the next answers nobody on earth could tell it from one of them.
            if (sessions.has(this) && !this.#isBusy && !this.#isSilent && this.#envelope === undefined)
              this.#say(250, '2.0.0 said twice', stage, envelope);
          });
          return;
        default:
          mood satisfies never;
      }
    }

    #drip(text: string, stepMs: number): void {
      if (!sessions.has(this) || text === '') return;
      this.#end.send(Buffer.from(text.slice(0, 1)));
      world.after(actor, stepMs, () => this.#drip(text.slice(1), stepMs));
    }

    #say(code: number, text: string, stage: Stage, envelope?: Envelope, more: readonly string[] = []): void {
      let line = options.isTagged ? text : text.replace(/^\d\.\d\.\d+ /, '');
      if (stage !== 'ehlo' && stage !== 'greeting' && serialOf(text) === undefined && code >= 250) {
        const number = ++serial;
        line = `${line} #${number}`;
        said.set(number, {
          serial: number,
          code,
          stage,
          account: this.account,
          sender: envelope?.sender ?? '',
          recipients: [...(envelope?.recipients ?? [])],
        });
      }
      if (code >= 400) world.note(`${code} at ${stage} ${envelope?.recipients.at(-1) ?? ''}`, actor);
      const lines = more.length === 0 ? [`${code} ${line}`] : [`${code}-${line}`];
      for (const [i, offer] of more.entries())
        lines.push(`${code}${i < more.length - 1 ? '-' : ' '}${offer}`);
      this.#end.send(Buffer.from(`${lines.join('\r\n')}\r\n`));
    }
  }

  const provider: Provider = {
    name,
    place,
    actor,
    deliveries,
    said,
    mood: () => undefined,
    onLogin: () => undefined,
    onClear: () => undefined,
    accepts: () => true,
    idleMs: 300_000,
    ageMs: 1_200_000,
    down(how) {
      world.note(`goes down (${how})`, actor);
      stopListening?.();
      stopListening = undefined;
      for (const session of [...sessions]) {
        if (how === '421') session.leave('4.3.2 restarting');
        else session.close(how);
      }
    },
    up() {
      stopListening ??= network.listen(place, actor, (end) => void new Session(end));
    },
  };
  provider.up();
  return provider;
}

function unstuff(octets: Buffer): Buffer {
  const text = octets.toString('latin1');
  return Buffer.from(text.replace(/^\./, '').replaceAll('\r\n.', '\r\n'), 'latin1');
}

/** Which message of which attempt a body is. */
export function markOf(body: Buffer): string {
  return /^X-Sim: (\S+)/m.exec(body.toString('latin1', 0, 200))?.[1] ?? '?';
}

function moodText(mood: Mood): string {
  switch (mood.kind) {
    case 'reply':
      return `says ${mood.code} ${mood.text}`;
    case 'drop':
      return `drops (${mood.how}${mood.acts ? ', acted' : ''})`;
    default:
      return mood.kind;
  }
}
