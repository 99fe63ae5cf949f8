/**
 * Small messages on one kept-open session, one every 5 ms, in a process of its own. `probe.js PORT SENDER`;
 * a line on stdin asks for the milliseconds of the messages since the line before, answered as JSON.
 */
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { session } from './load.ts';

const EVERY_MS = 5;
const BODY = 'From: a@example.com\r\nSubject: probe\r\n\r\nprobe\r\n.\r\n';

const [port, sender] = process.argv.slice(2);
let times: number[] = [];
const client = await session(Number(port));
await client.say('EHLO probe\r\n', 1);
createInterface(process.stdin).on('line', () => {
  console.log(JSON.stringify(times));
  times = [];
});
console.log(process.pid);
for (;;) {
  const startedAt = performance.now();
  await client.say(`MAIL FROM:<${sender}>\r\n`, 1);
  await client.say('RCPT TO:<bob@example.net>\r\n', 1);
  await client.say('DATA\r\n', 1);
  await client.say(BODY, 1);
  times.push(performance.now() - startedAt);
  await delay(EVERY_MS);
}
