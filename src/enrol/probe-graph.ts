/**
 * Walks an account's way by Microsoft Graph without sending anything: token for Graph, then a draft that
 * is created, looked at and deleted. In: account and where its token comes from. Out: one step after the
 * other. With Mail.Send alone nothing can be tried, so the token's own words have to do.
 */
import { randomUUID } from 'node:crypto';
import type { Account, GraphTarget } from '../accounts/account.ts';
import { isProvedByDraft } from '../accounts/graph-target.ts';
import { createHttp } from '../http.ts';
import { silentLog } from '../log.ts';
import { describeRefusal } from '../protocol/graph-answer.ts';
import { claimsOf, permissionsIn } from '../protocol/jwt-claims.ts';
import { createWatch } from '../protocol/masking.ts';
import type { AccessToken, TokenSource } from '../tokens/access-token.ts';
import { isSameMailbox } from '../tokens/same-consent.ts';
import { createEndpoint } from '../upstream/endpoint.ts';
import { createGraphClient, type GraphOutcome } from '../upstream/graph/client.ts';
import { createGraphPacing } from '../upstream/graph/pacing.ts';
import { StepError } from './client-dialogue.ts';
import type { Explanation } from './explain.ts';

export interface GraphProbeDeps {
  readonly token: AccessToken;
  /** For each request, ms. */
  readonly timeoutMs: number;
  readonly passed: (detail: string, doubt?: string) => void;
}

/** Who signed in may do so for the account: a draft will tell, or it is one whom the entry names. */
export const isItsPerson = (
  { email, user }: Account,
  { mailbox, permissions }: GraphTarget,
  name = '',
): boolean =>
  isProvedByDraft(mailbox === 'me', permissions) || [email, user].some((own) => isSameMailbox(own, name));

export const OTHER_PERSON: Explanation = {
  what: 'by Graph mail would leave from the mailbox of another person than the account is for',
  cure: 'sign in as the account’s email or user; an account whose mailbox has another sign-in name names it as user',
};

/** Rejects with `StepError` at the first failure. */
export async function probeGraph(account: Account, target: GraphTarget, deps: GraphProbeDeps): Promise<void> {
  const { token, timeoutMs, passed } = deps;
  if (target.permissions === 'send') {
    passed(
      'Mail.Send',
      `nothing can be tried with Mail.Send alone, and an unclear answer to a send stays unclear: messages then wait until a person decides. With Mail.ReadWrite too (graph_permissions: read_write) the relay looks${permissionDoubt(token, 'Mail.Send')}`,
    );
    return;
  }
  const http = createHttp();
  const source: TokenSource = {
    peek: () => token,
    get: async () => token,
    renew: async () => token,
    mask: () => createWatch([token.reveal()]),
  };
  const client = createGraphClient(
    {
      account: account.id,
      url: `${target.url}/${target.mailbox}`,
      key: { app: target.app, mailbox: target.mailbox },
    },
    {
      http,
      tokens: source,
      pacing: createGraphPacing(),
      endpoint: createEndpoint(new URL(target.url).host, { maxOpening: 10 }),
      log: silentLog,
    },
    { answerMs: timeoutMs, uploadMs: timeoutMs, maxWaitMs: timeoutMs },
  );
  try {
    const draft = wanted(await client.create(draftOf(account)), 'create');
    const seen = wanted(await client.look(draft.id, timeoutMs), 'look');
    const removed = await client.remove(draft.id);
    if (removed.kind !== 'ok')
      throw new StepError('graph', `the draft of this check stays in Drafts: ${saidBy(removed, 'delete')}`);
    const idDoubt =
      draft.internetMessageId === undefined || draft.internetMessageId.endsWith('@relay.invalid>')
        ? ''
        : 'Graph replaces the Message-ID of messages; ';
    const doubt = `${idDoubt}recipients are not checked by Graph and refusals arrive as mail in the mailbox; signatures made before the relay (DKIM, S/MIME) may not survive${permissionDoubt(token, 'Mail.Send')}`;
    passed(seen === 'none' ? 'draft created and deleted' : 'draft created, seen and deleted', doubt);
  } finally {
    await http.close();
  }
}

/** Addressed to nobody. */
const draftOf = (account: Account): Buffer =>
  Buffer.from(
    `Message-ID: <${randomUUID()}@relay.invalid>\r\nFrom: <${account.email}>\r\nSubject: check of xoauth2-relay\r\n\r\nThis draft can be deleted.\r\n`,
  );

function wanted<T>(outcome: GraphOutcome<T>, call: string): T {
  if (outcome.kind === 'ok') return outcome.value;
  throw new StepError('graph', saidBy(outcome, call));
}

function saidBy(outcome: Exclude<GraphOutcome<unknown>, { kind: 'ok' }>, call: string): string {
  switch (outcome.kind) {
    case 'refused':
      return `${call} ${describeRefusal(outcome.refusal)}`;
    case 'lost':
      return outcome.code;
    case 'unasked':
      return outcome.error.message;
    default:
      return outcome satisfies never;
  }
}

/** An application whose right comes from RBAC for Applications has none in its token. */
function permissionDoubt(token: AccessToken, permission: string): string {
  const claims = claimsOf(token.reveal());
  return claims === undefined || permissionsIn(claims).some((name) => name.startsWith(permission))
    ? ''
    : `; ${permission} is not in the token: it must come from RBAC for Applications, or sending will be refused`;
}
