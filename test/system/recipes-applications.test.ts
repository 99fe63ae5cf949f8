// needs: php, phpmailer, symfony-mailer, python3, aiosmtplib, ruby-mail, go, go-mail
/**
 * docs/applications.md: each recipe with the library that its application sends by, set as the recipe says.
 * Everything arrives, from the sender that the recipe names, without a login.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createTransport } from 'nodemailer';
import { type Defer, leakless } from '../support/leak-check.ts';
import { runProgram } from '../support/program.ts';
import { startProvider } from '../support/provider.ts';
import { readRecipe } from '../support/recipe.ts';
import { startRelay } from '../support/relay-process.ts';

const recipe = readRecipe('applications.md');
const TO = 'you@example.net';

async function stage(defer: Defer, sender: string) {
  const provider = await startProvider({ users: [sender], flavour: 'gmail' });
  defer(() => provider.close());
  const relay = await startRelay({ accounts: [provider.entry(sender)], caFile: provider.caFile });
  defer(() => relay.stop());
  const directory = mkdtempSync(join(tmpdir(), 'applications-'));
  defer(() => rmSync(directory, { recursive: true, force: true }));
  /** The block of the recipe that holds this, at this relay. */
  const block = (text: string): string =>
    recipe
      .block(text)
      .replaceAll('127.0.0.1:2525', `127.0.0.1:${relay.smtpPort}`)
      .replaceAll('2525', `${relay.smtpPort}`);
  const run = async (program: string, name: string, source: string, env: Record<string, string> = {}) => {
    const file = join(directory, name);
    writeFileSync(file, source);
    const args = program === 'go' ? ['run', file] : [file];
    const { code, output } = await runProgram(program, args, {
      timeoutMs: 240_000,
      cwd: directory,
      env: { ...process.env, HOME: directory, RELAY_PORT: String(relay.smtpPort), ...env },
    });
    assert.equal(code, 0, output);
  };
  const arrived = async (): Promise<string> => {
    const [message] = await provider.received(1);
    assert.equal(message?.sender, sender);
    assert.deepEqual(
      message?.recipients.map(({ address }) => address),
      [TO],
    );
    const text = message?.body.toString() ?? '';
    assert.match(text, new RegExp(`^From: [^\\r]*${sender}`, 'm'));
    return text;
  };
  return { block, run, arrived, port: relay.smtpPort };
}

for (const [version, auto] of [
  ['as it was', 'false'],
  ['as it names its own sender first', 'true'],
] as const)
  test(
    `WordPress: PHPMailer, ${version}`,
    leakless(async (_t, defer) => {
      const { block, run, arrived } = await stage(defer, 'shop@example.com');
      await run(
        'php',
        'wordpress.php',
        `${block('phpmailer_init')}
require '/usr/share/php/libphp-phpmailer/autoload.php';
function add_action($name, $hook) { $GLOBALS['hook'] = $hook; }
$mailer = new PHPMailer\\PHPMailer\\PHPMailer(true);
$mailer->setFrom('wordpress@site.example', 'WordPress', ${auto});
$mailer->addAddress('${TO}');
$mailer->Subject = 'an order';
$mailer->Body = "one\\n.\\ntwo";
$mailer->isMail();
$GLOBALS['hook']($mailer);
$mailer->send();
`,
      );
      assert.match(await arrived(), /^Subject: an order\r$[\s\S]*\r\n\r\none\r\n\.\r\ntwo/m);
    }),
  );

test(
  'Nextcloud: Symfony Mailer',
  leakless(async (_t, defer) => {
    const { block, run, arrived } = await stage(defer, 'cloud@example.com');
    await run(
      'php',
      'nextcloud.php',
      `<?php
require '/usr/share/php/Symfony/Component/Mailer/autoload.php';
use Symfony\\Component\\Mailer\\Mailer;
use Symfony\\Component\\Mailer\\Transport\\Smtp\\EsmtpTransport;
use Symfony\\Component\\Mime\\Email;
$config = [${block('mail_smtpmode')}];
$transport = new EsmtpTransport($config['mail_smtphost'], $config['mail_smtpport'], $config['mail_smtpsecure'] === 'ssl');
if ($config['mail_smtpauth']) exit(9);
$mail = (new Email())->from($config['mail_from_address'] . '@' . $config['mail_domain'])->to('${TO}')->subject('a share')->text("hello\\n");
(new Mailer($transport))->send($mail);
`,
    );
    assert.match(await arrived(), /^Subject: a share\r$/m);
  }),
);

test(
  'GitLab: Ruby’s mail',
  leakless(async (_t, defer) => {
    const { block, run, arrived } = await stage(defer, 'gitlab@example.com');
    await run(
      'ruby',
      'gitlab.rb',
      `require 'mail'
gitlab_rails = {}
${block('gitlab_rails')}
exit 9 unless gitlab_rails.delete('smtp_enable')
from = gitlab_rails.delete('gitlab_email_from')
settings = gitlab_rails.to_h { |key, value| [key.delete_prefix('smtp_').to_sym, value] }
mail = Mail.new { to '${TO}'; subject 'a merge'; body "hello\\n" }
mail.from = from
mail.delivery_method :smtp, settings
mail.deliver!
`,
    );
    assert.match(await arrived(), /^Subject: a merge\r$/m);
  }),
);

test(
  'Grafana: Go’s mail.v2',
  leakless(async (_t, defer) => {
    const { block, run, arrived } = await stage(defer, 'grafana@example.com');
    const settings = new Map(
      [...block('[smtp]').matchAll(/^(\w+) =(.*)$/gm)].map(([, key = '', value = '']) => [key, value.trim()]),
    );
    assert.equal(settings.get('startTLS_policy'), 'NoStartTLS');
    const [host, port] = (settings.get('host') ?? '').split(':');
    await run(
      'go',
      'grafana.go',
      `package main
import "gopkg.in/mail.v2"
func main() {
  d := mail.NewDialer("${host}", ${port}, "${settings.get('user')}", "${settings.get('password')}")
  d.StartTLSPolicy = mail.NoStartTLS
  m := mail.NewMessage()
  m.SetHeader("From", "${settings.get('from_address')}")
  m.SetHeader("To", "${TO}")
  m.SetHeader("Subject", "an alert")
  m.SetBody("text/plain", "hello\\n")
  if err := d.DialAndSend(m); err != nil { panic(err) }
}
`,
      { GO111MODULE: 'off', GOPATH: '/usr/share/gocode', GOFLAGS: '' },
    );
    assert.match(await arrived(), /^Subject: an alert\r$/m);
  }),
);

test(
  'Alertmanager: Go’s net/smtp',
  leakless(async (_t, defer) => {
    const { block, run, arrived } = await stage(defer, 'alerts@example.com');
    const settings = new Map(
      [...block('smtp_smarthost').matchAll(/^ +(smtp_\w+): (.*)$/gm)].map(([, key = '', value = '']) => [
        key,
        value,
      ]),
    );
    assert.equal(settings.get('smtp_require_tls'), 'false');
    await run(
      'go',
      'alertmanager.go',
      `package main
import ("net/smtp"; "fmt")
func must(err error) { if err != nil { panic(err) } }
func main() {
  c, err := smtp.Dial("${settings.get('smtp_smarthost')}")
  must(err)
  must(c.Hello("localhost"))
  must(c.Mail("${settings.get('smtp_from')}"))
  must(c.Rcpt("${TO}"))
  w, err := c.Data()
  must(err)
  fmt.Fprint(w, "From: ${settings.get('smtp_from')}\\r\\nTo: ${TO}\\r\\nSubject: firing\\r\\n\\r\\nhello\\r\\n")
  must(w.Close())
  must(c.Quit())
}
`,
      { GO111MODULE: 'off', GOFLAGS: '' },
    );
    assert.match(await arrived(), /^Subject: firing\r$/m);
  }),
);

test(
  'Uptime Kuma and Immich: nodemailer without a user; Immich tries the address first',
  leakless(async (_t, defer) => {
    const { arrived, port } = await stage(defer, 'alerts@example.com');
    const transport = createTransport({
      host: '127.0.0.1',
      port,
      secure: false,
      tls: { rejectUnauthorized: true },
    });
    defer(() => transport.close());
    assert.equal(await transport.verify(), true);
    await transport.sendMail({ from: 'Alerts <alerts@example.com>', to: TO, subject: 'down', text: 'hello' });
    assert.match(await arrived(), /^Subject: down\r$/m);
  }),
);

const HOME_ASSISTANT = {
  smtplib: `import smtplib
mail = smtplib.SMTP(c['server'], int(c['port']), timeout=10)
mail.ehlo_or_helo_if_needed()
mail.sendmail(c['sender'], c['recipient'], message.as_string())
mail.quit()
`,
  aiosmtplib: `import asyncio, aiosmtplib
asyncio.run(aiosmtplib.send(message, sender=c['sender'], recipients=[c['recipient']], hostname=c['server'], port=int(c['port'])))
`,
};
for (const [library, source] of Object.entries(HOME_ASSISTANT))
  test(
    `Home Assistant: Python’s ${library}`,
    leakless(async (_t, defer) => {
      const { block, run, arrived } = await stage(defer, 'home@example.com');
      const settings = Object.fromEntries(
        [...block('platform: smtp').matchAll(/^ +(\w+): (.*)$/gm)].map(([, key = '', value = '']) => [
          key,
          value,
        ]),
      );
      assert.equal(settings.encryption, 'none');
      await run(
        '/usr/bin/python3',
        'home_assistant.py',
        `import json
from email.mime.text import MIMEText
c = json.loads(r'''${JSON.stringify(settings)}''')
message = MIMEText('hello')
message['Subject'] = 'the door'
message['To'] = c['recipient']
message['From'] = c['sender']
${source}`,
      );
      assert.match(await arrived(), /^Subject: the door\r$/m);
    }),
  );
