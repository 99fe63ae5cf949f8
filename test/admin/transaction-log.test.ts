import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createTransactionLog } from '../../src/admin/transaction-log.ts';
import { fakeRecord } from '../support/fake-admin-backend.ts';

describe('transaction log', () => {
  it('keeps of a reply what a person reads', () => {
    const log = createTransactionLog(10);
    const text = 'x'.repeat(100_000);
    log.add(fakeRecord({ reply: { code: 250, text }, upstreamReply: { code: 250, text } }));
    assert.ok(JSON.stringify(log.latest({ limit: 10 })).length < 4_000);
  });

  it('keeps the last ones, newest first', () => {
    const log = createTransactionLog(3);
    for (const id of ['1', '2', '3', '4', '5']) log.add(fakeRecord({ id }));
    assert.deepEqual(
      log.latest({ limit: 10 }).map((r) => r.id),
      ['5', '4', '3'],
    );
    assert.deepEqual(
      log.latest({ limit: 2 }).map((r) => r.id),
      ['5', '4'],
    );
  });

  it('lists oldest entries right before the ring is full', () => {
    const log = createTransactionLog(3);
    assert.deepEqual(log.latest({ limit: 10 }), []);
    log.add(fakeRecord({ id: '1' }));
    log.add(fakeRecord({ id: '2' }));
    assert.deepEqual(
      log.latest({ limit: 10 }).map((r) => r.id),
      ['2', '1'],
    );
  });

  it('filters before it counts', () => {
    const log = createTransactionLog(10);
    log.add(fakeRecord({ id: '1', account: 'a' }));
    log.add(fakeRecord({ id: '2', account: 'b' }));
    log.add(fakeRecord({ id: '3', account: 'a', outcome: 'rejected' }));
    log.add(fakeRecord({ id: '4', account: 'b' }));
    assert.deepEqual(
      log.latest({ limit: 1, account: 'a' }).map((r) => r.id),
      ['3'],
    );
    assert.deepEqual(
      log.latest({ limit: 5, account: 'a', outcome: 'relayed' }).map((r) => r.id),
      ['1'],
    );
  });

  it('shows only domains, in replies too, unless asked for whole addresses', () => {
    const record = fakeRecord({
      sender: 'ann@example.com',
      recipients: ['bob@example.org'],
      upstreamReply: { code: 550, text: 'no mailbox <bob@example.org>' },
    });
    const masked = JSON.stringify(createTransactionLog(1).toRow(record));
    assert.ok(!masked.includes('bob@'), masked);
    assert.ok(masked.includes('*@example.org'));
    const whole = createTransactionLog(1, { showAddresses: true }).toRow(record);
    assert.deepEqual(whole.recipients, ['bob@example.org']);
  });

  it('shows nothing of a quoted local part', () => {
    const row = createTransactionLog(1).toRow(
      fakeRecord({ sender: '"ann at home@x"@example.com', recipients: ['postmaster'] }),
    );
    assert.equal(row.sender, '*@example.com');
    assert.deepEqual(row.recipients, ['postmaster']);
  });

  it('lists 20 recipients and counts all', () => {
    const row = createTransactionLog(1).toRow(fakeRecord({ recipients: Array(300).fill('x@example.org') }));
    assert.equal(row.recipients.length, 20);
    assert.equal(row.recipient_count, 300);
  });
});
