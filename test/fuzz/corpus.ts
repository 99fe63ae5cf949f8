/** Inputs worth keeping: real ones, and those that broke a parser once, here or elsewhere. Fuzzing starts from them. */

export const REPLIES: readonly string[] = [
  '220 smtp.gmail.com ESMTP d9443c01a7336-2e49f74d093sm13051525ad.83 - gsmtp\r\n',
  '250-smtp.gmail.com at your service\r\n250-SIZE 35882577\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n',
  '535-5.7.8 Username and Password not accepted. For more information, go to\r\n535 5.7.8  https://support.google.com/mail/?p=BadCredentials\r\n',
  '550-5.4.5 Daily user sending limit exceeded.\r\n550 5.4.5  https://support.google.com/a/answer/166852\r\n',
  '432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded\r\n',
  '250\r\n',
  '250 \r\n',
  '250-\r\n250 \r\n',
  '354 Go ahead\r\n250 2.0.0 OK\r\n',
  '334 eyJzdGF0dXMiOiI0MDAifQ==\r\n',
  '550 2.0.0 not what it says\r\n',
  '421 4.4.2 bye\n',
  '250-one\r\n550 two\r\n',
  '999 x\r\n',
  'HTTP/1.1 400 Bad Request\r\n\r\n',
];

export const PATHS: readonly string[] = [
  'FROM:<ann@example.com>',
  'FROM:<>',
  'FROM:<> SIZE=1 BODY=8BITMIME',
  'FROM:<@a,@b:user@example.com>',
  'FROM:<"a b\\"c>"@example.com> RET=HDRS',
  'FROM:<user@[127.0.0.1]>',
  'FROM:<user@[IPv6:::1]>',
  'FROM: <ann@example.com>',
  'FROM:ann@example.com',
  'FROM:<ann@example.com> SIZE=99999999999999999999999',
  'FROM:<\u212Aelvin@example.com>',
  'FROM:<a@b>\u0000',
  'FROM:<a@b@c>',
  'FROM:<',
];

export const PARAMETERS: readonly string[] = [
  'SIZE=0',
  'SIZE=',
  'SIZE=1e9',
  'size=12',
  'BODY=8BITMIME',
  'BODY=BINARYMIME',
  'SMTPUTF8',
  'SMTPUTF8=1',
  'ENVID=QQ+2B',
  'ENVID=+2',
  'AUTH=<>',
  'NOTIFY=NEVER,SUCCESS',
  'NOTIFY=SUCCESS,DELAY',
  'ORCPT=rfc822;a+40b',
  '=',
  '__proto__=1',
  'constructor',
];

export const HEADERS: readonly string[] = [
  'From: ann@example.com\r\n',
  'From: "Ann, (of) <x@y>" <ann@example.com>\r\n',
  'From: a@b, c@d\r\nFrom: e@f\r\n',
  'FROM:\r\n\tann@example.com\r\n',
  'From: group: a@b, c@d;, e@f\r\n',
  'From: (((((((ann@example.com\r\n',
  'From: =?utf-8?q?Ann?= <ann@example.com>\r\n',
  'Received: from a by b\r\n\tfor c\r\nReceived: x\r\n',
  'From ann@example.com Thu Jan  1 00:00:00 1970\r\nFrom: ann@example.com\r\n',
  'From : ann@example.com\r\n',
  'Subject: x\r\n\r\n\r\nno header\r\n',
  'Subject: x\r\n \r\n\tfolded\r\nno field\r\n',
  '\r\n\r\n',
  'A:1\r\nB:2\r\n\r',
  'A:1\nB:2\r\r\n\r\n',
];

export const BODIES: readonly string[] = [
  '.\r\n',
  '\r\n.\r\n',
  'a\r\n.\r\nQUIT\r\n',
  '..\r\n...\r\n.\r\n',
  'a\n.\n.\r\n',
  'a\r.\r\n.\r\n',
  'a\r\n.\rb\r\n.\r\n',
  'a\n.\r\n.\r\n',
  '.a\r\n..b\r\n\r\n.\r\n',
];

export const TOKEN_ANSWERS: readonly string[] = [
  '{"access_token":"a","token_type":"Bearer","expires_in":3600,"refresh_token":"r"}',
  '{"access_token":"a","token_type":"mac","expires_in":"3600","refresh_token":"r"}',
  '{"access_token":"a","expires_in":-1,"refresh_token":"r"}',
  '{"access_token":"a b","refresh_token":"r"}',
  '{"token_type":"Bearer","refresh_token":"r\\u0041"}',
  '{"access_token":"a","refresh_token":"r","expires_in":36',
  '{"error":"invalid_grant","error_description":"AADSTS50196: loop","error_codes":[50196]}',
  '{"error":{"code":400},"error_description":[1]}',
  'Too Many Requests',
  '<html>502 Bad Gateway</html>',
  '[]',
  'null',
  '{"__proto__":{"access_token":"a"}}',
];

/** Stands where secrets stand, so that a leak is found by looking for it. */
export const SECRET = 'h1dd3n';

export const ACCOUNTS: readonly string[] = [
  '[]',
  '{"accounts":[]}',
  `[{"email":"a@example.com","provider":"gmail","client_id":"c","client_secret":"${SECRET}","refresh_token":"${SECRET}"}]`,
  `[{"email":"a@example.com","provider":"gmail","client_id":"c","client_secret":["${SECRET}"],"password":"${SECRET}"}]`,
  `[{"email":"a@example.com","provider":"outlook","grant":"${SECRET}","refresh_token":"${SECRET}" x}]`,
  '[{"emial":"a@example.com","provider":"gmail","client_id":"c","refresh_token":"r"}]',
  '[{"email":"a@example.com","provider":"gmail","client_id":1,"refresh_token":{"env":"NONE"}}]',
  '{"accounts":[{"email":"a@example.com","provider":"x"}],"providers":{"x":{"smtp":"starttls://h:587"}}}',
  '// a comment\n[]',
  '[,]',
  '{"accounts":{"0":1}}',
  '{"__proto__":[]}',
];
