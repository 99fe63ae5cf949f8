/**
 * Variables of the environment beside the settings. They are read by these names alone, so that none is missing in
 * the manual page, or taken for a mistyped setting. Pure.
 */

const VARIABLES = {
  XOAUTH2_RELAY_CONFIG: 'the config file, as --config',
  XOAUTH2_RELAY_NO_PRECACHE: 'true: fetch tokens and connect when first needed, as --no-precache',
  XOAUTH2_RELAY_CLIENT_SECRET: 'client secret for account add, where no file is named',
  XOAUTH2_RELAY_REFRESH_TOKEN:
    'refresh token for account add --sign-in refresh-token, where no file is named',
  XOAUTH2_RELAY_CLIENT_PASSWORD: 'password for send --auth',
  XOAUTH2_RELAY_ALIASES: 'aliases file of sendmail (default /etc/aliases)',
  XOAUTH2_RELAY_PID_FILE: 'pid file of serve; start sets it',
} as const;

export type Variable = keyof typeof VARIABLES;

/** What each is for. */
export const OTHER_VARIABLES: readonly (readonly [name: string, help: string])[] = Object.entries(VARIABLES);

/** What one says; an empty one says something, too. */
export const readVariable = (
  env: Readonly<Record<string, string | undefined>>,
  name: Variable,
): string | undefined => env[name];
