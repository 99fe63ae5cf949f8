/**
 * What the client hears in which situation, for people: the manual page and docs/replies.md. The replies themselves
 * are made where they are given; a test compares.
 */

/** Situation and reply, in Markdown. */
export const REPLY_CODES: readonly (readonly [situation: string, reply: string])[] = [
  ['provider took the message', "the provider's `250`"],
  ['provider refused sender, recipient or content', "the provider's own reply (421 as 451)"],
  [
    'first of several recipients refused',
    '`452 4.5.3` for the others (sent again separately), its refusal at DATA',
  ],
  ['sender not allowed for the account upstream', '`550 5.7.60`'],
  ['unknown sender; no account at all in the accounts file', '`550 5.7.1` at MAIL; `451 4.3.5`'],
  [
    'wrong client password; too many of them',
    '`535 5.7.8` (used for nothing else); `454 4.7.0` for 1 s to 15 min',
  ],
  ['AUTH needed; AUTH in clear text from elsewhere', '`530 5.7.0`; `538 5.7.11`'],
  ['the password changed since this session logged in', '`421 4.7.0` at MAIL'],
  [
    'message too large; too many recipients; bare CR; loop',
    '`552 5.3.4`; `452 4.5.3`; `554 5.6.0`; `554 5.4.6`',
  ],
  [
    'too many sessions; idle or transaction too long; no memory for the body',
    '`421 4.3.2`; `421 4.4.2`; `452 4.3.1`',
  ],
  ['upstream unreachable; breaker open; all connections busy', '`451 4.4.1`; `451 4.3.2`; `451 4.3.2`'],
  ['token endpoint down or throttling', '`451 4.4.3`'],
  ['sign-in needed; OAuth client broken; SMTP AUTH switched off', '`451 4.7.0`'],
  ["own rate limit; provider's daily limit", '`451 4.7.1` with the seconds; `452 4.7.1`'],
  [
    'final byte sent and no reply came',
    '`451 4.4.2 delivery status unknown`: logged at warn, never replayed',
  ],
  [
    'the relay stops, at its deadline',
    '`421`; `421 4.4.2 delivery status unknown` where the final byte was sent',
  ],
  ['account drained, being removed or renamed', '`451 4.3.2`'],
  [
    'the message needs what the provider does not offer: BODY, SMTPUTF8, another parameter',
    '`554 5.6.3`; `550 5.6.7`; `555 5.5.4`',
  ],
  ['by Graph: mailbox full; recipient that Graph does not take', '`451 4.2.2`; `550 5.1.3`'],
  ['what was sent cannot be noted, or not be told; wrong clock or another error of the relay', '`451 4.3.0`'],
  ['provider answers out of step; refuses whom it took before', '`451 4.5.0`'],
  ["the client's address may not send here", '`554 5.7.1` in place of the greeting'],
  [
    'command malformed, unknown or out of order; no recipient; address that can be none, or needs SMTPUTF8',
    '`500` to `504`; `554 5.5.1`; `553 5.1.3`, `553 5.6.7`',
  ],
];

/** docs/replies.md. */
export function formatReplyPage(): string {
  const rows = REPLY_CODES.map(([situation, reply]) => `| ${situation} | ${reply} |`);
  return [
    '# What the client hears',
    '',
    'Trouble with tokens, accounts and the relay itself is always `4xx`: the mail waits. `5xx` is the provider’s own word, or',
    'about the message or its sender. Each cause has its cure in [troubleshooting](troubleshooting.md).',
    '',
    '| situation | reply |',
    '| --- | --- |',
    ...rows,
    '',
  ].join('\n');
}
