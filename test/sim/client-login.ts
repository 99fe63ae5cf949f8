/** How a client says who it is: AUTH PLAIN and LOGIN, right, wrong, or given up in the middle (RFC 4954, RFC 4616). */
import type { Heard } from './client.ts';

export type Sasl = 'PLAIN' | 'PLAIN in two steps' | 'LOGIN' | 'LOGIN with user';

/** `cancel`: says `*` instead of the last line. */
export type LoginHabit = 'right' | 'wrong password' | 'cancel';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** The lines of `sasl`, each after the reply to the one before. */
function linesOf(sasl: Sasl, user: string, password: string): readonly string[] {
  const plain = base64(`\0${user}\0${password}`);
  switch (sasl) {
    case 'PLAIN':
      return [`AUTH PLAIN ${plain}`];
    case 'PLAIN in two steps':
      return ['AUTH PLAIN', plain];
    case 'LOGIN':
      return ['AUTH LOGIN', base64(user), base64(password)];
    case 'LOGIN with user':
      return [`AUTH LOGIN ${base64(user)}`, base64(password)];
    default:
      return sasl satisfies never;
  }
}

/** The reply that decides. Rejects where the connection ends. */
export async function logIn(
  session: { write(text: string): void; read(point: 'auth'): Promise<Heard> },
  { sasl, user, password, how }: { sasl: Sasl; user: string; password: string; how: LoginHabit },
): Promise<Heard> {
  const lines = [...linesOf(sasl, user, how === 'wrong password' ? `${password}-not` : password)];
  if (how === 'cancel') {
    if (lines.length === 1) lines.unshift('AUTH PLAIN');
    lines[lines.length - 1] = '*';
  }
  let reply: Heard | undefined;
  for (const line of lines) {
    if (reply !== undefined && reply.code !== 334) break;
    session.write(`${line}\r\n`);
    reply = await session.read('auth');
  }
  if (reply === undefined) throw new Error('a mechanism without a line');
  return reply;
}
