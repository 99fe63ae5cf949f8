/**
 * An MTA that hands its queue to a relay: lock-step or pipelining, hanging up where the plan says so,
 * trying 4xx again with the same message. Owns its messages and everything it has heard of them.
 */
import { type LoginHabit, logIn, type Sasl } from './client-login.ts';
import type { End, Network } from './network.ts';
import type { Random } from './random.ts';
import type { Actor, Scheduled, World } from './world.ts';

export interface Message {
  readonly id: string;
  readonly account: string;
  readonly sender: string;
  readonly recipients: readonly string[];
  readonly octets: number;
  /** The same octets at each try, with a Message-ID and all recipients in To. */
  readonly byGraph: boolean;
  /** Whom its header names, where it may go to some of them by itself. */
  readonly to?: readonly string[];
  /** By Graph; default its own. */
  readonly messageId?: string;
  /** The same word for word, but for its Date. */
  readonly isSaidAgain?: true;
  /** Of the account; undefined: mail of it needs no AUTH. */
  readonly password: string | undefined;
}

export interface Heard {
  readonly code: number;
  readonly text: string;
  readonly at: number;
}

/** One try of one message. */
export interface Attempt {
  readonly message: Message;
  readonly number: number;
  readonly relay: string;
  readonly body: Buffer;
  readonly begunAt: number;
  /** The account that the session has logged in to. */
  readonly loggedInTo: string | undefined;
  mail: Heard | undefined;
  /** One for each recipient asked for. */
  readonly rcpts: { readonly recipient: string; reply: Heard | undefined }[];
  data: Heard | undefined;
  final: Heard | undefined;
  /** When the last octet of the body was written. */
  dotAt: number | undefined;
  /** When the client closed, of its own will. */
  leftAt: number | undefined;
  /** Its connection ended without a final reply: the other side, or the network. */
  lostAt: number | undefined;
  /** The end at the relay: when it was told that the client is gone. */
  farEnd: End | undefined;
  endedAt: number | undefined;
}

export interface ClientHabits {
  readonly style: 'lock-step' | 'pipelining';
  /** Messages on one connection. */
  readonly perConnection: number;
  readonly retryMs: readonly [number, number];
  readonly gapMs: readonly [number, number];
  readonly sasl: Sasl;
}

/** Where a client hangs up, asked at each point of an attempt. */
export type HangUp = 'no' | 'close' | 'abort' | 'half';
export type Point = 'greeting' | 'ehlo' | 'auth' | 'mail' | 'rcpt' | 'data' | 'body' | 'dot';

export interface Client {
  readonly actor: Actor;
  readonly attempts: readonly Attempt[];
  readonly queue: readonly Message[];
  /** Messages that heard 5xx as a whole. */
  readonly bounced: ReadonlySet<Message>;
  readonly isDone: boolean;
  /** Nothing is under way. */
  readonly isIdle: boolean;
  hangUp: (point: Point, dice: Random) => HangUp;
  /** How it logs in where it has to; `none`: not at all. */
  loginHabit: () => LoginHabit | 'none';
  /** What came of a login. */
  onLogin: (account: string, how: LoginHabit, reply: Heard) => void;
  /** A command that heard nothing for too long. */
  onUnanswered: (what: string) => void;
  add(message: Message, inMs: number): void;
  /** From now on what waits is tried again soon, as when an operator flushes the queue. */
  flush(): void;
}

/** RFC 5321 §4.5.3.2 gives MAIL and RCPT 5 minutes and the final dot 10; nothing may take longer than that. */
const PATIENCE_MS: Readonly<Record<Point, number>> = {
  greeting: 300_000,
  ehlo: 300_000,
  auth: 300_000,
  mail: 300_000,
  rcpt: 300_000,
  data: 120_000,
  body: 600_000,
  dot: 600_000,
};

/** Between tries once its queue is flushed, ms. */
const FLUSHED_MS = [20_000, 40_000] as const;

interface Waiting {
  readonly message: Message;
  readonly number: number;
  dueAt: number;
}

class Gone extends Error {}

export function createClient(
  world: World,
  network: Network,
  options: { readonly name: string; readonly relays: () => readonly string[]; readonly habits: ClientHabits },
): Client {
  const { habits } = options;
  const actor = world.spawn(options.name);
  const dice = world.random.branch(options.name);
  const attempts: Attempt[] = [];
  const bounced = new Set<Message>();
  /** Still to be sent, with the recipients that have not been settled. */
  const waiting: Waiting[] = [];
  let underWay = 0;
  let isWorking = false;
  let planned: Scheduled | undefined;
  let isFlushed = false;

  const pause = (ms: number): Promise<void> =>
    new Promise((resolve) => world.after(actor, ms, resolve, 'client'));

  interface Session {
    readonly end: End;
    read(point: Point): Promise<Heard>;
    write(text: string | Buffer): void;
    readonly isOpen: boolean;
  }

  function open(relay: string): Promise<Session | undefined> {
    return new Promise((resolve) => {
      let input = '';
      let isOpen = true;
      let waiter: { take: (reply: Heard) => void; gone: () => void } | undefined;
      const ready: Heard[] = [];
      let lines: string[] = [];
      const over = (): void => {
        isOpen = false;
        waiter?.gone();
        waiter = undefined;
      };
      const end = network.dial(actor, `${relay}:25`, {
        connected: () => resolve(session),
        refused: () => resolve(undefined),
        octets(chunk) {
          input += chunk.toString('latin1');
          for (let lf = input.indexOf('\r\n'); lf >= 0; lf = input.indexOf('\r\n')) {
            const line = input.slice(0, lf);
            input = input.slice(lf + 2);
            lines.push(line.slice(4));
            if (line[3] === '-') continue;
            const reply = { code: Number(line.slice(0, 3)), text: lines.join('\n'), at: world.now };
            lines = [];
            if (waiter === undefined) ready.push(reply);
            else {
              const { take } = waiter;
              waiter = undefined;
              take(reply);
            }
          }
          return true;
        },
        fin() {
          over();
          end.close();
        },
        reset: over,
      });
      // A path that is black at connect.
      world.after(actor, 30_000, () => resolve(isOpen && end.sent === 0 ? undefined : session), 'client');
      const session: Session = {
        end,
        get isOpen() {
          return isOpen;
        },
        write: (text) => end.send(typeof text === 'string' ? Buffer.from(text, 'latin1') : text),
        read: (point) =>
          new Promise((take, reject) => {
            const there = ready.shift();
            if (there !== undefined) return take(there);
            if (!isOpen) return reject(new Gone());
            const limit = world.after(
              actor,
              PATIENCE_MS[point],
              () => {
                client.onUnanswered(`${point} after ${PATIENCE_MS[point] / 1000} s`);
                end.abort();
                over();
              },
              'client',
            );
            waiter = {
              take: (reply) => {
                limit.cancel();
                take(reply);
              },
              gone: () => {
                limit.cancel();
                reject(new Gone());
              },
            };
          }),
      };
    });
  }

  /** Hangs up if the plan says so. Throws `Gone` then. */
  function maybeLeave(point: Point, session: Session, attempt: Attempt | undefined): void {
    const how = client.hangUp(point, dice);
    if (how === 'no') return;
    world.note(`hangs up (${how}) at ${point}${attempt === undefined ? '' : ` of ${keyOf(attempt)}`}`, actor);
    if (how === 'half') {
      session.end.finish();
      return;
    }
    if (attempt !== undefined) attempt.leftAt = world.now;
    if (how === 'close') session.end.close();
    else session.end.abort();
    throw new Gone();
  }

  async function transact(session: Session, attempt: Attempt): Promise<void> {
    const { message } = attempt;
    const pipelines = habits.style === 'pipelining';
    attempt.farEnd = session.end.peer;
    const commands = [
      `MAIL FROM:<${message.sender}>\r\n`,
      ...attempt.rcpts.map(({ recipient }) => `RCPT TO:<${recipient}>\r\n`),
    ];
    if (pipelines) session.write(`${commands.join('')}DATA\r\n`);
    else session.write(commands[0] ?? '');
    maybeLeave('mail', session, attempt);
    attempt.mail = await session.read('mail');
    const isMailTaken = attempt.mail.code < 400;
    if (!isMailTaken && !pipelines) return;
    for (const [i, rcpt] of attempt.rcpts.entries()) {
      if (!pipelines) session.write(commands[i + 1] ?? '');
      maybeLeave('rcpt', session, attempt);
      const reply = await session.read('rcpt');
      if (isMailTaken) rcpt.reply = reply;
    }
    const isAnyTaken = attempt.rcpts.some((r) => r.reply !== undefined && r.reply.code < 400);
    if (!pipelines) {
      if (!isAnyTaken) {
        session.write('RSET\r\n');
        await session.read('rcpt');
        return;
      }
      session.write('DATA\r\n');
    }
    maybeLeave('data', session, attempt);
    const data = await session.read('data');
    if (isMailTaken) attempt.data = data;
    if (data.code !== 354) {
      session.write('RSET\r\n');
      await session.read('rcpt');
      return;
    }
    await sendBody(session, attempt);
    attempt.final = await session.read('dot');
    world.note(`hears ${attempt.final.code} for ${keyOf(attempt)}`, actor);
  }

  async function sendBody(session: Session, attempt: Attempt): Promise<void> {
    const stuffed = Buffer.from(attempt.body.toString('latin1').replace(/^\./gm, '..'), 'latin1');
    const pieces = stuffed.length > 2000 ? dice.between(2, 5) : 1;
    const size = Math.ceil(stuffed.length / pieces);
    for (let at = 0; at < stuffed.length; at += size) {
      if (at > 0) {
        await pause(dice.between(0, 50));
        maybeLeave('body', session, attempt);
        if (!session.isOpen) throw new Gone();
      }
      session.write(stuffed.subarray(at, at + size));
    }
    maybeLeave('body', session, attempt);
    session.write('.\r\n');
    attempt.dotAt = world.now;
    maybeLeave('dot', session, attempt);
  }

  /** After so many tries, ms. */
  function pauseBefore(tries: number): number {
    const [least, most] = isFlushed ? FLUSHED_MS : habits.retryMs;
    return (isFlushed ? 1 : Math.min(1.5 ** (tries - 1), 10)) * dice.between(least, most);
  }

  function settle(attempt: Attempt): void {
    attempt.endedAt = world.now;
    const { message } = attempt;
    const verdict =
      attempt.mail !== undefined && attempt.mail.code >= 400 ? attempt.mail : (attempt.final ?? attempt.data);
    const again = (recipients: readonly string[]): void => {
      if (recipients.length === 0) return;
      // A queue may be cut in two at any time.
      if (message.to !== undefined && recipients.length > 1 && dice.chance(0.3)) {
        again(recipients.slice(0, 1));
        again(recipients.slice(1));
        return;
      }
      const dueAt = world.now + pauseBefore(attempt.number);
      waiting.push({ message: { ...message, recipients }, number: attempt.number + 1, dueAt });
    };
    // It had not logged in: nothing was said of the message.
    if (attempt.mail?.code === 530) {
      again(message.recipients);
      return;
    }
    if (verdict !== undefined && verdict.code >= 500 && verdict.code < 600 && attempt.data?.code !== 354) {
      // 554 at DATA only repeats what each recipient was told.
      const open = attempt.rcpts.filter(
        (r) => r.reply === undefined || (r.reply.code >= 400 && r.reply.code < 500),
      );
      if (verdict === attempt.mail) bounced.add(message);
      else again(open.map((r) => r.recipient));
      return;
    }
    if (attempt.final !== undefined && attempt.final.code >= 500) {
      bounced.add(message);
      again(
        attempt.rcpts.filter((r) => r.reply === undefined || isTemporary(r.reply)).map((r) => r.recipient),
      );
      return;
    }
    const isTaken = attempt.final?.code === 250;
    again(
      attempt.rcpts
        .filter(({ reply }) => {
          if (reply === undefined || isTemporary(reply)) return true;
          return reply.code < 400 && !isTaken;
        })
        .map((r) => r.recipient),
    );
  }

  async function work(): Promise<void> {
    while (waiting.some((w) => w.dueAt <= world.now)) {
      const relay = dice.pick(options.relays());
      const session = await open(relay);
      if (session === undefined) {
        await pause(dice.between(1_000, 10_000));
        continue;
      }
      try {
        maybeLeave('greeting', session, undefined);
        const greeting = await session.read('greeting');
        if (greeting.code !== 220) throw new Gone();
        session.write('EHLO client.test\r\n');
        maybeLeave('ehlo', session, undefined);
        await session.read('ehlo');
        const login = await logInFor(dueFor(() => true)?.message, session);
        for (let n = 0; n < habits.perConnection; n++) {
          const next = dueFor(login.mayBegin);
          if (next === undefined) break;
          waiting.splice(waiting.indexOf(next), 1);
          const attempt = begin(next.message, next.number, relay, login.account);
          underWay += 1;
          try {
            await transact(session, attempt);
          } catch (error) {
            if (!(error instanceof Gone)) throw error;
            attempt.lostAt = world.now;
            throw error;
          } finally {
            underWay -= 1;
            settle(attempt);
          }
          const [least, most] = habits.gapMs;
          if (most > 0) await pause(dice.between(least, most));
        }
        session.write('QUIT\r\n');
        await session.read('rcpt');
        session.end.close();
      } catch (error) {
        if (!(error instanceof Gone)) throw error;
        session.end.close();
        await pause(dice.between(100, 5_000));
      }
    }
    isWorking = false;
    wake();
  }

  const dueFor = (mayBegin: (message: Message) => boolean): Waiting | undefined =>
    waiting.find((w) => w.dueAt <= world.now && mayBegin(w.message));

  /** Logs in where `message` needs it. In a session that is logged in only that account's mail is sent. */
  async function logInFor(
    message: Message | undefined,
    session: Session,
  ): Promise<{ readonly account: string | undefined; readonly mayBegin: (message: Message) => boolean }> {
    if (message?.password === undefined)
      return { account: undefined, mayBegin: (m) => m.password === undefined };
    const { account: user, password } = message;
    const how = client.loginHabit();
    const mayBegin = (m: Message): boolean => m.account === user;
    if (how === 'none') return { account: undefined, mayBegin };
    maybeLeave('auth', session, undefined);
    const reply = await logIn(session, { sasl: habits.sasl, user, password, how });
    client.onLogin(user, how, reply);
    if (reply.code === 235) return { account: user, mayBegin };
    for (const w of waiting) if (mayBegin(w.message)) w.dueAt = world.now + pauseBefore(w.number);
    return { account: undefined, mayBegin: () => false };
  }

  function begin(message: Message, number: number, relay: string, loggedInTo: string | undefined): Attempt {
    const attempt: Attempt = {
      message,
      number,
      relay,
      loggedInTo,
      body: writeBody(message, number),
      begunAt: world.now,
      mail: undefined,
      rcpts: message.recipients.map((recipient) => ({ recipient, reply: undefined })),
      data: undefined,
      final: undefined,
      dotAt: undefined,
      leftAt: undefined,
      lostAt: undefined,
      farEnd: undefined,
      endedAt: undefined,
    };
    attempts.push(attempt);
    return attempt;
  }

  /** Works as soon as something is due. */
  function wake(): void {
    if (isWorking || waiting.length === 0) return;
    planned?.cancel();
    const due = Math.min(...waiting.map((w) => w.dueAt));
    const begin = (): void => {
      isWorking = true;
      void work();
    };
    planned = world.after(actor, Math.max(0, due - world.now), begin, 'client');
  }

  const client: Client = {
    actor,
    attempts,
    bounced,
    get queue() {
      return waiting.map((w) => w.message);
    },
    get isDone() {
      return waiting.length === 0 && underWay === 0;
    },
    get isIdle() {
      return underWay === 0;
    },
    hangUp: () => 'no',
    loginHabit: () => 'right',
    onLogin: () => undefined,
    onUnanswered: () => undefined,
    add(message, inMs) {
      waiting.push({ message, number: 1, dueAt: world.now + inMs });
      world.after(actor, inMs, wake, 'client');
    },
    flush() {
      isFlushed = true;
      for (const w of waiting) w.dueAt = Math.min(w.dueAt, world.now + pauseBefore(w.number));
      world.after(actor, 0, wake, 'client');
    },
  };
  return client;
}

const isTemporary = (reply: Heard): boolean => reply.code >= 400 && reply.code < 500;

export const keyOf = (attempt: Attempt): string => `${attempt.message.id}.${attempt.number}`;

/** Lines of all kinds, dots at their beginnings among them. */
function writeBody(message: Message, number: number): Buffer {
  const rest = `From: ${message.sender}\r\nSubject: test\r\n\r\n`;
  const head = message.byGraph
    ? `X-Sim: ${message.id}\r\nMessage-ID: <${message.messageId ?? message.id}@sim>\r\nTo: ${(message.to ?? message.recipients).join(', ')}\r\n${rest}`
    : `X-Sim: ${message.id}.${number}\r\n${rest}`;
  const lines = ['.', '..', '.hidden', 'plain text', '', 'x'.repeat(70), 'QUIT', 'RCPT TO:<x@y>', '250 ok'];
  if (message.isSaidAgain)
    return Buffer.from(
      `${head.replace('Subject:', `Date: ${message.id}\r\nSubject:`)}on battery\r\n`,
      'latin1',
    );
  let text = message.messageId === undefined ? head : `${head}${message.id}\r\n`;
  for (let i = 0; text.length < message.octets; i++) text += `${lines[i % lines.length]}\r\n`;
  return Buffer.from(text, 'latin1');
}
