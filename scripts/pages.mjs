/** `npm run troubleshooting`, `replies`, `accounts`, `schema`: what the program itself says, as a file. In: dist. Out: the file. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { readCommandLine } from './command-line.mjs';

const root = fileURLToPath(new URL('../', import.meta.url));
const PAGES = {
  troubleshooting: {
    file: 'docs/troubleshooting.md',
    make: async () => (await import('../dist/protocol/causes/document.js')).formatTroubleshooting(),
  },
  replies: {
    file: 'docs/replies.md',
    make: async () => (await import('../dist/commands/reply-codes.js')).formatReplyPage(),
  },
  accounts: {
    file: 'docs/accounts.md',
    make: async () =>
      (await import('../dist/commands/account-keys.js')).fillKeys(
        readFileSync(`${root}docs/accounts.md`, 'utf8'),
      ),
  },
  schema: {
    file: 'accounts.schema.json',
    make: async () => execFileSync(process.execPath, [`${root}bin/xoauth2-relay.js`, 'schema']),
  },
};

const [name] = process.argv.slice(2);
const { file, make } = PAGES[name];
const help = `npm run ${name}\n\nWrites ${file}, as the program in dist has it (npm run build).\n`;
readCommandLine(name, help, {}, new RegExp(`^${name}$`));
writeFileSync(root + file, await make());
