/** Chromium as the tests run it, and a look for faults that its users would have. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { type Browser, chromium, type Page } from 'playwright-core';

/** As root in a closed network: no sandbox, no GPU, no calls home. */
const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export const startChromium = (): Promise<Browser> =>
  chromium.launch({ executablePath: '/usr/bin/chromium', args: FLAGS });

/** No serious fault for axe, nothing cut off at the side, no button or count clipped. An address may end in an ellipsis. */
export async function assertUsable(page: Page): Promise<void> {
  const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  // Run past the page's content security policy, as a debugger does: the policy forbids injected scripts.
  await page.evaluate(axe);
  const faults = await page.evaluate(`axe.run().then(({ violations }) => violations
    .filter((v) => v.impact === 'serious' || v.impact === 'critical')
    .map((v) => v.id + ': ' + v.nodes.map((n) => n.html).join(' ')))`);
  assert.deepEqual(faults, []);
  const wider = await page.evaluate(
    'document.documentElement.scrollWidth - document.documentElement.clientWidth',
  );
  assert.equal(wider, 0, 'the page scrolls sideways');
  const clipped =
    await page.evaluate(`[...document.querySelectorAll('button:not(.link), .cell-relayed, .cell-trouble, .field .sub, dialog h2')]
    .filter((e) => e.offsetParent !== null)
    .filter((e) => {
      const box = e.closest('td')?.getBoundingClientRect();
      const own = e.getBoundingClientRect();
      return e.scrollWidth > e.clientWidth + 1 || (box !== undefined && (own.right > box.right + 1 || own.left < box.left - 1));
    })
    .map((e) => e.className + ' ' + e.textContent)`);
  assert.deepEqual(clipped, [], 'clipped');
  const broken = await page.evaluate(`[...document.querySelectorAll('dialog[open] h2')]
    .filter((e) => e.clientHeight > 1.9 * parseFloat(getComputedStyle(e).lineHeight) && e.textContent.length < 30)
    .map((e) => e.textContent)`);
  assert.deepEqual(broken, [], 'a short heading over two lines');
}
