/** Which servers may see a token. In: an account, a host name. Out: whether the token is meant for it. Pure. */
import type { Account } from '../accounts/account.ts';
import { foldAscii } from '../protocol/text.ts';
import type { TokenResource } from '../tokens/access-token.ts';

/** IMAP servers of submission servers whose own name does not tell. */
const IMAP_HOSTS: Readonly<Record<string, readonly string[]>> = {
  'smtp.office365.com': ['outlook.office365.com', 'outlook.office.com'],
  'smtp-mail.outlook.com': ['outlook.office365.com', 'outlook.office.com', 'imap-mail.outlook.com'],
  'smtp.office365.us': ['outlook.office365.us'],
};

const GRAPH_HOST = /^(?:[a-z-]+\.)?(?:graph\.microsoft\.(?:com|us)|microsoftgraph\.chinacloudapi\.cn)$/;

/** A server by its first label. Where that is a firm's own name everybody may own what stands beside it: `firm.co.uk`. */
const MAIL_SERVER = /smtp|imap|mail|submission/;

/** A domain of two labels and more below which a provider has its servers; undefined for `localhost`, addresses and what is not named as a mail server. */
function familyOf(host: string): string | undefined {
  const [first = '', ...rest] = host.split('.');
  if (rest.length < 2 || /^[\d.]+$/.test(host) || host.includes(':')) return undefined;
  return MAIL_SERVER.test(first) ? rest.join('.') : undefined;
}

/** `host` may have a port. */
export function isMeantFor(
  account: Pick<Account, 'upstream'>,
  resource: TokenResource,
  host: string,
): boolean {
  const name = foldAscii(host).replace(/:\d+$/, '');
  const own = foldAscii(account.upstream.host);
  switch (resource) {
    case 'smtp':
      return name === own;
    case 'imap': {
      const known = IMAP_HOSTS[own];
      if (known !== undefined) return known.includes(name);
      const family = familyOf(own);
      return name === own || (family !== undefined && familyOf(name) === family);
    }
    case 'graph':
      return GRAPH_HOST.test(name);
    default:
      return resource satisfies never;
  }
}
