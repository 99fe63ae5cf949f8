/**
 * An MTA's queue: sends messages to a relay and tries again what heard 4xx or nothing, in lock-step or with
 * PIPELINING, now and then slowly, now and then dying in the middle. In: a relay's port, dice. Out: attempts.
 */
import { createHash } from 'node:crypto';
import type { Random } from '../sim/random.ts';
import { type ClientReply, dotStuffed, type SmtpClient, smtpClient } from '../support/smtp-client.ts';
import type { Attempt } from './judge.ts';

export interface ClientOptions {
  readonly name: string;
  readonly senders: readonly string[];
  /** Asked for each connection: a relay that was started again has another. Undefined: there is none just now. */
  readonly port: () => number | undefined;
  readonly dice: Random;
  /** Between two messages, ms. */
  readonly everyMs: number;
}

export interface SoakClient {
  readonly attempts: readonly Attempt[];
  /** Messages that have not been settled. */
  readonly waiting: number;
  /** Commands that nothing was answered to in time. */
  readonly unanswered: readonly string[];
  /** No new messages; those that wait are sent, and nobody dies any more. Resolves when none waits, at the latest after `boundMs`. */
  finish(boundMs: number): Promise<void>;
}

interface Message {
  readonly id: string;
  readonly sender: string;
  readonly recipients: readonly string[];
  readonly octets: number;
  tries: number;
  dueAt: number;
}

/** Longer than any wait of the relay's own. */
const PATIENCE_MS = 630_000;
const RETRY_MS = [500, 4_000] as const;

const pause = (ms: number): Promise<void> => new Promise((resume) => setTimeout(resume, ms));

/** Hung up on purpose. */
class Died extends Error {}

export function startClient(options: ClientOptions): SoakClient {
  const { dice, name } = options;
  const attempts: Attempt[] = [];
  const unanswered: string[] = [];
  const queue: Message[] = [];
  let stage: 'sending' | 'finishing' | 'over' = 'sending';
  let serial = 0;
  let nextAt = Date.now() + dice.between(0, options.everyMs);

  function newMessage(): Message {
    const id = `${name}-${++serial}`;
    const count = dice.chance(0.7) ? 1 : dice.between(2, 4);
    return {
      id,
      sender: dice.pick(options.senders),
      recipients: Array.from({ length: count }, (_, i) => `${id}-${i}@example.net`),
      octets: dice.chance(0.97) ? dice.between(100, 8_000) : dice.between(300_000, 600_000),
      tries: 0,
      dueAt: 0,
    };
  }

  async function heard(client: SmtpClient, what: string): Promise<ClientReply> {
    try {
      return await client.reply(PATIENCE_MS);
    } catch (error) {
      if (/nothing within/.test(String(error))) unanswered.push(`${name} at ${what}`);
      throw error;
    }
  }

  async function transact(
    client: SmtpClient,
    message: Message,
    attempt: Attempt,
    body: Buffer,
  ): Promise<void> {
    const dies = stage === 'sending' && dice.chance(0.03) ? dice.pick(['mail', 'body', 'dot']) : 'never';
    const isSlow = stage === 'sending' && dice.chance(0.03);
    const pipelines = dice.chance(0.5);
    const note = (reply: ClientReply): ClientReply => {
      if (reply.code >= 500) attempt.bounce ??= reply.text;
      return reply;
    };
    const die = (): never => {
      if (dice.chance(0.5)) client.reset();
      else client.end();
      throw new Died();
    };
    const commands = [
      `MAIL FROM:<${message.sender}>\r\n`,
      ...message.recipients.map((recipient) => `RCPT TO:<${recipient}>\r\n`),
      'DATA\r\n',
    ];
    if (pipelines) await client.raw(commands.join(''));
    else await client.raw(commands[0] ?? '');
    if (dies === 'mail') die();
    const mail = note(await heard(client, 'MAIL'));
    const promised: string[] = [];
    for (const [i, recipient] of message.recipients.entries()) {
      if (!pipelines) {
        if (mail.code >= 400) break;
        await client.raw(commands[i + 1] ?? '');
      }
      const reply = await heard(client, 'RCPT');
      // Behind a MAIL that was refused these say 503 only for that.
      if (mail.code < 400 && note(reply).code === 250) promised.push(recipient);
      else if (mail.code < 400) attempt.final = reply;
    }
    attempt.promised = promised;
    if (mail.code >= 400) attempt.final = mail;
    if (promised.length === 0 && !pipelines) return;
    if (!pipelines) await client.raw('DATA\r\n');
    const data = await heard(client, 'DATA');
    if (data.code !== 354) {
      if (promised.length > 0) attempt.final = note(data);
      return;
    }
    attempt.final = undefined;
    const octets = dotStuffed(body);
    if (dies === 'body') {
      await client.raw(octets.subarray(0, dice.between(1, octets.length - 4)));
      die();
    }
    if (isSlow) {
      const step = Math.ceil(octets.length / 10);
      for (let at = 0; at < octets.length; at += step) {
        await client.raw(octets.subarray(at, at + step));
        await pause(dice.between(50, 500));
      }
    } else await client.raw(octets);
    if (dies === 'dot') die();
    attempt.final = note(await heard(client, 'the final dot'));
  }

  /** What is left of it goes back into the queue. */
  function settle(message: Message, attempt: Attempt): void {
    const isTaken = attempt.final?.code === 250;
    const left = isTaken
      ? message.recipients.filter((recipient) => !attempt.promised.includes(recipient))
      : message.recipients;
    if (left.length === 0 || attempt.bounce !== undefined) return;
    queue.push({ ...message, recipients: left, dueAt: Date.now() + dice.between(...RETRY_MS) });
  }

  const due = (): number => queue.findIndex((message) => message.dueAt <= Date.now());

  async function oneConnection(client: SmtpClient): Promise<void> {
    const greeting = await heard(client, 'the greeting');
    if (greeting.code !== 220) return;
    await client.raw('EHLO soak.example\r\n');
    await heard(client, 'EHLO');
    for (let left = dice.pick([1, 5, 30]); left > 0; left -= 1) {
      const [message] = due() < 0 ? [] : queue.splice(due(), 1);
      if (message === undefined) break;
      message.tries += 1;
      const mark = `${message.id}.${message.tries}`;
      const body = writeBody(mark, message);
      const sha256 = createHash('sha256').update(body).digest('hex');
      const attempt: Attempt = { mark, promised: [], final: undefined, bounce: undefined, sha256 };
      attempts.push(attempt);
      try {
        await transact(client, message, attempt, body);
      } finally {
        settle(message, attempt);
      }
      if (attempt.final?.code !== 250) {
        await client.raw('RSET\r\n');
        if ((await heard(client, 'RSET')).code === 421) return;
      }
    }
    await client.raw('QUIT\r\n');
    await heard(client, 'QUIT');
  }

  async function work(): Promise<void> {
    while (stage !== 'over') {
      if (stage === 'sending' && Date.now() >= nextAt) {
        queue.push(newMessage());
        nextAt = Date.now() + dice.between(0, 2 * options.everyMs);
      }
      if (stage === 'finishing' && queue.length === 0) break;
      const port = options.port();
      if (due() < 0 || port === undefined) {
        await pause(50);
        continue;
      }
      const client = await smtpClient(port).catch(() => undefined);
      if (client === undefined) {
        await pause(500);
        continue;
      }
      // An ended connection is what a soak is about; what it was in the middle of is in the queue again.
      await oneConnection(client).catch(() => undefined);
      client.socket.destroy();
    }
    stage = 'over';
  }

  const over = work();
  return {
    attempts,
    get waiting() {
      return queue.length;
    },
    unanswered,
    async finish(boundMs) {
      stage = 'finishing';
      await Promise.race([over, pause(boundMs)]);
      stage = 'over';
      await Promise.race([over, pause(1_000)]);
    },
  };
}

function writeBody(mark: string, message: Message): Buffer {
  const lines = ['.', '..hidden', 'plain', '', 'x'.repeat(76), 'QUIT', '250 ok'];
  let text = `X-Soak: ${mark}\r\nFrom: <${message.sender}>\r\nSubject: soak\r\n\r\n`;
  for (let i = 0; text.length < message.octets; i++) text += `${lines[i % lines.length]}\r\n`;
  return Buffer.from(text, 'latin1');
}

/** Whose body it is. */
export const markOf = (body: Buffer): string =>
  /^X-Soak: (\S+)/m.exec(body.toString('latin1', 0, 80))?.[1] ?? '?';
