#!/usr/bin/env node
import inspector from 'node:inspector';

// Else Node opens its debugger, and with it every secret in memory, to all programs of the machine.
process.on('SIGUSR1', () => {});
// A signal that came before that line may have, now or in a moment.
const isWanted = /--inspect(?:-brk|-wait)?[= ]/.test(
  `${process.execArgv.join(' ')} ${process.env.NODE_OPTIONS ?? ''} `,
);
const shut = () => isWanted || inspector.close();
shut();
setTimeout(shut, 100).unref();
// Until the accounts file is read there is nothing to read again.
if (process.argv[2] === 'serve') process.on('SIGHUP', () => {});
await import('../dist/cli.js');
