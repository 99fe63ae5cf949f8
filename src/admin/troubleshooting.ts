/** The book of causes as a page: an account's cause leads to its row. In: nothing. Out: HTML. Pure. */
import { ANY_ACCOUNT } from '../protocol/causes/book.ts';
import { type Cause, wordsFor } from '../protocol/causes/cause.ts';
import { CHAPTERS } from '../protocol/causes/document.ts';

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/** Text of the book; what stands in backticks is code. */
const format = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ENTITIES[c] ?? c).replace(/`([^`]+)`/g, '<code>$1</code>');

const words = (text: Parameters<typeof wordsFor>[0]): string => format(wordsFor(text, ANY_ACCOUNT));

function formatCause({ id, symptom, what, cure, special = [] }: Cause): string {
  const rows = [
    ['Seen as', format(symptom)],
    ['Means', words(what)],
    ['Do', words(cure)],
    ...special.map(({ where, what, cure }) => [format(where), `${words(what)}. <b>Do:</b> ${words(cure)}`]),
  ];
  const list = rows.map(([name, value]) => `<dt>${name}</dt><dd>${value}</dd>`).join('');
  return `<section id="${id}" class="cause"><h3>${id}</h3><dl>${list}</dl></section>`;
}

/** The whole page. */
export function formatTroubleshootingPage(): string {
  const chapters = CHAPTERS.map(
    ([title, intro, causes]) => `<h2>${title}</h2><p>${format(intro)}</p>${causes.map(formatCause).join('')}`,
  );
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><title>Troubleshooting, xoauth2-relay</title><link rel="icon" href="/assets/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="/assets/dashboard.css"><link rel="stylesheet" href="/assets/sign-in.css"></head><body class="plain book"><main><p><a href="/">Dashboard</a></p><h1>Troubleshooting</h1><p>What a provider says, what it means and what to do; MAILBOX, SENDER and HOST stand for those of the account.</p>${chapters.join('')}</main></body></html>`;
}
