/** What a person has to consent to. In: provider profile and the keys of the entry. Out: scopes. Pure. */
import { graphResource, graphScopes } from '../accounts/graph-target.ts';
import type { ProviderProfile } from '../accounts/providers.ts';
import { foldAddress } from '../protocol/text.ts';
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
}

/** The scopes for the way mail is to leave by. Throws `OperatorError`. */
export function consentOf(
  profile: ProviderProfile,
  { email, user, transport = 'smtp', tokenUrl, graphPermissions }: ConsentFacts,
): Pick<SignInTarget, 'scope' | 'tokenScope'> {
  if (transport === 'smtp') return {};
  if (profile.graphUrl === undefined)
    throw new OperatorError(`${profile.name} cannot be reached by Microsoft Graph`, 2);
  const scope = graphScopes(
    graphResource(profile.graphUrl, tokenUrl ?? profile.tokenUrl),
    graphPermissions === 'send' ? 'send' : 'read_write',
    user !== undefined && foldAddress(user) !== foldAddress(email),
  );
  return transport === 'graph'
    ? { scope }
    : { scope: `${scope} ${profile.signInScope}`, tokenScope: profile.signInScope };
}
