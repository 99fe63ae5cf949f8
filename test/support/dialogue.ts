/** Whole transactions with a relay under test, on top of the line-oriented client. */
import { type ClientReply, type SmtpClient, smtpClient } from './smtp-client.ts';

export interface Mail {
  readonly from: string;
  readonly to?: readonly string[];
  readonly body?: string | Buffer;
  /** After the address in MAIL FROM, with its leading space. */
  readonly parameters?: string;
}

/** Connected, greeted, EHLO said. */
export async function greeted(port: number): Promise<SmtpClient> {
  const client = await smtpClient(port);
  try {
    await client.expect(undefined, 220);
    await client.expect('EHLO client.example', 250);
  } catch (error) {
    client.reset();
    throw error;
  }
  return client;
}

/** MAIL, RCPTs, DATA, body: the reply that ended it, a refusal of any command or the verdict. */
export async function transact(client: SmtpClient, mail: Mail): Promise<ClientReply> {
  const lines = [
    `MAIL FROM:<${mail.from}>${mail.parameters ?? ''}`,
    ...(mail.to ?? ['b@example.net']).map((to) => `RCPT TO:<${to}>`),
  ];
  for (const line of lines) {
    const reply = await client.send(line);
    if (reply.code !== 250) return reply;
  }
  const go = await client.send('DATA');
  if (go.code !== 354) return go;
  return client.body(mail.body ?? 'Subject: test\r\n\r\nhello\r\n');
}

/** One message on a connection of its own. */
export async function sendMail(port: number, mail: Mail): Promise<ClientReply> {
  const client = await greeted(port);
  try {
    return await transact(client, mail);
  } finally {
    client.end();
  }
}
