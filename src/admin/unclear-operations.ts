/**
 * The operations on messages of which nobody knows whether Graph sent them. In: a key and what a person
 * says. Out: the list, and whether it is noted.
 */
import { ok, refuse } from './answer.ts';
import type { Operation } from './operation.ts';

const NOT_NOTED = {
  none: [404, 'no such unclear message'],
  busy: [409, 'this message is worked on now: ask again in a minute'],
  away: [503, 'it cannot be noted now: Redis or the state directory does not answer'],
} satisfies Record<string, Parameters<typeof refuse>>;

/** What a person says became of a message of which nobody knows. */
const decision = (said: 'delivered' | 'again', id: string, summary: string): Operation => ({
  method: 'post',
  path: `/admin/unclear/{key}/${said}`,
  id,
  summary,
  parameters: [{ name: 'key', in: 'path', description: 'Its key in the list', schema: { type: 'string' } }],
  answers: {
    200: ['Noted', 'Decided'],
    404: ['No such unclear message', 'Error'],
    409: ['It is worked on now; ask again in a minute', 'Error'],
    503: ['It cannot be noted now', 'Error'],
  },
  async handle(house, asked) {
    const key = asked.param('key');
    const result = await house.backend.decide(key, said).catch(() => 'away' as const);
    if (result !== 'done') return refuse(...NOT_NOTED[result]);
    house.acted(`unclear ${said}`, { key });
    return ok('Decided', { ok: true });
  },
});

export const UNCLEAR: readonly Operation[] = [
  {
    method: 'get',
    path: '/admin/unclear',
    id: 'unclear',
    summary: 'Messages of which nobody knows whether Graph sent them',
    answers: { 200: ['The messages', 'Unclear'], 503: ['It cannot be known now', 'Error'] },
    handle: ({ backend }) =>
      backend.unclear().then(
        (messages) => ok('Unclear', { messages }),
        () => refuse(503, 'it cannot be known now: Redis or the state directory does not answer'),
      ),
  },
  decision('delivered', 'unclearDelivered', 'It was sent: its next retry hears 250'),
  decision('again', 'unclearAgain', 'It was not sent: its next retry is sent'),
];
