/** `npm run demo`, see `HELP`: prepares a fresh clone and runs the compiled demo. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { readCommandLine } from '../../scripts/command-line.mjs';
import { build, installNpmPackages, root } from '../prepare.mjs';

const HELP = `npm run demo -- [--keep]

The relay on loopback between a client that sends real messages and simulated providers, with every hop of theirs.

  --keep  serve on until Ctrl-C; says where the dashboard is

Exit 1 when something did not come out as it should; 2 on wrong usage.
`;

const { values } = readCommandLine('demo', HELP, { keep: { type: 'boolean' } });
installNpmPackages();
build();
const demo = spawn(
  process.execPath,
  [join(root, 'build/test/demo/demo.js'), ...(values.keep ? ['--keep'] : [])],
  {
    stdio: 'inherit',
  },
);
// The terminal sends Ctrl-C to the demo itself; it decides when all is over.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => demo.kill('SIGTERM'));
demo.on('exit', (code) => {
  process.exitCode = code ?? 1;
});
