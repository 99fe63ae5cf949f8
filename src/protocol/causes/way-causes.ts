/** Why a submission server could not be reached: DNS, TCP, TLS, greeting, EHLO. Special rows before general ones. Pure. */
import { type Cause, isMicrosoft } from './cause.ts';

export interface WayCause extends Cause {
  /** What was reported: a system or TLS error code, or a reply line. */
  readonly said: RegExp;
  /** Not the server's trouble: it refuses the name we give. */
  readonly isOurName?: boolean;
}

export const webProxyCure = (to: string, host: string): string =>
  `check address, user and password in HTTPS_PROXY where the relay gets its environment, and that the proxy runs and allows CONNECT to ${to}; where none is needed name ${host} in NO_PROXY`;

export const WAY_CAUSES: readonly WayCause[] = [
  {
    id: 'proxy-login',
    stages: ['tcp'],
    said: /^(?:http|socks5):\S+ (?:answered HTTP 407|refused the login|wants another login)/,
    symptom: '"answered HTTP 407", "refused the login", "wants another login"',
    what: 'the proxy for SMTP does not take the user and password of smtp_proxy, or asks for one',
    cure: 'correct user and password in smtp_proxy (http://user:password@host:port); better keep it as { "env": … } or { "file": … }',
  },
  {
    id: 'proxy-unreachable',
    stages: ['tcp'],
    said: /^(?:http|socks5):\S+ cannot be reached/,
    symptom: '"http://… cannot be reached", "socks5://… cannot be reached"',
    what: 'the proxy for SMTP cannot be reached',
    cure: 'check host and port in smtp_proxy (of the account, the provider or the relay), and whether the proxy runs',
  },
  {
    id: 'proxy-silent',
    stages: ['tcp'],
    said: /^(?:http|socks5):\S+ made no connection in time/,
    symptom: '"http://… made no connection in time", "socks5://… made no connection in time"',
    what: (f) => `the proxy for SMTP does not answer, or waits for ${f.host}:${f.port} itself`,
    cure: (f) =>
      `check host and port in smtp_proxy, that the proxy runs and takes connections from here, and by its log whether it may and can reach port ${f.port}`,
  },
  {
    id: 'proxy-refuses',
    stages: ['tcp'],
    said: /^(?:http|socks5):\S+ /,
    symptom: '"answered HTTP 403", "made no connection (NotAllowed)", "is no HTTP proxy"',
    what: (f) => `the proxy for SMTP makes no connection to ${f.host}:${f.port}`,
    cure: (f) =>
      `let the proxy connect to port ${f.port} (many allow 443 only: CONNECT ports of Squid, ConnectPort of tinyproxy), and look at its log; check the scheme of smtp_proxy`,
  },
  {
    id: 'web-proxy',
    stages: ['tcp'],
    said: /^proxy \S+ /,
    symptom: 'Graph: "proxy http://… answered HTTP 407", "proxy http://… cannot be reached"',
    what: 'the proxy named by HTTPS_PROXY (or HTTP_PROXY) makes no connection to Graph',
    cure: webProxyCure('graph.microsoft.com:443', 'that host'),
  },
  {
    id: 'host-unknown',
    stages: ['dns'],
    said: /ENOTFOUND|ENODATA/,
    symptom: 'ENOTFOUND, ENODATA',
    what: (f) => `there is no host ${f.host}`,
    cure: 'check smtp of the account for a typing mistake',
  },
  {
    id: 'name-server-silent',
    stages: ['dns'],
    said: /(?:)/,
    symptom: 'EAI_AGAIN, ESERVFAIL, ETIMEOUT',
    what: 'the name server does not answer',
    cure: 'check /etc/resolv.conf and the network',
  },
  {
    id: 'port-closed',
    stages: ['tcp'],
    said: /ECONNREFUSED/,
    symptom: 'ECONNREFUSED',
    what: (f) => `nothing listens on ${f.host}:${f.port}`,
    cure: 'check smtp of the account',
    special: [
      {
        where: 'Microsoft, port 465',
        when: (f) => f.port === 465 && isMicrosoft(f),
        what: (f) => `nothing listens on ${f.host}:${f.port}`,
        cure: 'Microsoft has no port 465: use starttls://…:587',
      },
    ],
  },
  {
    id: 'port-blocked',
    stages: ['tcp'],
    said: /ETIMEDOUT|timeout|EHOSTUNREACH|ENETUNREACH|no answer in time/i,
    symptom: 'ETIMEDOUT, EHOSTUNREACH, ENETUNREACH',
    what: (f) =>
      `port ${f.port} of ${f.host} cannot be reached; hosting providers and offices often block it`,
    cure: 'allow outgoing TCP to this port in the firewall, or ask the hosting provider to',
  },
  {
    id: 'local-address',
    stages: ['tcp'],
    said: /EADDRNOTAVAIL|EINVAL/,
    symptom: 'EADDRNOTAVAIL, EINVAL',
    what: 'local_address is not an address of this machine',
    cure: 'correct or remove local_address',
  },
  {
    id: 'no-connection',
    stages: ['tcp'],
    said: /(?:)/,
    symptom: 'ECONNRESET and the like before the greeting',
    what: (f) => `no connection to ${f.host}:${f.port} could be made`,
    cure: 'check the network and the firewall, and smtp of the account',
  },
  {
    id: 'certificate-expired',
    stages: ['tls'],
    said: /CERT_HAS_EXPIRED|expired/i,
    symptom: 'CERT_HAS_EXPIRED',
    what: 'the certificate of the server has expired, or the clock of this machine is wrong',
    cure: 'check the clock (timedatectl); else the server’s operator has to renew',
  },
  {
    id: 'certificate-name',
    stages: ['tls'],
    said: /ALTNAME|altnames/i,
    symptom: 'ERR_TLS_CERT_ALTNAME_INVALID',
    what: (f) => `the certificate was not issued for ${f.host}`,
    cure: 'use the name that stands in the certificate in smtp, or find out who sits in between',
  },
  {
    id: 'certificate-untrusted',
    stages: ['tls'],
    said: /SELF_SIGNED|UNABLE_TO|issuer|certificate/i,
    symptom: 'SELF_SIGNED_CERT_IN_CHAIN, UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    what: 'the certificate comes from an authority this machine does not trust',
    cure: 'name the authority in NODE_EXTRA_CA_CERTS; at Gmail or Microsoft it means that somebody opens the connection on the way',
  },
  {
    id: 'no-starttls',
    stages: ['tls'],
    said: /STARTTLS/i,
    symptom: '"no STARTTLS"',
    what: 'the server offers no STARTTLS here',
    cure: 'use smtps://…:465 if the server has it; mail is never sent in clear text',
  },
  {
    id: 'tls-failed',
    stages: ['tls'],
    said: /(?:)/,
    symptom: 'EPROTO, ERR_SSL_…',
    what: 'TLS could not be agreed on',
    cure: 'the server needs TLS 1.2 or newer; with smtps:// the port must be one for TLS from the start (465), with starttls:// one for STARTTLS (587)',
  },
  {
    id: 'server-silent',
    stages: ['greeting', 'ehlo'],
    said: /timeout|ETIMEDOUT|no answer in time|no reply within/i,
    symptom: 'no greeting in time',
    what: 'the server does not speak first: the port may expect TLS from the start, or a firewall swallows the data',
    cure: 'use smtps:// for port 465 and starttls:// for 587',
  },
  {
    id: 'ehlo-name',
    stages: ['ehlo'],
    isOurName: true,
    // Gmail says 501, its relay service 421 with the command in brackets.
    said: /^(?:501|504|550)|\((?:EHLO|HELO)\)|EHLO argument|helo (?:command )?rejected/i,
    symptom: '501-5.5.4 HELO/EHLO argument … invalid; 421 4.7.0 … (EHLO)',
    what: 'the server does not like the name with which the relay greets it',
    cure: 'set helo_name (of the account or provider) or the setting helo-name to the full name of this host, such as mail.example.org',
  },
  {
    id: 'connection-unwanted',
    stages: ['greeting', 'ehlo'],
    said: /^4/,
    symptom: '421 at the greeting or EHLO',
    what: 'the server does not want connections from here now',
    cure: 'wait, the relay tries again by itself; many quick connections cause this',
  },
  {
    id: 'no-smtp',
    stages: ['greeting', 'ehlo'],
    said: /(?:)/,
    symptom: 'another text at the greeting or EHLO',
    what: 'the other side does not speak SMTP as expected',
    cure: 'check host and port of smtp',
  },
];
