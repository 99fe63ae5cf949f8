/** `hash-password`: a client password becomes the hash that stands in the accounts file. */
import { hashPassword as hash, isPasswordHash } from '../accounts/scrypt.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { type CommandDefinition, EXIT_CONFIGURATION } from './definition.ts';

export const hashPassword: CommandDefinition = {
  name: 'hash-password',
  summary: 'print the hash of a client password for the accounts file',
  details: ['Asks for the password without echo, or reads one line from standard input.'],
  options: [],
  examples: ['xoauth2-relay hash-password', 'pass show relay/bob | xoauth2-relay hash-password'],
  exitCodes: {},
  async run({ terminal }) {
    const password = await terminal.askSecret('Password');
    if (password === '') throw new OperatorError('the password is empty', EXIT_CONFIGURATION);
    if (isPasswordHash(password)) throw new OperatorError('that is a hash already', EXIT_CONFIGURATION);
    if (terminal.isInteractive && (await terminal.askSecret('Again')) !== password)
      throw new OperatorError('the two differ', EXIT_CONFIGURATION);
    terminal.print(await hash(password));
    return 0;
  },
};
