/**
 * The book of causes as documentation. In: nothing. Out: docs/troubleshooting.md, which `npm run
 * troubleshooting` writes and a test holds current. Pure.
 */
import { ANY_ACCOUNT } from './book.ts';
import { type Cause, wordsFor } from './cause.ts';
import { GRAPH_CAUSES, GRAPH_OWN_CAUSES } from './graph-causes.ts';
import { LOGIN_CAUSES } from './login-causes.ts';
import { SENDING_CAUSES } from './sending-causes.ts';
import { SIGN_IN_CAUSES } from './sign-in-causes.ts';
import { TOKEN_CAUSES } from './token-causes.ts';
import { WAY_CAUSES } from './way-causes.ts';

/** The book in chapters, for whoever shows it. */
export const CHAPTERS: readonly (readonly [title: string, intro: string, causes: readonly Cause[]])[] = [
  [
    'Signing in',
    'Seen by `xoauth2-relay account add`. Where no row here fits, the token endpoint’s do.',
    SIGN_IN_CAUSES,
  ],
  [
    'Token endpoint',
    'No access token could be had. Mail hears `451` and waits; connections that are open go on being used.',
    TOKEN_CAUSES,
  ],
  [
    'Way to the server',
    'DNS, TCP, TLS, greeting and EHLO. Mail hears `451 4.4.1` or `451 4.3.2`.',
    WAY_CAUSES,
  ],
  ['Login', 'Replies to AUTH. Mail hears `451`: a login that fails never bounces mail.', LOGIN_CAUSES],
  [
    'Sending',
    'Replies from MAIL to the end of data. What concerns the account is `4xx`; a verdict on the message is passed on as it is.',
    SENDING_CAUSES,
  ],
  [
    'Microsoft Graph',
    'Answers to the requests by which mail leaves with `transport` `graph`. Whether a message was sent is looked up before any of these is told.',
    [...GRAPH_CAUSES, ...GRAPH_OWN_CAUSES],
  ],
];

/** The whole file. */
export function formatTroubleshooting(): string {
  const chapters = CHAPTERS.map(
    ([title, intro, causes]) => `## ${title}\n\n${intro}\n\n${causes.map(formatCause).join('\n')}`,
  );
  return `# Troubleshooting

What a provider says, what it means and what to do. \`xoauth2-relay check\` and \`xoauth2-relay status\`, the dashboard and
the alerts say the same, with the names of the account in place of MAILBOX, SENDER and HOST; \`cause\` in
\`GET /admin/accounts\` is the name in the headings below. Made by \`npm run troubleshooting\` from the relay's own
table: change it there.

${chapters.join('\n')}`;
}

function formatCause(cause: Cause): string {
  const rows = [
    `### ${cause.id}\n`,
    `- **Seen as:** ${cause.symptom}`,
    `- **Means:** ${wordsFor(cause.what, ANY_ACCOUNT)}`,
    `- **Do:** ${wordsFor(cause.cure, ANY_ACCOUNT)}`,
    ...(cause.special ?? []).map(
      ({ where, what, cure }) =>
        `- **${where}:** ${wordsFor(what, ANY_ACCOUNT)}. **Do:** ${wordsFor(cure, ANY_ACCOUNT)}`,
    ),
  ];
  return `${rows.join('\n')}\n`;
}
