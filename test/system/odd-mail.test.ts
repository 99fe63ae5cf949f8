// needs: odd-mail, sample-mail

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startFront } from '../listener/front.ts';
import { greeted } from '../support/dialogue.ts';
import { leakless } from '../support/leak-check.ts';
import { ANN } from '../support/relay-room.ts';

const SAMPLES = '/usr/share/doc/spamassassin/examples';

/** Every message of the packages, line ends as on the wire: a client that reads files sends CRLF. */
function messages(): { readonly name: string; readonly body: Buffer }[] {
  const python = readdirSync('/usr/lib').find((d) => /^python3\.\d+$/.test(d)) ?? 'python3.11';
  const odd = join('/usr/lib', python, 'test/test_email/data');
  const files = [
    ...readdirSync(odd)
      .filter((name) => name.startsWith('msg_'))
      .map((name) => join(odd, name)),
    ...['sample-spam.txt', 'sample-nonspam.txt'].map((name) => join(SAMPLES, name)),
  ];
  return files.map((name) => {
    const text = readFileSync(name, 'latin1').replace(/\r?\n/g, '\r\n');
    return { name, body: Buffer.from(text.endsWith('\r\n') ? text : `${text}\r\n`, 'latin1') };
  });
}

for (const chunking of [true, false])
  test(
    `odd messages are relayed byte for byte, by ${chunking ? 'BDAT' : 'DATA'}`,
    leakless(async (_t, defer) => {
      const front = await startFront(defer, { account: { chunking } });
      const client = await greeted(front.port);
      defer(() => client.end());
      const all = messages();
      assert.ok(all.length >= 45, `${all.length} messages`);
      for (const { name, body } of all) {
        await client.expect(`MAIL FROM:<${ANN}> BODY=8BITMIME`, 250);
        await client.expect('RCPT TO:<bob@example.net>', 250);
        await client.expect('DATA', 354);
        const verdict = await client.body(body);
        // A CR that ends no line is no content (RFC 5321 §2.3.8): such a message is refused, never altered.
        if (/\r(?!\n)/.test(body.toString('latin1'))) {
          assert.equal(verdict.code, 554, `${name}: ${verdict.text}`);
          continue;
        }
        assert.equal(verdict.code, 250, `${name}: ${verdict.text}`);
        assert.ok(front.provider.messages.at(-1)?.body.equals(body), `${name} came out changed`);
      }
      await client.expect('QUIT', 221);
    }),
  );
