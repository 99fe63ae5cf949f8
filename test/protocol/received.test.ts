import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countReceived, formatProtocol, formatReceived } from '../../src/protocol/received.ts';

const FACTS = {
  helo: 'client.test',
  remoteAddress: '192.0.2.7',
  by: 'relay.test',
  protocol: 'ESMTPSA',
  tls: 'TLSv1.3 TLS_AES_256_GCM_SHA384',
  id: '01J',
  at: Date.UTC(2026, 10, 21, 1, 2, 3),
};

test('writes one field with what the client and the TLS were', () => {
  assert.equal(
    formatReceived(FACTS).toString(),
    'Received: from client.test ([192.0.2.7])\r\n' +
      '\tby relay.test with ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384) id 01J;\r\n' +
      '\tSat, 21 Nov 2026 01:02:03 +0000\r\n',
  );
  const plain = formatReceived({ ...FACTS, remoteAddress: '2001:db8::1', tls: undefined }).toString();
  assert.match(
    plain,
    /^Received: from client\.test \(\[IPv6:2001:db8::1\]\)\r\n\tby relay\.test with ESMTPSA id 01J;/,
  );
  assert.match(
    formatReceived({ ...FACTS, remoteAddress: '' }).toString(),
    /^Received: from client\.test\r\n/,
  );
});

test('a hostile HELO cannot add a line or a comment', () => {
  const text = formatReceived({ ...FACTS, helo: 'x\r\nBcc: (y) ü' }).toString();
  assert.equal(text.split('\r\n').length, 4);
  assert.match(text, /^Received: from x\?\?Bcc:\?\?y\?\?\? \(/);
});

test('names the protocol as RFC 3848 does', () => {
  const none = { lmtp: false, esmtp: false, tls: false, auth: false };
  assert.equal(formatProtocol(none), 'SMTP');
  assert.equal(formatProtocol({ ...none, esmtp: true }), 'ESMTP');
  assert.equal(formatProtocol({ ...none, auth: true }), 'ESMTPA');
  assert.equal(formatProtocol({ ...none, esmtp: true, tls: true, auth: true }), 'ESMTPSA');
  assert.equal(formatProtocol({ ...none, lmtp: true, tls: true }), 'LMTPS');
});

test('counts fields, not mentions', () => {
  assert.equal(
    countReceived('Received: from a\r\n\tby b\r\nRECEIVED : c\r\nX-Received: d\r\nSubject: Received: e'),
    2,
  );
  assert.equal(countReceived(''), 0);
});
