/** The messages the demo sends: complete RFC 5322 texts with CRLF line ends. */
import { createHash, randomBytes } from 'node:crypto';

export interface DemoMessage {
  readonly title: string;
  readonly sender: string;
  readonly recipients: readonly string[];
  readonly smtpUtf8: boolean;
  readonly body: Buffer;
}

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

const wrapped = (bytes: Buffer): string => bytes.toString('base64').replace(/.{76}(?=.)/g, '$&\r\n');

/** A 1 × 1 pixel PNG, as small as an image gets. */
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);

function message(head: Record<string, string>, content: string): Buffer {
  const lines = Object.entries({
    Date: new Date().toUTCString().replace('GMT', '+0000'),
    'Message-ID': `<${randomBytes(8).toString('hex')}@demo.example>`,
    'MIME-Version': '1.0',
    ...head,
  }).map(([key, value]) => `${key}: ${value}`);
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${content}`);
}

export function invoice(sender: string): DemoMessage {
  const mark = 'b0undary';
  const part = (head: string, content: string): string => `--${mark}\r\n${head}\r\n\r\n${content}\r\n`;
  const content = [
    part(
      'Content-Type: text/plain; charset=utf-8',
      'Dear customer,\r\n\r\nyour invoice is attached.\r\n.\r\n..and a line that begins with dots.',
    ),
    part(
      'Content-Type: text/csv; name="invoice.csv"\r\nContent-Disposition: attachment; filename="invoice.csv"',
      'item,price\r\ncoffee,2.40\r\ntea,2.10',
    ),
    part(
      'Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename="logo.png"',
      wrapped(PNG),
    ),
    `--${mark}--\r\n`,
  ].join('');
  const to = 'customer@example.net';
  return {
    title: 'multipart with two attachments',
    sender,
    recipients: [to],
    smtpUtf8: false,
    body: message(
      {
        From: sender,
        To: to,
        Subject: 'Invoice 4711',
        'Content-Type': `multipart/mixed; boundary="${mark}"`,
      },
      content,
    ),
  };
}

export function greeting(sender: string): DemoMessage {
  const to = 'jörg@bücher.example';
  return {
    title: 'UTF-8 address (SMTPUTF8), two recipients',
    sender,
    recipients: [to, 'second@example.net'],
    smtpUtf8: true,
    body: message(
      { From: sender, To: to, Subject: 'Grüße aus Köln', 'Content-Type': 'text/plain; charset=utf-8' },
      'Schöne Grüße – 你好 – ¡hola!\r\n',
    ),
  };
}

export function archive(sender: string): DemoMessage {
  const octets = 10 * 1024 * 1024;
  const to = 'backup@example.net';
  const content = wrapped(randomBytes(Math.floor((octets / 78) * 57)));
  return {
    title: '10 MB attachment',
    sender,
    recipients: [to],
    smtpUtf8: false,
    body: message(
      {
        From: sender,
        To: to,
        Subject: 'Nightly archive',
        'Content-Type': 'application/octet-stream; name="archive.bin"',
        'Content-Transfer-Encoding': 'base64',
      },
      `${content}\r\n`,
    ),
  };
}

export function note(sender: string): DemoMessage {
  const to = 'bob@example.net';
  return {
    title: 'a short note',
    sender,
    recipients: [to],
    smtpUtf8: false,
    body: message({ From: sender, To: to, Subject: 'Hello' }, 'Hello Bob\r\n'),
  };
}
