/**
 * The operations by which accounts come, go and are signed in to again. In: the parts of a request. Out: status and
 * body. Those of invited people ask for a key in place of the admin token.
 */
import { foldAscii } from '../protocol/text.ts';
import { type Answer, ok, refuse } from './answer.ts';
import type { SignInAnswer } from './backend.ts';
import { type AdminRequest, acted, type House, ID, type Operation, onAccount } from './operation.ts';
import { SHAPES, type Shape, type ShapeName } from './shapes.ts';

const EXPECT_TOKEN = 'access_token and expires_in (seconds)';
const CONFLICT = ['It cannot be done now, in words', 'Error'] as const;

/** Goes on with the body; 400 where it is another thing than `expected`. */
async function taking<N extends ShapeName>(
  asked: AdminRequest,
  shape: N,
  expected: string,
  goOn: (body: Shape<N>) => Promise<Answer>,
): Promise<Answer> {
  const parsed = SHAPES[shape].safeParse(await asked.json().catch(() => undefined));
  return parsed.success ? goOn(parsed.data as Shape<N>) : refuse(400, `expected ${expected}`);
}

const answer = (said: SignInAnswer): Answer => (said.ok ? ok('SignIn', said.row) : refuse(409, said.error));

/** By address or id: an account that is being added has no row yet. */
const idOf = (house: House, asked: AdminRequest): string => {
  const name = asked.param('id');
  return house.backend.account(name)?.id ?? foldAscii(name);
};

const signIn = (
  operation: Omit<Operation, 'parameters' | 'path' | 'answers' | 'handle'> & {
    readonly under?: string;
    readonly run: Run;
  },
): Operation => {
  const { run, under = '', ...rest } = operation;
  return {
    ...rest,
    path: `/admin/accounts/{id}/sign-in${under}`,
    parameters: [ID],
    answers: { 200: ['Its state', 'SignIn'], 409: CONFLICT },
    handle: (house, asked) => run(house, idOf(house, asked), asked),
  };
};

type Run = (house: House, id: string, asked: AdminRequest) => Promise<Answer>;

const begin = (
  { backend }: House,
  id: string,
  asked: AdminRequest,
  { onBegun, isInvited }: { onBegun?: () => void; isInvited?: () => boolean },
): Promise<Answer> =>
  taking(asked, 'SignInWay', '{ "way": "device" } or { "way": "browser" }', async ({ way }) => {
    const said = await backend.signIns.begin(id, way, asked.origin(), isInvited);
    if (said.ok) onBegun?.();
    return answer(said);
  });

const paste: Run = ({ backend }, id, asked) =>
  taking(asked, 'Pasted', '{ "url": address of the page you ended on }', async ({ url }) =>
    answer(await backend.signIns.paste(id, url)),
  );

const keyOf = (asked: AdminRequest): string => asked.header('x-invite-key') ?? '';

/** Calls `run` for whom the key invites. */
const invited = (
  operation: Omit<Operation, 'path' | 'answers' | 'handle' | 'access'> & {
    readonly under?: string;
    readonly answered: ShapeName;
    /** Where the key is spent. */
    readonly spent: 'shown' | 'refused';
    readonly run: Run;
  },
): Operation => {
  const { run, under = '', answered, spent, ...rest } = operation;
  return {
    ...rest,
    path: `/sign-in/invited${under}`,
    access: 'open',
    answers: {
      200: ['As asked', answered],
      409: CONFLICT,
      410: ['No such key, its day is over, or somebody signed in with it', 'Error'],
    },
    async handle(house, asked) {
      const invite = house.backend.signIns.invited(keyOf(asked));
      if (invite === undefined || (invite.state === 'used' && spent === 'refused'))
        return refuse(410, 'this link is not good any more: ask for another');
      return run(house, invite.account, asked);
    },
  };
};

export const SIGN_IN_OPERATIONS: readonly Operation[] = [
  {
    method: 'post',
    path: '/admin/accounts',
    id: 'addAccount',
    summary: 'Sign in to a new account; it is written to the accounts file when that is done and proved',
    takes: 'NewAccount',
    answers: { 200: ['Where to sign in', 'SignIn'], 409: CONFLICT },
    handle: (house, asked) =>
      taking(
        asked,
        'NewAccount',
        'email, provider, way, and perhaps client_id, client_secret, tenant',
        async ({ way, ...account }) => {
          const said = await house.backend.signIns.add(account, way, asked.origin());
          if (said.ok) house.acted('add', { account: said.row.account });
          return answer(said);
        },
      ),
  },
  onAccount({
    method: 'delete',
    path: '/admin/accounts/{id}',
    id: 'removeAccount',
    summary: 'Take the account out of the accounts file; the consent at the provider stays',
    answers: { 200: ['Removed', 'Drained'], 409: CONFLICT },
    async run(house, { id }) {
      const { ok: isDone, error = 'cannot be removed' } = await house.backend.removeAccount(id);
      return isDone ? acted(house, 'remove', id) : refuse(409, error);
    },
  }),
  onAccount({
    method: 'put',
    path: '/admin/accounts/{id}/token',
    id: 'giveToken',
    summary: 'Use this access token while it lives; then the account’s own grant serves again',
    takes: 'GivenToken',
    answers: { 200: ['Taken', 'Drained'], 409: CONFLICT },
    run: (house, { id }, asked) =>
      taking(
        asked,
        'GivenToken',
        EXPECT_TOKEN,
        async ({ access_token: accessToken, expires_in: expiresInS }) => {
          if (!/^[\x21-\x7e]+$/.test(accessToken) || expiresInS === 0)
            return refuse(400, `expected ${EXPECT_TOKEN}`);
          const { ok: isDone, error = 'not taken' } = await house.backend.giveToken(id, {
            accessToken,
            expiresInS,
          });
          return isDone ? acted(house, 'give token', id) : refuse(409, error);
        },
      ),
  }),
  onAccount({
    method: 'post',
    path: '/admin/accounts/{id}/invite',
    id: 'invite',
    summary: 'A key with which the owner of the mailbox can sign in once within a day, and do nothing else',
    answers: { 200: ['The key', 'Invitation'], 409: CONFLICT },
    async run(house, { id }) {
      const possible = await house.backend.signIns.look(id);
      if (!possible.ok) return refuse(409, possible.error);
      const { key, until } = await house.backend.signIns.invite(id);
      house.acted('invite', { account: id });
      return ok('Invitation', { key, path: `/sign-in#${key}`, until });
    },
  }),
  signIn({
    method: 'get',
    id: 'signIn',
    summary: 'How a sign-in stands',
    run: async ({ backend }, id) => answer(await backend.signIns.look(id)),
  }),
  signIn({
    method: 'post',
    id: 'beginSignIn',
    summary: 'Ask a person to sign in; an earlier attempt ends',
    takes: 'SignInWay',
    run: (house, id, asked) =>
      begin(house, id, asked, { onBegun: () => house.acted('sign in', { account: id }) }),
  }),
  signIn({
    method: 'post',
    under: '/redirect',
    id: 'pasteRedirect',
    summary: 'The address the browser ended on, where it did not come back by itself',
    takes: 'Pasted',
    run: paste,
  }),
  signIn({
    method: 'delete',
    id: 'cancelSignIn',
    summary: 'End it',
    run: async ({ backend }, id) => ok('SignIn', backend.signIns.cancel(id)),
  }),
  invited({
    method: 'get',
    id: 'invited',
    summary: 'Whom the key in X-Invite-Key invites, and how the sign-in stands',
    answered: 'Invited',
    spent: 'shown',
    async run({ backend }, id) {
      const said = await backend.signIns.look(id);
      const account = backend.account(id);
      if (!said.ok || account === undefined) return refuse(409, said.ok ? 'no such account' : said.error);
      const { email, provider } = account;
      return ok('Invited', { email, provider, sign_in: said.row });
    },
  }),
  invited({
    method: 'post',
    id: 'beginInvited',
    summary: 'As beginSignIn, by the owner of the mailbox',
    takes: 'SignInWay',
    answered: 'SignIn',
    spent: 'refused',
    run: (house, id, asked) =>
      begin(house, id, asked, {
        isInvited: () => house.backend.signIns.invited(keyOf(asked))?.state === 'open',
      }),
  }),
  invited({
    method: 'post',
    under: '/redirect',
    id: 'pasteInvited',
    summary: 'As pasteRedirect, by the owner of the mailbox',
    takes: 'Pasted',
    answered: 'SignIn',
    spent: 'refused',
    run: paste,
  }),
];
