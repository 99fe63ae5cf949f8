// needs: chromium
/** Signing in, draining, adding and removing on the pages of the relay, by mouse and by keyboard. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { assertUsable, startChromium } from '../support/chromium.ts';
import { createFakeAdminBackend, type FakeAdminBackend, startAdmin } from '../support/fake-admin-backend.ts';

const ACCOUNTS = [
  {
    email: 'ann@example.com',
    status: 'needs_consent',
    reason: 'invalid_grant',
    cause: 'refresh-token-expired',
    cure: 'sign in again',
    lastError: 'invalid_grant',
  },
  { email: 'ben@example.com', tokenLifeS: 1800 },
  { email: 'cleo@example.com', tokenLifeS: 1800, drained: true },
] as const;

const LOOKS = [
  { viewport: { width: 1440, height: 900 }, colorScheme: 'light' },
  { viewport: { width: 1440, height: 900 }, colorScheme: 'dark' },
  { viewport: { width: 390, height: 844 }, colorScheme: 'light' },
  { viewport: { width: 390, height: 844 }, colorScheme: 'dark' },
] as const;

describe('sign-in pages in Chromium', () => {
  let browser: Browser;
  before(async () => {
    browser = await startChromium();
  });
  after(() => browser.close());

  async function visit(
    path: string,
    play: (page: Page, backend: FakeAdminBackend) => Promise<void>,
    look: Parameters<Browser['newPage']>[0] = {},
  ): Promise<void> {
    const backend = createFakeAdminBackend(ACCOUNTS);
    const { admin, url } = await startAdmin(backend);
    const page = await browser.newPage(look);
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(error.message));
    try {
      await page.goto(`${url}${path}`);
      await play(page, backend);
      assert.deepEqual(faults, []);
    } finally {
      await page.close();
      await admin.close();
    }
  }

  it('signs in with a code from the list of attention, by keyboard alone', async () => {
    await visit('/', async (page, backend) => {
      const attention = page.locator('#attention');
      await attention.getByRole('button', { name: 'Sign in to ann@example.com' }).focus();
      await page.keyboard.press('Enter');
      const dialog = page.getByRole('dialog');
      await dialog.getByRole('button', { name: 'Sign in with a code' }).focus();
      await page.keyboard.press('Enter');
      await dialog.getByText('ABCD-1234').waitFor();
      assert.equal(
        await dialog.getByRole('link', { name: 'Open login.example' }).getAttribute('href'),
        'https://login.example/device',
      );
      assert.match(
        backend.signIns.asked[0] ?? '',
        /^begin ann@example\.com device http:\/\/127\.0\.0\.1:\d+$/,
      );
      backend.signIns.row = {
        ...backend.signIns.row,
        state: 'failed',
        note: 'signed in as another mailbox',
        steps: [{ stage: 'auth', ok: false, detail: '535 5.7.8' }],
      };
      await dialog.getByText('signed in as another mailbox').waitFor();
      await dialog.getByRole('button', { name: 'Sign in with this browser' }).click();
      await dialog.getByLabel(/Address of the page/).fill('http://127.0.0.1/?code=c&state=s');
      await page.keyboard.press('Enter');
      backend.signIns.row = { ...backend.signIns.row, state: 'done', note: null };
      await dialog.getByText('Done: ann@example.com can send again.').waitFor();
      assert.equal(backend.signIns.asked.at(-1), 'paste ann@example.com http://127.0.0.1/?code=c&state=s');
      await page.keyboard.press('Escape');
      await dialog.waitFor({ state: 'hidden' });
    });
  });

  it('drains and removes only after asking, and says drained everywhere', async () => {
    await visit('/', async (page, backend) => {
      await page.locator('#tile-status', { hasText: '1 drained' }).waitFor();
      await page.locator('#attention', { hasText: 'drained' }).waitFor();
      await page.locator('#status-filter', { hasText: /Drained\s*1/ }).waitFor();
      await page
        .locator('#accounts tr', { hasText: 'cleo@example.com' })
        .filter({ hasText: 'Drained' })
        .waitFor();
      const drain = page.getByRole('button', { name: 'Drain ben@example.com' });
      await drain.click();
      await page.keyboard.press('Enter');
      await page.getByRole('dialog').waitFor({ state: 'hidden' });
      assert.deepEqual(backend.actions, [], 'Cancel has the focus');
      await drain.click();
      await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
      await page.locator('#tile-status', { hasText: '2 drained' }).waitFor();
      await page.getByRole('button', { name: 'ben@example.com', exact: true }).last().click();
      await page.getByRole('button', { name: 'Remove' }).click();
      await page.locator('#confirm').getByRole('button', { name: 'Remove' }).click();
      await page.locator('#accounts tr', { hasText: 'ben@example.com' }).waitFor({ state: 'detached' });
      assert.deepEqual(backend.actions, ['drain ben@example.com', 'remove ben@example.com']);
    });
  });

  it('adds an account, and tells a cause and an error once', async () => {
    await visit('/', async (page, backend) => {
      await page.getByRole('button', { name: 'Add account' }).click();
      await page.getByLabel('Mailbox').fill('new@example.com');
      await page.getByRole('button', { name: 'Sign in with a code' }).click();
      await page.getByText('ABCD-1234').waitFor();
      assert.equal(backend.signIns.asked[0], 'add new@example.com gmail');
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'ann@example.com', exact: true }).first().click();
      const detail = page.locator('#detail');
      await detail.getByText('invalid_grant').waitFor();
      assert.equal(await detail.getByText('invalid_grant').count(), 1);
      const link = detail.getByRole('link', { name: 'refresh-token-expired' });
      const target = (await link.getAttribute('href')) ?? '';
      await page.goto(new URL(target, page.url()).href);
      await page.getByRole('heading', { name: 'Troubleshooting' }).waitFor();
    });
  });

  it('shows an invited person one mailbox, and keeps the key to itself', async () => {
    await visit(`/sign-in#${'K'.repeat(43)}`, async (page, backend) => {
      await page.getByText('send as ann@example.com').waitFor();
      assert.equal(new URL(page.url()).hash, '');
      await page.getByRole('button', { name: 'Sign in with a code' }).click();
      await page.getByText('ABCD-1234').waitFor();
      backend.signIns.row = { ...backend.signIns.row, state: 'done' };
      await page.getByText('Done: ann@example.com can send again. You can close this page.').waitFor();
    });
    await visit(`/sign-in#wrong`, async (page) => {
      await page.getByText('this link is not good any more').waitFor();
    });
  });

  for (const look of LOOKS)
    it(`can be used at ${look.viewport.width} px, ${look.colorScheme}`, async () => {
      await visit(
        '/',
        async (page) => {
          await page.locator('#accounts tr', { hasText: 'ann@example.com' }).waitFor();
          await assertUsable(page);
          await page.getByRole('button', { name: 'Add account' }).click();
          await assertUsable(page);
          await page.keyboard.press('Escape');
          await page.getByRole('button', { name: 'ann@example.com', exact: true }).first().click();
          await page.locator('#detail').getByText('Submission server').waitFor();
          await assertUsable(page);
          await page.keyboard.press('Escape');
          await page.getByRole('button', { name: 'Sign in to ann@example.com', exact: true }).click();
          await page.getByRole('button', { name: 'Sign in with this browser' }).click();
          await page.getByLabel(/Address of the page/).waitFor();
          await assertUsable(page);
        },
        look,
      );
      await visit(
        `/sign-in#${'K'.repeat(43)}`,
        async (page) => {
          await page.getByRole('button', { name: 'Sign in with a code' }).click();
          await page.getByText('ABCD-1234').waitFor();
          await assertUsable(page);
        },
        look,
      );
      await visit('/troubleshooting', assertUsable, look);
    });
});
