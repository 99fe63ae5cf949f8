#!/usr/bin/env node
// Else Node opens its debugger, and with it every secret in memory, to all programs of the machine.
process.on('SIGUSR1', () => {});
await import('../dist/cli.js');
