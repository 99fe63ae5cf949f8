/** `npm run demo`: prepares a fresh clone and runs the compiled demo with the same arguments. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { build, installNpmPackages, root } from '../prepare.mjs';

installNpmPackages();
build();
const demo = spawn(process.execPath, [join(root, 'build/test/demo/demo.js'), ...process.argv.slice(2)], {
  stdio: 'inherit',
});
// The terminal sends Ctrl-C to the demo itself; it decides when all is over.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => demo.kill('SIGTERM'));
demo.on('exit', (code) => {
  process.exitCode = code ?? 1;
});
