/** Whose mail it is, three times: by docs/senders.md as it is read here, by `check --sender`, and by a listener that is asked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAccounts } from '../../src/accounts/accounts-file.ts';
import { reportSender } from '../../src/commands/sender-report.ts';
import { resolveOptions } from '../../src/listener/options.ts';
import { leakless } from '../support/leak-check.ts';
import type { SmtpClient } from '../support/smtp-client.ts';
import { stage } from './stage.ts';

interface Entry {
  readonly email: string;
  readonly senders: readonly string[];
  readonly deny: readonly string[];
  readonly password?: string;
  readonly preference: number;
  readonly rewrite_sender: boolean;
}

const EMAILS = ['a@x.test', 'b@x.test', 'c@y.test', 'd@z.y.test'];
const PATTERNS = [
  ...EMAILS,
  'shop+*@x.test',
  'shop+a+*@x.test',
  '*@x.test',
  '*@y.test',
  '*@*.y.test',
  '*@*.test',
  '*',
  '<>',
];
const SENDERS = [
  ...EMAILS,
  '',
  'A@X.TEST',
  'shop@x.test',
  'shop+1@x.test',
  'shop+A+1@x.test',
  'n@x.test',
  'n@y.test',
  'n@z.y.test',
  'n@w.z.y.test',
  'root@host',
  '"b"@x.test',
];

/** How exact: the kind, then the length, 0 the most; undefined: no match. */
function exactness(pattern: string, sender: string): number | undefined {
  const kind = kindOf(pattern, sender);
  return kind === undefined || kind === 0 ? kind : kind - pattern.length / 100;
}

function kindOf(pattern: string, sender: string): number | undefined {
  const [, local = '', domain = ''] = /^(.*)@(.*)$/.exec(sender) ?? [];
  if (sender === '') return pattern === '<>' ? 0 : undefined;
  if (pattern === '*') return 5;
  const [, wanted = '', at = ''] = /^(.*)@(.*)$/.exec(pattern) ?? [];
  if (wanted !== '*' && wanted.endsWith('+*'))
    return at === domain && local.startsWith(wanted.slice(0, -1)) ? 2 : undefined;
  if (wanted !== '*') return pattern === sender ? 0 : undefined;
  if (!at.startsWith('*.')) return at === domain ? 3 : undefined;
  return domain.endsWith(at.slice(1)) ? 4 : undefined;
}

/** The accounts that match, first choice first. */
function matching(entries: readonly Entry[], given: string) {
  const sender = given.toLowerCase().replaceAll('"', '');
  const match = (patterns: readonly string[]): number =>
    Math.min(9, ...patterns.flatMap((pattern) => exactness(pattern, sender) ?? []));
  return entries
    .map((entry, index) => ({ entry, index, best: match([entry.email, ...entry.senders]) }))
    .filter(({ entry, best }) => best < 9 && match(entry.deny) === 9)
    .sort(
      (a, b) =>
        a.best - b.best ||
        Number(b.entry.email === sender) - Number(a.entry.email === sender) ||
        a.entry.preference - b.entry.preference ||
        a.index - b.index,
    );
}

interface Expected {
  readonly accounts: readonly string[];
  /** In the order in which they are tried with the same room: an address listed counts as much as the own. */
  readonly tried: readonly string[];
  readonly code: number;
  /** MAIL FROM as the first sends it. */
  readonly as: string;
}
const refused = (code: number): Expected => ({ accounts: [], tried: [], code, as: '' });
const leavesAs = ({ entry, best }: { entry: Entry; best: number }, given: string): string =>
  best > 4 && entry.rewrite_sender ? entry.email : given;

function withoutAuth(entries: readonly Entry[], given: string): Expected {
  const found = matching(entries, given);
  const [first] = found;
  if (first === undefined) return refused(550);
  if (first.entry.password !== undefined) return refused(530);
  const open = found.filter(({ entry }) => entry.password === undefined);
  const tried = [...open].sort((a, b) => a.best - b.best || a.entry.preference - b.entry.preference);
  const [accounts, order] = [open, tried].map((of) => of.map(({ entry }) => entry.email));
  return { accounts: accounts ?? [], tried: order ?? [], code: 250, as: leavesAs(first, given) };
}

/** Logged in with a dummy as an account without a password. */
function asDummy(entries: readonly Entry[], email: string, given: string): Expected {
  if (given === '') return { accounts: [email], tried: [], code: 250, as: '' };
  const found = matching(entries, given);
  const own = found.find(({ entry }) => entry.email === email);
  if (own === undefined) return refused(550);
  const isAnothers = found[0]?.entry.password !== undefined && found[0].best < own.best;
  return isAnothers ? refused(530) : { accounts: [email], tried: [], code: 250, as: leavesAs(own, given) };
}

test(
  'documentation, check --sender and listener agree for 200 accounts files',
  leakless(async (_t, defer) => {
    let seed = 15;
    const random = (): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return seed / 2 ** 32;
    };
    const some = (share: number): string[] => PATTERNS.filter(() => random() < share);
    /** What deny refuses all of is a mistake of the file. */
    const patterns = (email: string): Pick<Entry, 'senders' | 'deny'> => {
      const deny = random() < 0.3 ? some(0.2).filter((pattern) => pattern !== email) : [];
      const sample = (pattern: string): string =>
        pattern === '*' ? 'zz@zz' : pattern === '<>' ? '' : pattern.replaceAll('*', 'zz');
      const isRefused = (pattern: string): boolean =>
        deny.some((denied) => kindOf(denied, sample(pattern)) !== undefined);
      return { senders: some(0.3).filter((pattern) => !isRefused(pattern)), deny };
    };
    const codes = new Set<number>();
    for (let i = 0; i < 200; i++) {
      const entries: Entry[] = EMAILS.slice(Math.floor(random() * 4)).map((email) => ({
        email,
        ...patterns(email),
        ...(random() < 0.25 ? { password: 'sesame' } : {}),
        preference: random() < 0.5 ? 10 : Math.floor(random() * 3) * 10,
        rewrite_sender: random() < 0.5,
      }));
      const login = { provider: 'gmail', client_id: 'c', client_secret: 's', refresh_token: 'r' };
      const file = await parseAccounts(JSON.stringify(entries.map((entry) => ({ ...login, ...entry }))), {
        env: {},
        directory: '/',
      });
      assert.deepEqual(file.problems, []);
      const accounts = file.accounts.map(({ account }) => account);
      const at = await stage(defer, { accounts });
      /** MAIL; the text of a refusal. */
      async function ask(client: SmtpClient, sender: string, want: Expected, told: string): Promise<string> {
        const mail = await client.send(`MAIL FROM:<${sender}>`);
        assert.equal(mail.code, want.code, told);
        if (mail.code !== 250) return mail.text.slice(4);
        const { account, choices, sender: as } = at.relay.seen.at(-1)?.command ?? {};
        assert.deepEqual(
          (choices ?? [{ account }]).map((choice) => choice.account?.id),
          want.accounts,
          told,
        );
        assert.equal(as, want.as, told);
        await client.expect('RSET', 250);
        return '';
      }
      const client = await at.greeted();
      for (const sender of SENDERS) {
        const want = withoutAuth(entries, sender);
        codes.add(want.code);
        const told = JSON.stringify({ sender, entries });
        const [report] = reportSender(sender === '' ? '<>' : sender, file, [resolveOptions({})]).without_auth;
        assert.deepEqual(report?.accounts, want.tried, `check: ${told}`);
        assert.equal(report?.reply?.slice(0, 3) ?? '250', String(want.code), `check: ${told}`);
        assert.equal(
          report?.reply?.slice(4) ?? '',
          want.code === 250 ? '' : await ask(client, sender, want, told),
        );
        if (want.code === 250) await ask(client, sender, want, told);
      }
      const dummy = entries.find(({ password }) => password === undefined)?.email;
      if (dummy !== undefined) {
        const login = await at.greeted();
        await login.expect(`AUTH PLAIN ${Buffer.from(`\0${dummy}\0x`).toString('base64')}`, 235);
        for (const sender of SENDERS)
          await ask(
            login,
            sender,
            asDummy(entries, dummy, sender),
            JSON.stringify({ dummy, sender, entries }),
          );
      }
      await client.expect('QUIT', 221);
      await at.listener.stop({ deadlineMs: 0 });
    }
    assert.deepEqual([...codes].sort(), [250, 530, 550]);
  }),
);
