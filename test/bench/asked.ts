/** What `npm run bench` was asked for; see `HELP`. */
import { readCommandLine } from '../../scripts/command-line.mjs';

const HELP = `npm run bench -- [quick | flights | fleet | graph | scale [ACCOUNTS …]] [--save FILE] [--against FILE]

What a message costs in the relay, beside a process that only splices the same sockets, in the same run and in turn.
Prints tables; asserts nothing. Everything stays on loopback.

  quick           fewer rounds and messages
  scale           many accounts instead, so many at a time: start, reload, stop, memory (default: 1000 10000)
  flights         round trips by recipients instead
  fleet           limits shared through Redis instead
  graph           Microsoft Graph beside SMTP instead
  --save FILE     keeps what was measured, for npm run performance (not flights, fleet, graph)
  --against FILE  compares with a run that was saved

Exit 2 on wrong usage.
`;

const { values, words } = readCommandLine(
  'bench',
  HELP,
  { save: { type: 'string' }, against: { type: 'string' } },
  /^(?:quick|scale|flights|fleet|graph|[1-9]\d*)$/,
);

export const saveTo = values.save;
export const against = values.against;
export const isQuick = words.includes('quick');
export const other = words.find((word) => /^(?:scale|flights|fleet|graph)$/.test(word));
/** Of accounts. */
export const counts = words.some((word) => Number(word) > 0)
  ? words.map(Number).filter((count) => count > 0)
  : [1_000, 10_000];
