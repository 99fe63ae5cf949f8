/** `schema`: the JSON Schema of the accounts file, for editors; `accounts.schema.json` is its output. */
import { accountsJsonSchema } from '../accounts/schema.ts';
import type { CommandDefinition } from './definition.ts';
import { printJson } from './terminal.ts';

export const schema: CommandDefinition = {
  name: 'schema',
  summary: 'print the JSON Schema of the accounts file',
  options: [],
  examples: ['xoauth2-relay schema > accounts.schema.json'],
  exitCodes: {},
  async run({ terminal }) {
    printJson(terminal, accountsJsonSchema());
    return 0;
  },
};
