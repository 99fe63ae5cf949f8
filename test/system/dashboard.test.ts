// needs: chromium
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import type { Admin } from '../../src/admin/admin.ts';
import { assertUsable, startChromium } from '../support/chromium.ts';
import { sendMail } from '../support/dialogue.ts';
import {
  createFakeAdminBackend,
  type FakeAdminBackend,
  fakeRecord,
  startAdmin,
} from '../support/fake-admin-backend.ts';
import { startProvider } from '../support/provider.ts';
import { startRelay } from '../support/relay-process.ts';

const THOUSAND = Array.from({ length: 1000 }, (_, i) => ({
  email: `box${String(i).padStart(4, '0')}@example.com`,
  tokenLifeS: 1800,
}));

describe('dashboard in Chromium', () => {
  let browser: Browser;
  before(async () => {
    browser = await startChromium();
  });
  after(() => browser.close());

  /** A page on a relay of its own; what it reports as an error fails the test. */
  async function visit(
    backend: FakeAdminBackend,
    play: (page: Page, admin: Admin) => Promise<void>,
    look: Parameters<Browser['newPage']>[0] = {},
  ): Promise<void> {
    const { admin, url } = await startAdmin(backend);
    const page = await browser.newPage(look);
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') faults.push(message.text());
    });
    try {
      await page.goto(`${url}/`);
      await page.locator('#live[data-state="live"]').waitFor({ state: 'attached' });
      await play(page, admin);
      assert.deepEqual(faults, []);
    } finally {
      await page.close();
      await admin.close();
    }
  }

  it('shows a message within a second of its relay', async () => {
    await visit(
      createFakeAdminBackend([{ email: 'ann@example.com', tokenLifeS: 1800 }]),
      async (page, admin) => {
        const row = page.locator('#transactions tr').first();
        admin.recordTransaction(fakeRecord({ upstreamReply: { code: 250, text: 'OK first of all' } }));
        await row.filter({ hasText: 'OK first of all' }).waitFor();
        assert.match((await row.textContent()) ?? '', /Relayed.*ann@example\.com.*\*@example\.org/);
        await page.locator('#tile-rate').filter({ hasNotText: /^0$/ }).waitFor();
      },
    );
  });

  it('shows what the running relay relays and refreshes, within a second', async () => {
    const ann = 'ann@gmail.example';
    const provider = await startProvider({ users: [ann] });
    const relay = await startRelay({ accounts: [provider.entry(ann)], caFile: provider.caFile });
    const page = await browser.newPage();
    try {
      await page.goto(relay.adminUrl);
      const account = page.locator('#accounts tr', { hasText: ann });
      await account.filter({ hasText: 'Ready' }).filter({ hasText: 'left' }).waitFor();
      await sendMail(relay.smtpPort, { from: ann });
      await page.locator('#transactions tr', { hasText: 'Relayed' }).waitFor();
      provider.token.revoke(ann);
      await page.getByRole('button', { name: `Refresh the token of ${ann}` }).click();
      await account.filter({ hasText: 'Needs sign-in' }).waitFor();
      await page.locator('#attention', { hasText: ann }).waitFor();
    } finally {
      await page.close();
      await relay.stop();
      await provider.close();
    }
  });

  it('shows another status, its cure and a removed account without a reload', async () => {
    const backend = createFakeAdminBackend([
      { email: 'ann@example.com', tokenLifeS: 1800 },
      { email: 'bob@example.com', tokenLifeS: 1800 },
    ]);
    await visit(backend, async (page, admin) => {
      await page.locator('#health-text', { hasText: 'All accounts ready' }).waitFor();
      backend.set({
        email: 'ann@example.com',
        status: 'needs_consent',
        reason: 'grant revoked',
        cause: 'consent-missing',
        cure: 'sign in again',
      });
      admin.accountChanged('ann@example.com');
      const row = page.locator('#accounts tr', { hasText: 'ann@example.com' });
      await row.filter({ hasText: 'Needs sign-in' }).waitFor();
      await page.locator('#attention', { hasText: 'sign in again' }).waitFor();
      await page.locator('#health-text', { hasText: '1 account needs attention' }).waitFor();
      await page
        .locator('#announce', { hasText: 'ann@example.com is now needs sign-in' })
        .waitFor({ state: 'attached' });
      backend.remove('bob@example.com');
      admin.accountRemoved('bob@example.com');
      await page.locator('#accounts tr', { hasText: 'bob@example.com' }).waitFor({ state: 'detached' });
      await row.getByRole('button', { name: 'ann@example.com', exact: true }).click();
      const link = page.locator('#detail dd a');
      const href = (await link.getAttribute('href')) ?? '';
      const told = await page.request.get(new URL(href, page.url()).href);
      assert.match(told.headers()['content-type'] ?? '', /^text\/html/);
      assert.ok((await told.text()).includes(`<section id="${await link.textContent()}"`));
    });
  });

  it('acts on an account and says how it went', async () => {
    const backend = createFakeAdminBackend([{ email: 'ann@example.com', tokenLifeS: 1800 }]);
    await visit(backend, async (page) => {
      await page.getByRole('button', { name: 'Refresh the token of ann@example.com' }).click();
      await page.locator('.toast', { hasText: 'new token fetched' }).waitFor();
      await page.getByRole('button', { name: 'Drain ann@example.com' }).click();
      await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
      await page.getByRole('button', { name: 'Resume ann@example.com', exact: true }).waitFor();
      await page.getByRole('button', { name: 'Reload accounts' }).click();
      await page.locator('#accounts').getByRole('button', { name: 'ann@example.com', exact: true }).click();
      await page.getByRole('dialog').filter({ hasText: 'starttls://smtp.example.com:587' }).waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('dialog').waitFor({ state: 'hidden' });
      assert.deepEqual(backend.actions, ['refresh ann@example.com', 'drain ann@example.com', 'reload']);
    });
  });

  it('filters transactions by outcome and by text, and holds still while paused', async () => {
    await visit(createFakeAdminBackend([{ email: 'ann@example.com' }]), async (page, admin) => {
      const rows = page.locator('#transactions tr');
      admin.recordTransaction(fakeRecord());
      admin.recordTransaction(
        fakeRecord({ outcome: 'rejected', upstreamReply: { code: 550, text: 'no such user' } }),
      );
      await rows.nth(1).waitFor();
      await page.locator('#outcome-filter').getByText('Rejected').click();
      assert.equal(await rows.count(), 1);
      await page.getByLabel('Search transactions').fill('nothing like it');
      assert.equal(await rows.count(), 0);
      await page.getByLabel('Search transactions').fill('such user');
      assert.equal(await rows.count(), 1);
      await page.getByRole('button', { name: 'Pause' }).click();
      admin.recordTransaction(
        fakeRecord({ outcome: 'rejected', upstreamReply: { code: 550, text: 'such user two' } }),
      );
      await page.locator('#tile-outcomes', { hasText: '2 rejected' }).waitFor();
      assert.equal(await rows.count(), 1);
      await page.getByRole('button', { name: 'Go on' }).click();
      await rows.nth(1).waitFor();
    });
  });

  it('stays responsive with 1,000 accounts that all change', async () => {
    const backend = createFakeAdminBackend(THOUSAND);
    await visit(backend, async (page) => {
      await page.locator('#tile-total', { hasText: 'of 1,000 ready' }).waitFor();
      const drawn = await page.locator('#accounts tbody tr').count();
      assert.ok(drawn < 60, `${drawn} rows are in the page`);
      await page.evaluate("document.getElementById('accounts-scroll').scrollTo(0, 1e6)");
      await page.locator('#accounts tr', { hasText: 'box0999@example.com' }).waitFor();
      // The longest the page did not answer while every account changes and a search is typed.
      await page.evaluate(`
        window.longest = 0;
        new PerformanceObserver((list) => {
          for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
        }).observe({ type: 'longtask' });
      `);
      for (const { email } of THOUSAND) backend.set({ email, busy: 3 });
      await page.getByLabel('Search accounts').fill('box0500');
      const found = page.locator('#accounts tr', { hasText: 'box0500@example.com' });
      await found.filter({ hasText: '3 busy' }).waitFor();
      assert.equal(await page.locator('#accounts tbody tr:not(.spacer)').count(), 1);
      const longest = Number(await page.evaluate('window.longest'));
      assert.ok(longest < 500, `the page stood still for ${longest} ms`);
    });
  });

  it('sorts by a column and finds the search by key', async () => {
    const backend = createFakeAdminBackend([
      { email: 'a@example.com', busy: 0 },
      { email: 'b@example.com', busy: 4 },
    ]);
    await visit(backend, async (page) => {
      const first = page.locator('#accounts tbody tr:not(.spacer)').first();
      await first.filter({ hasText: 'a@example.com' }).waitFor();
      await page.getByRole('button', { name: 'Connections' }).click();
      await first.filter({ hasText: 'b@example.com' }).waitFor();
      assert.equal(await page.locator('th[data-sort="pool"]').getAttribute('aria-sort'), 'ascending');
      await page.keyboard.press('/');
      assert.equal(await page.evaluate('document.activeElement.id'), 'search');
    });
  });

  for (const [name, look] of [
    ['light', { colorScheme: 'light' }],
    ['dark', { colorScheme: 'dark' }],
    ['on a phone', { viewport: { width: 390, height: 844 } }],
  ] as const) {
    it(`has no serious fault for axe, ${name}`, async () => {
      const statuses = [
        'needs_consent',
        'misconfigured',
        'throttled',
        'unreachable',
        'refreshing',
        'ready',
      ] as const;
      const backend = createFakeAdminBackend(
        statuses.map((status) => ({
          email: `${status}@example.com`,
          status,
          reason: 'what happened',
          cure: 'what to do',
          lastError: 'an error',
          tokenLifeS: 900,
        })),
      );
      backend.breakerRows = [
        {
          name: 'smtp.gmail.com',
          kind: 'upstream',
          state: 'open',
          failures: 3,
          opened_at: null,
          retry_at: null,
        },
      ];
      await visit(
        backend,
        async (page, admin) => {
          for (const outcome of ['relayed', 'deferred', 'rejected', 'aborted', 'unknown'] as const) {
            admin.recordTransaction(fakeRecord({ outcome }));
          }
          await page.locator('#transactions tr').nth(4).waitFor();
          await assertUsable(page);
        },
        look,
      );
    });
  }
});
