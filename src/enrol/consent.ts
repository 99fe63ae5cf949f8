/** What a person has to consent to. In: provider profile and the keys of the entry. Out: scopes. Pure. */
import {
  graphResource,
  graphScopes,
  isOthersMailbox,
  isPersonal,
  isProvedByDraft,
} from '../accounts/graph-target.ts';
import type { ProviderProfile } from '../accounts/providers.ts';
import { OperatorError } from './operator-error.ts';
import type { SignInTarget } from './sign-in.ts';

export interface ConsentFacts {
  readonly email: string;
  /** XOAUTH2 user, where it is not the address. */
  readonly user?: string | undefined;
  /** Default `smtp`. */
  readonly transport?: string | undefined;
  readonly tokenUrl?: string | undefined;
  readonly graphPermissions?: string | undefined;
  /** Reading by IMAP, too, for other programs that get tokens of the relay. */
  readonly imap?: boolean;
  /** Scope of IMAP as the entry names it. */
  readonly imapScope?: string | undefined;
}

type Consent = Pick<SignInTarget, 'scope' | 'tokenScope'>;

/** The scopes for the way mail is to leave by. Throws `OperatorError`. */
export function consentOf(profile: ProviderProfile, facts: ConsentFacts): Consent {
  const sending = consentToSend(profile, facts);
  if (facts.imap !== true) return sending;
  const imap = facts.imapScope ?? profile.imapScopes?.refresh_token;
  if (imap === undefined)
    throw new OperatorError(`nobody knows the IMAP scope of ${profile.name}: name it with imap_scope`, 2);
  // What is consented to for sending is enough.
  if (imap === '') return sending;
  const scope = sending.scope ?? profile.signInScope;
  const words = new Set(`${scope} ${imap}`.trim().split(/ +/));
  // The code is redeemed for one resource: that by which mail leaves.
  return { ...sending, scope: [...words].join(' '), tokenScope: sending.tokenScope ?? scope };
}

function consentToSend(
  profile: ProviderProfile,
  { email, user, transport = 'smtp', tokenUrl, graphPermissions }: ConsentFacts,
): Consent {
  if (transport === 'smtp') return {};
  if (profile.graphUrl === undefined)
    throw new OperatorError(`${profile.name} cannot be reached by Microsoft Graph`, 2);
  const permissions = graphPermissions === 'send' ? 'send' : 'read_write';
  const graph = graphScopes(
    graphResource(profile.graphUrl, tokenUrl ?? profile.tokenUrl),
    permissions,
    isOthersMailbox(profile, email, user),
  );
  const who = isProvedByDraft(isPersonal(profile), permissions) ? '' : WHO;
  const { signInScope } = profile;
  return transport === 'graph'
    ? { scope: `${graph}${who}` }
    : { scope: `${graph} ${signInScope}${who}`, tokenScope: `${signInScope}${who}` };
}

/** Brings an ID token with the name of who signed in. */
const WHO = ' openid profile';
