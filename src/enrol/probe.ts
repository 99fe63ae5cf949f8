/**
 * Walks an account's way to its provider without sending anything: token, DNS, TCP, TLS, EHLO, AUTH, MAIL
 * FROM as each sender, RSET; by Graph a draft. In: account and where its token comes from. Out: one step after the other,
 * failures explained. Owns one connection at a time and closes it.
 */
import { causeFacts, type SmtpProxy } from '../accounts/account.ts';
import type { LoadedAccount } from '../accounts/build-account.ts';
import { silentLog } from '../log.ts';
import { findReplyCause } from '../protocol/causes/book.ts';
import { claimsOf } from '../protocol/jwt-claims.ts';
import { formatReply } from '../protocol/reply.ts';
import { parseReply } from '../protocol/reply-parser.ts';
import { cleanText } from '../protocol/text.ts';
import { type AccessToken, TokenError } from '../tokens/access-token.ts';
import { createTokenService, type TokenService } from '../tokens/token-service.ts';
import type { TokenStore } from '../tokens/token-store.ts';
import { SMTP_AUTH_OFF } from '../upstream/ways.ts';
import { type ClientDialogue, StepError } from './client-dialogue.ts';
import { dialAccount } from './dial-account.ts';
import { type Explanation, explain, explainToken, type ProbeStage } from './explain.ts';
import { isItsPerson, OTHER_PERSON, probeGraph } from './probe-graph.ts';
import type { SignedIn } from './sign-in.ts';

export interface ProbeStep {
  readonly stage: ProbeStage;
  readonly ok: boolean;
  readonly ms: number;
  /** Facts where it went well, the other side's words where not. Never a secret. */
  readonly detail: string;
  readonly explanation?: Explanation;
  /** Something that is well now and will not stay so. */
  readonly doubt?: string;
}

export interface ProbeDeps {
  readonly tokens: Pick<TokenService, 'get'>;
  onStep(step: ProbeStep): void;
  /** For each step, ms. */
  readonly timeoutMs: number;
  /** EHLO argument of the relay. */
  readonly heloName?: string | undefined;
  /** Proxy for SMTP of the relay. */
  readonly proxy?: SmtpProxy | undefined;
  /** Whose grant is on trial, where a person has just signed in. */
  readonly signedIn?: Pick<SignedIn, 'name'> | undefined;
}

/** Does `work` with a service, and closes it whatever comes of that. */
export type TokenUse = <T>(tokens: TokenService, work: (tokens: TokenService) => Promise<T>) => Promise<T>;

export const useTokens: TokenUse = async (tokens, work) => {
  try {
    return await work(tokens);
  } finally {
    await tokens.close();
  }
};

/** Tokens of these accounts, when they are asked for. Owns `store`. */
export function tokensOf(store: TokenStore, accounts: readonly LoadedAccount[]): TokenService {
  const tokens = createTokenService({ log: silentLog, store }, { refreshAhead: false });
  tokens.applyAccounts(accounts);
  return tokens;
}

/** Walks the whole way or to the first failure. Resolves with the steps; never rejects. */
export async function probeAccount(
  { account }: LoadedAccount,
  deps: ProbeDeps,
): Promise<readonly ProbeStep[]> {
  const steps: ProbeStep[] = [];
  const add = (step: ProbeStep): void => {
    steps.push(step);
    deps.onStep(step);
  };
  let startedAt = performance.now();
  const passed = (stage: ProbeStage, detail: string, doubt?: string): void => {
    const now = performance.now();
    add({
      stage,
      ok: true,
      ms: Math.round(now - startedAt),
      detail,
      ...(doubt === undefined ? {} : { doubt }),
    });
    startedAt = now;
  };
  const facts = causeFacts(account);
  const failed = (stage: ProbeStage, said: string, explanation: Explanation): void => {
    add({
      stage,
      ok: false,
      ms: Math.round(performance.now() - startedAt),
      detail: said,
      explanation,
    });
    startedAt = performance.now();
  };
  function gaveUp(error: unknown): void {
    if (error instanceof TokenError) failed('token', error.message, explainToken(error, facts));
    else if (error instanceof StepError) {
      const { stage, message: said } = error;
      failed(stage, said, explain({ stage, said, ...facts }));
    } else throw error;
  }
  /** By Graph; true where mail could leave that way. `isProved`: that the grant is for the mailbox. */
  async function tryGraph(isProved = false): Promise<boolean> {
    const { graph } = account;
    if (graph === undefined) return false;
    const { signedIn } = deps;
    if (signedIn !== undefined && !isProved && !isItsPerson(account, graph, signedIn.name)) {
      failed('graph', `signed in as ${signedIn.name ?? 'somebody of whom no name was told'}`, OTHER_PERSON);
      return false;
    }
    try {
      const token = await deps.tokens.get(account.id, 'graph');
      passed('token', `for Graph: ${describeToken(token, Date.now())}`);
      await probeGraph(account, graph, {
        token,
        timeoutMs: deps.timeoutMs,
        passed: (detail, doubt) => passed('graph', detail, doubt),
      });
      return true;
    } catch (error) {
      gaveUp(error);
      return false;
    }
  }
  if (account.transport === 'graph') {
    await tryGraph();
    return steps;
  }

  let smtp: ClientDialogue | undefined;
  try {
    const token = await deps.tokens.get(account.id);
    passed('token', describeToken(token, Date.now()));
    smtp = await dialAccount(account, token, {
      heloName: deps.heloName,
      proxy: deps.proxy,
      timeoutMs: deps.timeoutMs,
      passed,
    });
    const { capabilities } = smtp;
    for (const sender of account.senders.filter((s) => !s.includes('*') && s !== '<>')) {
      const isAscii = Buffer.byteLength(sender) === sender.length;
      const parameter = isAscii || !capabilities.smtpUtf8 ? '' : ' SMTPUTF8';
      const reply = await smtp.command(`MAIL FROM:<${sender}>${parameter}`, 'sender');
      const said = formatReply(reply);
      if (reply.code >= 400) failed('sender', said, explain({ stage: 'sender', said, ...facts, sender }));
      else passed('sender', sender);
      await smtp.command('RSET', 'sender');
    }
    await smtp.quit();
    await tryGraph(true);
  } catch (error) {
    if (error instanceof StepError && isSwitchedOff(error) && (await tryGraph()))
      passed('auth', error.message, `SMTP AUTH is switched off: mail leaves by Graph (${error.message})`);
    else gaveUp(error);
  } finally {
    smtp?.close();
  }
  return steps;
}

/** SMTP AUTH is switched off for the mailbox: what `smtp_then_graph` is for. */
function isSwitchedOff({ stage, message }: StepError): boolean {
  const reply = stage === 'auth' ? parseReply(message) : undefined;
  return reply !== undefined && SMTP_AUTH_OFF.has(findReplyCause('auth', reply).id);
}

/** Life of a token, and of a JWT who it is for: `aud`, `scp` or `roles`, `exp`, nothing else of it. */
function describeToken(token: AccessToken, now: number): string {
  const minutes = Math.round((token.expiresAt - now) / 60_000);
  const age = Math.round((now - token.obtainedAt) / 1_000);
  const life = `${minutes} min left, ${age} s old`;
  const claims = publicClaims(token.reveal());
  return claims === undefined ? life : `${life}, ${claims}`;
}

/** Claims that a person needs to see why a token is refused; undefined for an opaque token. */
export function publicClaims(token: string): string | undefined {
  const claims = claimsOf(token) ?? {};
  const shown = ['aud', 'scp', 'roles', 'exp'].flatMap((name) => {
    const value = claims[name];
    if (name === 'exp' && typeof value === 'number') return [`exp ${new Date(value * 1000).toISOString()}`];
    const text = Array.isArray(value) ? value.filter((v) => typeof v === 'string').join(' ') : value;
    return typeof text === 'string' ? [`${name} ${text.slice(0, 200)}`] : [];
  });
  // Whoever made the token chose these words.
  return shown.length === 0 ? undefined : cleanText(shown.join(', '));
}
