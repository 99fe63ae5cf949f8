/** `npm run screenshot`, see `HELP`. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { readCommandLine } from './command-line.mjs';

readCommandLine(
  'screenshot',
  `npm run screenshot

Writes docs/dashboard.png: the dashboard of "npm run demo -- --keep" in Debian's Chromium.
`,
);

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));

const demo = spawn(process.execPath, [path('test/demo/start.mjs'), '--keep'], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
const ended = new Promise((resolve) => demo.once('exit', resolve));
let address;
for await (const line of createInterface({ input: demo.stdout })) {
  address = /admin and dashboard: (\S+)/.exec(line)?.[1];
  if (address !== undefined) break;
}
// What it says on its way out must not fill the pipe.
demo.stdout.resume();
try {
  if (address === undefined) throw new Error('the demo ended before its dashboard was there');
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu'],
  });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 764 }, colorScheme: 'light' });
    await page.goto(address);
    await page.locator('#live[data-state="live"]').waitFor({ state: 'attached' });
    await page.locator('#accounts tr, #accounts [role="row"]').first().waitFor();
    await page.screenshot({ path: path('docs/dashboard.png') });
  } finally {
    await browser.close();
  }
} finally {
  demo.kill('SIGTERM');
  await ended;
}
