/**
 * The dialogue of one session, free of sockets. In: command lines. Out: replies, and what the connection
 * is asked to do (TLS, SASL, a body, close). Owns what the client has said of itself so far.
 */
import type { Account } from '../accounts/account.ts';
import type { Heard } from '../protocol/esmtp.ts';
import { type Reply, reply } from '../protocol/reply.ts';
import { type Soon, whenKnown } from '../soon.ts';
import { type BodySink, FAULTS, type LineFault } from './command-reader.ts';
import type { LimitName } from './counts.ts';
import type { Origin } from './door.ts';
import { Intake } from './intake.ts';
import type { ClientFacts, MailSession } from './mail-session.ts';
import type { ListenerOptions } from './options.ts';

/** What a dialogue asks of its connection. */
export interface Wire {
  readonly id: string;
  readonly origin: Origin;
  /** `TLSv1.3 TLS_AES_256_GCM_SHA384`; undefined without TLS. */
  tls(): string | undefined;
  /** The client has closed its side, or said more than was dealt with: it does not wait for a reply. */
  mayBeGone(): boolean;
  /** The client has sent more already than the command at hand. */
  isAhead(): boolean;
  /** Whether the client has heard the reply that is due next. */
  readonly heard: () => Promise<Heard>;
  /** A 421 closes. */
  say(r: Reply): void;
  /** A reply of several lines without enhanced codes, as EHLO has it. */
  list(code: number, lines: readonly string[]): void;
  close(): void;
  startTls(done: () => void): void;
  /** Takes over from `AUTH mechanism [initial]`; ends in `authenticated` where it succeeds. */
  startSasl(line: string, done: () => void): void;
  /** False where the connection is already gone. */
  startBody(sink: BodySink): boolean;
}

export interface DialogueHooks {
  readonly options: ListenerOptions;
  openMail(client: () => ClientFacts): MailSession;
  /** EHLO keywords that do not depend on the state of the connection. */
  keywords(account: Account | undefined): readonly string[];
  hit(limit: LimitName): void;
  /** AUTH that came to no user: without TLS, another mechanism, not understood. */
  authRefused(origin: Origin, r: Reply): void;
}

export interface Dialogue {
  /** Calls `done` when the next command may come. `rcptFollows`: that will be a RCPT, and it is there already. */
  command(line: string, done: () => void, rcptFollows: boolean): void;
  /** A line that cannot be a command. */
  fault(kind: LineFault): void;
  /** A refusal for something only a mistaken or hostile client sends; too many of them end the session. */
  bad(r: Reply): void;
  authenticated(user: string, account: Account): void;
  isAuthenticated(): boolean;
  /** This client may do nothing without AUTH. */
  readonly needsAuth: boolean;
  isInTransaction(): boolean;
  /** When the transaction in progress began, monotonic ms. */
  since(): number | undefined;
  /** No further transaction: MAIL is answered 421. */
  drain(): void;
  /** Ends the transaction in progress; nothing of it is delivered. */
  reset(): void;
  /** As `reset`, but a final reply that is awaited still comes, at once; false where none is. */
  giveUp(): boolean;
  /** Nothing learned before TLS counts after it (RFC 3207 §4.2). */
  forget(): void;
}

export const SHUTTING_DOWN = reply(421, '4.3.2', 'Shutting down, try again later');
const OK = reply(250, '2.0.0', 'OK');
const BODY_TOO_SOON = reply(421, '4.7.0', 'The message came before the answer to DATA, closing connection');
const NOT_HERE = reply(502, '5.5.1', 'Command not implemented');
export const NOT_BASE64 = reply(501, '5.5.2', 'Not base64');
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
/** What a client says that has read the refusal of its message; a header does not begin so. */
const COMES_NEXT = /^(?:MAIL|RCPT|RSET|EHLO|HELO|LHLO|AUTH|STARTTLS)$/;
/** A browser made to talk to a mail server; the first line gives it away. */
const HTTP_REQUEST = / HTTP\/\d(?:\.\d)?$/i;
/** RFC 5321 §4.5.3.1.2. */
const MAX_DOMAIN_OCTETS = 255;

export const isBase64 = (text: string): boolean => BASE64.test(text);

export function createDialogue(wire: Wire, hooks: DialogueHooks): Dialogue {
  const { hostname, lmtp, tls, authRequired, authEqualsLine, limits } = hooks.options;
  let auth: ClientFacts['auth'];
  let helo = '';
  let isEsmtp = false;
  let mail: MailSession | undefined;
  let isDraining = false;
  let badCommands = 0;
  let unauthenticated = 0;
  /** DATA or BDAT was refused, and nothing has come that shows that the client has read it. */
  let isBodyDue = false;
  /** RCPTs that came together: answered in order when the last of them is there. */
  const batch: { readonly isBad: boolean; readonly answer: Soon<Reply> }[] = [];

  const { remoteAddress, isTrusted, mayAuthInClear } = wire.origin;
  const needsAuth = authRequired || !isTrusted;

  const facts = (): ClientFacts => ({
    id: wire.id,
    remoteAddress,
    helo,
    esmtp: isEsmtp,
    tls: wire.tls(),
    auth,
    isTrusted,
    mayBeGone: wire.mayBeGone(),
    heard: wire.heard,
  });

  function session(): MailSession {
    mail ??= hooks.openMail(facts);
    return mail;
  }

  function bad(r: Reply): void {
    badCommands += 1;
    if (badCommands < limits.maxBadCommands) {
      wire.say(r);
      return;
    }
    hooks.hit('bad_commands');
    wire.say(reply(421, '4.7.0', 'Too many bad commands'));
  }

  /** Commands answered at once. */
  function simple(verb: string, argument: string): void {
    switch (verb) {
      case 'EHLO':
      case 'HELO':
      case 'LHLO':
        greet(verb, argument);
        return;
      case 'RSET':
        mail?.reset();
        wire.say(OK);
        return;
      case 'NOOP':
        wire.say(OK);
        return;
      case 'QUIT':
        wire.say(reply(221, '2.0.0', 'Bye'));
        wire.close();
        return;
      case 'VRFY':
        // RFC 5321 §7.3: a server that does not verify says 252.
        if (argument === '') bad(reply(501, '5.5.4', 'Syntax: VRFY address'));
        else wire.say(reply(252, '2.1.5', 'Cannot verify, but will take mail'));
        return;
      case 'HELP':
        wire.say(reply(214, '2.0.0', 'RFC 5321; EHLO lists the extensions'));
        return;
      case 'EXPN':
      case 'ETRN':
      case 'TURN':
      case 'ATRN':
      case 'SEND':
      case 'SOML':
      case 'SAML':
        bad(NOT_HERE);
        return;
      case 'BDAT':
        bad(NOT_HERE);
        bodyRefused();
        return;
      default:
        if (HTTP_REQUEST.test(argument)) wire.say(reply(421, '4.7.0', 'This is not a web server'));
        else unknown(reply(500, '5.5.1', 'Command not recognized'));
    }
  }

  /** Whoever sends it without waiting (RFC 2920 §3.1) would have its lines run as commands. */
  function bodyRefused(): void {
    isBodyDue = true;
    if (wire.isAhead()) wire.say(BODY_TOO_SOON);
  }

  /** A line that is no command. */
  function unknown(r: Reply): void {
    if (isBodyDue) wire.say(BODY_TOO_SOON);
    else bad(r);
  }

  function greet(verb: string, argument: string): void {
    if (lmtp !== (verb === 'LHLO')) {
      bad(reply(500, '5.5.1', lmtp ? 'This is LMTP: send LHLO' : 'This is SMTP: send EHLO'));
      return;
    }
    // Devices say nothing, or their model in several words.
    const name = isTrusted ? (argument.split(' ', 1)[0] ?? '') || 'unknown' : argument;
    if (name === '' || name.includes(' ') || Buffer.byteLength(name) > MAX_DOMAIN_OCTETS) {
      bad(reply(501, '5.5.4', `Syntax: ${verb} hostname`));
      return;
    }
    mail?.reset();
    helo = name;
    isEsmtp = verb !== 'HELO';
    if (verb === 'HELO') {
      wire.list(250, [hostname]);
      return;
    }
    const lines = [hostname, ...hooks.keywords(auth?.account)];
    if (tls === 'starttls' && wire.tls() === undefined) lines.push('STARTTLS');
    if (auth === undefined && mayAuth()) {
      if (authEqualsLine) lines.push('AUTH=PLAIN LOGIN');
      lines.push('AUTH PLAIN LOGIN');
    }
    wire.list(250, lines);
  }

  /** Why the argument of MAIL or RCPT cannot be looked at. */
  function refusalOfPath(verb: 'MAIL' | 'RCPT', keyword: string, argument: string): Reply | undefined {
    if (helo === '') return reply(503, '5.5.1', lmtp ? 'Send LHLO first' : 'Send EHLO first');
    return argument.toUpperCase().startsWith(keyword)
      ? undefined
      : reply(501, '5.5.4', `Syntax: ${verb} ${keyword}<address>`);
  }

  function mailFrom(argument: string, done: () => void): void {
    const refusal = refusalOfPath('MAIL', 'FROM:', argument);
    if (refusal === undefined && !isDraining) {
      void whenKnown(session().mail(argument.slice('FROM:'.length)), (answer) => {
        wire.say(answer);
        done();
      });
      return;
    }
    if (refusal === undefined) wire.say(SHUTTING_DOWN);
    else bad(refusal);
    done();
  }

  function rcptTo(argument: string, rcptFollows: boolean, done: () => void): void {
    const refusal = refusalOfPath('RCPT', 'TO:', argument);
    const answer = session().rcpt(refusal ?? argument.slice('TO:'.length), rcptFollows);
    batch.push({ isBad: refusal !== undefined, answer });
    if (rcptFollows) done();
    else answerBatch(done);
  }

  function answerBatch(done: () => void): void {
    const tell = (isBad: boolean, r: Reply): void => (isBad ? bad(r) : wire.say(r));
    for (let one = batch.shift(); one !== undefined; one = batch.shift()) {
      const { isBad, answer } = one;
      if (answer instanceof Promise) {
        void answer.then((r) => {
          tell(isBad, r);
          answerBatch(done);
        });
        return;
      }
      tell(isBad, answer);
    }
    done();
  }

  /** False where DATA is refused: what follows are commands. */
  function takeBody(argument: string): Soon<boolean> {
    if (argument === '') return whenKnown(session().data(), startBody);
    bad(reply(501, '5.5.4', 'Syntax: DATA'));
    return false;
  }

  function startBody(answer: Reply | Intake): boolean {
    if (!(answer instanceof Intake)) {
      wire.say(answer);
      return false;
    }
    // RFC 2033 §4.2: LMTP answers for every recipient that was accepted.
    const replies = lmtp ? session().recipients() : 1;
    const isStarted = wire.startBody({
      body: answer,
      end: async () => {
        const final = await answer.end();
        // 421 ends the session: all but the last hear the same as 451.
        const others = final.code === 421 ? { ...final, code: 451 } : final;
        for (let i = 1; i < replies; i++) wire.say(others);
        wire.say(final);
        if (final.code < 300) badCommands = 0;
      },
    });
    if (isStarted) wire.say(reply(354, '', 'End data with <CR><LF>.<CR><LF>'));
    else answer.abort();
    return true;
  }

  /** Whether TLS starts; `done` is called when it does. */
  function startTls(argument: string, done: () => void): void {
    if (tls !== 'starttls') bad(NOT_HERE);
    else if (wire.tls() !== undefined) bad(reply(503, '5.5.1', 'TLS is already active'));
    else if (argument !== '') bad(reply(501, '5.5.4', 'Syntax: STARTTLS'));
    else {
      wire.say(reply(220, '2.0.0', 'Ready to start TLS'));
      wire.startTls(done);
      return;
    }
    done();
  }

  const mayAuth = (): boolean => mayAuthInClear || wire.tls() !== undefined;

  function refusalOfAuth(argument: string): Reply | undefined {
    const [mechanism = '', initial] = argument.split(' ');
    if (helo === '') return reply(503, '5.5.1', 'Send EHLO or HELO first');
    if (auth !== undefined) return reply(503, '5.5.1', 'Already authenticated');
    if (mail?.isInTransaction() === true) return reply(503, '5.5.1', 'A transaction is in progress');
    if (!mayAuth()) return reply(538, '5.7.11', 'Encryption required: send STARTTLS first');
    if (mechanism === '') return reply(501, '5.5.4', 'Say which mechanism: AUTH PLAIN or AUTH LOGIN');
    if (!/^(?:PLAIN|LOGIN)$/i.test(mechanism)) {
      return reply(504, '5.5.4', 'Mechanism not supported: use PLAIN or LOGIN');
    }
    return initial !== undefined && initial !== '=' && !isBase64(initial) ? NOT_BASE64 : undefined;
  }

  /** Whether the command may go on; else it has been answered 421. */
  function countUnauthenticated(verb: string): boolean {
    if (!needsAuth || auth !== undefined || verb === 'AUTH' || verb === 'QUIT') return true;
    unauthenticated += 1;
    if (unauthenticated <= limits.maxUnauthenticatedCommands) return true;
    hooks.hit('unauthenticated_commands');
    wire.say(reply(421, '4.7.0', 'Too many commands without AUTH'));
    return false;
  }

  return {
    command(given, done, rcptFollows) {
      if (given.includes('\t') && !isTrusted) {
        unknown(FAULTS.control_character);
        done();
        return;
      }
      const line = given.includes('\t') ? given.replaceAll('\t', ' ') : given;
      const space = line.indexOf(' ');
      const verb = (space < 0 ? line : line.slice(0, space)).toUpperCase();
      const argument = space < 0 ? '' : line.slice(space + 1).trim();
      if (COMES_NEXT.test(verb)) isBodyDue = false;
      if (!countUnauthenticated(verb)) done();
      else if (verb === 'MAIL') mailFrom(argument, done);
      else if (verb === 'RCPT') rcptTo(argument, rcptFollows, done);
      else if (verb === 'DATA')
        void whenKnown(takeBody(argument), (isTaken) => {
          if (!isTaken) bodyRefused();
          done();
        });
      else if (verb === 'STARTTLS') startTls(argument, done);
      else if (verb === 'AUTH') {
        const refusal = refusalOfAuth(argument);
        if (refusal === undefined) wire.startSasl(line.trimEnd(), done);
        else {
          hooks.authRefused(wire.origin, refusal);
          bad(refusal);
          done();
        }
      } else {
        simple(verb, argument);
        done();
      }
    },
    fault(kind) {
      if (kind === 'too_long') hooks.hit('command_octets');
      unknown(FAULTS[kind]);
    },
    bad,
    authenticated(user, account) {
      auth = { user, account };
    },
    isAuthenticated: () => auth !== undefined,
    needsAuth,
    isInTransaction: () => mail?.isInTransaction() === true,
    since: () => mail?.since(),
    drain() {
      isDraining = true;
    },
    reset() {
      mail?.reset();
    },
    giveUp: () => mail?.giveUp() === true,
    forget() {
      mail?.reset();
      helo = '';
      isEsmtp = false;
      auth = undefined;
    },
  };
}
