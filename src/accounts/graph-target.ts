/**
 * Where and as whom an account sends by Microsoft Graph. In: its entry and provider profile. Out: public
 * facts and the scopes of the token requests, or a complaint. Pure.
 */

import { isLoopbackHost } from '../protocol/cidr.ts';
import { foldAddress } from '../protocol/text.ts';
import type { GraphTarget } from './account.ts';
import type { Wrong } from './build-credential.ts';
import type { ProviderProfile } from './providers.ts';
import { type AccountEntry, NO_LOGIN } from './schema.ts';

/** Graph takes requests of 4 MiB, in base64: about 3.1 MB of message, of which some is left for our own header lines. */
export const GRAPH_MAX_BYTES = 3_000_000;

/** National clouds (learn.microsoft.com/graph/deployments): where one signs in decides which Graph it is. */
const CLOUDS: readonly { readonly login: RegExp; readonly graph: string }[] = [
  { login: /^login\.microsoftonline\.us$/, graph: 'https://graph.microsoft.us' },
  {
    login: /^login\.(partner\.microsoftonline|chinacloudapi)\.cn$/,
    graph: 'https://microsoftgraph.chinacloudapi.cn',
  },
];
const WORLDWIDE = 'https://graph.microsoft.com';
const RESOURCES = [WORLDWIDE, ...CLOUDS.map(({ graph }) => graph), 'https://dod-graph.microsoft.us'];

export type Permissions = GraphTarget['permissions'];

/** Undefined for an account that goes by SMTP alone, or after a complaint. */
export function graphTargetOf(
  entry: AccountEntry,
  profile: ProviderProfile,
  tokenUrl: string,
  wrong: Wrong,
): GraphTarget | undefined {
  const transport = entry.transport ?? 'smtp';
  if (transport === 'smtp') {
    for (const key of ['graph_url', 'graph_permissions', 'graph_recipients'] as const)
      if (entry[key] !== undefined)
        return wrong(key, 'is used only with "transport": "graph" or "smtp_then_graph"');
    return undefined;
  }
  if (profile.graphUrl === undefined)
    return wrong('transport', `${profile.name} cannot be reached by Microsoft Graph: use smtp`);
  if (entry.grant === 'jwt_bearer') return wrong('transport', 'the grant jwt_bearer goes with smtp only');
  if (entry.graph_url !== undefined && !URL.canParse(entry.graph_url))
    return wrong('graph_url', 'expected an absolute https:// address');
  const resource = graphResource(entry.graph_url ?? profile.graphUrl, tokenUrl);
  const url = (
    entry.graph_url ?? (profile.graphUrl === DEFAULT_URL ? `${resource}/v1.0` : profile.graphUrl)
  ).replace(/(?<!\/)\/+$/, '');
  const { protocol, hostname, username, password } = new URL(url);
  if (username !== '' || password !== '') return wrong('graph_url', NO_LOGIN);
  if (protocol !== 'https:' && !isLoopbackHost(hostname))
    return wrong('graph_url', 'must be https: it receives tokens (http is allowed on loopback only)');
  const user = entry.user ?? entry.email;
  return {
    url,
    mailbox: isPersonal(profile) ? 'me' : `users/${encodeURIComponent(user)}`,
    app: entry.client_id ?? '',
    permissions: entry.graph_permissions ?? 'read_write',
    recipients: entry.graph_recipients ?? 'refuse',
    resource,
  };
}

/** The profile's Graph where nothing else was said. */
const DEFAULT_URL = `${WORLDWIDE}/v1.0`;

/** Audience of the tokens: that of a national cloud where `url` or the token endpoint is one’s. */
export function graphResource(url: string, tokenUrl: string): string {
  const { origin } = new URL(url);
  if (origin !== WORLDWIDE && RESOURCES.includes(origin)) return origin;
  const host = URL.canParse(tokenUrl) ? new URL(tokenUrl).hostname : '';
  return CLOUDS.find(({ login }) => login.test(host))?.graph ?? WORLDWIDE;
}

/** Personal accounts have no directory in which a mailbox could be named, and none of another person. */
export const isPersonal = ({ tenant }: ProviderProfile): boolean => tenant === 'consumers';

/** Whether a draft in the mailbox tells whose it is: anybody may write one as `me`, nobody with Mail.Send alone. */
export const isProvedByDraft = (isMe: boolean, permissions: Permissions): boolean =>
  !isMe && permissions === 'read_write';

/** Whether mail leaves from the mailbox of another person than the one who signs in. */
export const isOthersMailbox = (profile: ProviderProfile, email: string, user = email): boolean =>
  !isPersonal(profile) && foldAddress(user) !== foldAddress(email);

/** Delegated scopes; `isOther`: another person's mailbox. */
export function graphScopes(resource: string, permissions: Permissions, isOther: boolean): string {
  const shared = isOther ? '.Shared' : '';
  const names = permissions === 'send' ? ['Mail.Send'] : ['Mail.ReadWrite', 'Mail.Send'];
  return [...names.map((name) => `${resource}/${name}${shared}`), 'offline_access'].join(' ');
}
