/** Why there is no token although no token endpoint refused it: not asked, or no answer of one. Pure. */
import { type TokenCause, token } from './token-cause.ts';
import { webProxyCure } from './way-causes.ts';

export const NO_ANSWER_CAUSES: readonly TokenCause[] = [
  // Nothing was asked.
  token({
    id: 'token-store-away',
    class: 'provider_fault',
    symptom: '"Redis is away, and another relay may be refreshing this account"',
    what: 'the token has ended, and without Redis the relay cannot know whether another one is asking for a new one: two who ask at once can cost the mailbox its consent',
    cure: 'bring Redis back (see redis_lost in the log): the mail leaves at once. Only where mail matters more than a new sign-in: without_store "ask" (with a single relay "alone")',
  }),
  token({
    id: 'state-directory-unusable',
    class: 'provider_fault',
    symptom: '"the state directory cannot be used, and another process may be refreshing this account"',
    what: 'the refresh token in the state directory cannot be read or locked, and an older one must not be used in its place',
    cure: 'make the state directory readable and writable for the relay (disk full, owner, mode); the relay tries again by itself',
  }),
  token({
    id: 'stored-grant-unreadable',
    class: 'provider_fault',
    symptom:
      '"what the state directory has of this account cannot be read", "may hold a later refresh token of this account, and cannot be read", "is sealed with another state key"',
    what: 'what is kept of the account, or of its consent under another name, may be the newest refresh token and cannot be read; an older one must not be used in its place',
    cure: 'give the file to the user of the relay (chown), or the relay the state key it is sealed with; where that is lost remove the file, and the account goes on with the accounts file',
  }),

  // No answer, or none of a token endpoint.
  token({
    id: 'token-url-wrong',
    class: 'provider_fault',
    symptom: 'HTTP 404, 405 or 410, or a redirect, of the token endpoint',
    what: 'there is no token endpoint at this address',
    cure: 'check token_url and tenant of the account; a proxy in between may also answer so',
  }),
  token({
    id: 'token-service-garbled',
    class: 'provider_fault',
    symptom: '"token endpoint answered HTTP 200 (text/html)"',
    what: 'what answers is no token endpoint, or it has a fault: the answer is not its JSON',
    cure: 'check token_url; a proxy or captive portal in between may answer in its place (HTTPS_PROXY is honoured)',
  }),
  token({
    id: 'token-proxy',
    class: 'provider_fault',
    symptom: '"proxy http://… answered HTTP 407", "proxy http://… cannot be reached"',
    what: 'the proxy named by HTTPS_PROXY (or HTTP_PROXY) makes no connection to the token endpoint',
    cure: webProxyCure('the token endpoint', 'its host'),
  }),
  token({
    id: 'token-service-unreachable',
    class: 'provider_fault',
    symptom: 'ENOTFOUND, ECONNREFUSED, ETIMEDOUT',
    what: 'the token endpoint cannot be reached from this machine',
    cure: 'check DNS, firewall and proxy (HTTPS_PROXY is honoured for token requests), and token_url',
  }),
  token({
    id: 'token-service-slow',
    class: 'provider_fault',
    symptom: '"no complete answer in time"',
    what: 'the token endpoint was asked and is slow, or its answer does not come through',
    cure: 'wait: it is asked again, and what it answers late is kept; where it stays so check firewall and proxy (HTTPS_PROXY is honoured for token requests)',
  }),
  token({
    id: 'token-service-certificate',
    class: 'provider_fault',
    symptom: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE, SELF_SIGNED_CERT_IN_CHAIN, CERT_HAS_EXPIRED',
    what: 'the certificate of the token endpoint is not trusted',
    cure: 'a proxy that opens TLS needs its CA in NODE_EXTRA_CA_CERTS; else check the clock (timedatectl)',
  }),
];
