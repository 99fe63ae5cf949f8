/**
 * One connection to the simulated submission server: RFC 5321 with PIPELINING, CHUNKING (RFC 3030),
 * STARTTLS and two-step XOAUTH2. In: a socket and the provider's state. Out: submissions handed to
 * the provider. Strict on purpose: a parameter or an order the flavour does not know is refused.
 */
import type { Socket } from 'node:net';
import { type SecureContext, TLSSocket } from 'node:tls';
import { type Extension, type Flavour, gmailChallenge, type Lines } from './flavour.ts';
import type { Action, IdleStyle, Script, SmtpRules, Stage } from './smtp-script.ts';
import { type Before, createTransactions, isPositive, type Transactions } from './smtp-transaction.ts';
import type { Submission } from './submission.ts';
import { Wire, WireClosed, type WireTiming } from './wire.ts';

/** What a session needs from the provider it belongs to. */
export interface SessionHost {
  readonly rules: SmtpRules;
  readonly script: Script;
  readonly timing: WireTiming;
  readonly secureContext: SecureContext;
  /** Keep bodies and transcripts; without them only sizes and digests stay. */
  readonly record: boolean;
  flavour(): Flavour;
  /** Whether `token` is one that this provider issued for `user` and that still lives. */
  verify(user: string, token: string): boolean;
  /** Counts a login that is about to be judged; false when the limit is spent. */
  mayLogIn(user: string): boolean;
  loggedIn(user: string): void;
  /** Verdict of the limits on a MAIL: undefined when the user may send. */
  mailLimit(user: string): 'rate' | 'daily' | undefined;
  /** A body begins; true when the mailbox already has as many submissions as it may. */
  beginSubmission(user: string): boolean;
  endSubmission(user: string): void;
  submitted(submission: Submission): void;
  /** Each line of the dialogue as it happens; `C` the client, `S` the server. */
  observe(connectionId: number, who: 'C' | 'S', line: string): void;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: \x01 separates the fields of XOAUTH2
const XOAUTH2 = /^user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01$/;
const OAUTHBEARER =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: RFC 7628 §3.1
  /^n,a=([^\x01,]*),\x01host=localhost\x01port=\d+\x01auth=Bearer ([^\x01]*)\x01\x01$/;
const FORMS = new Map([
  ['XOAUTH2', XOAUTH2],
  ['OAUTHBEARER', OAUTHBEARER],
]);

export class Session {
  readonly id: number;
  readonly openedAt = Date.now();
  /** Command lines as they came; the XOAUTH2 blob is left out. */
  readonly commands: string[] = [];
  /** `C: ` and `S: ` lines in order. */
  readonly transcript: string[] = [];
  /** The same with the sizes of bodies, an empty line before each flight of the client's. */
  readonly dialogue: string[] = [];
  tls: 'none' | 'starttls' | 'implicit' = 'none';
  /** SNI name the client asked for. */
  servername: string | undefined;
  tlsProtocol: string | undefined;
  /** The TLS handshake resumed an earlier session. */
  tlsResumed = false;
  /** Where the client connected from. */
  readonly remoteAddress: string | undefined;
  hello: string | undefined;
  /** Authenticated XOAUTH2 user. */
  user: string | undefined;
  /** How the credentials came. */
  authForm: 'two-step' | 'inline' | undefined;
  /** Messages accepted here. */
  accepted = 0;
  quit = false;
  closed = false;
  readonly #raw: Socket;
  readonly #host: SessionHost;
  readonly #wire: Wire;
  readonly #flavour: Flavour;
  readonly #transactions: Transactions;
  #dying: Lines | undefined;
  #waiting = false;
  #notedFlight = 0;

  constructor(id: number, socket: Socket, host: SessionHost) {
    this.id = id;
    this.#raw = socket;
    this.remoteAddress = socket.remoteAddress;
    this.#host = host;
    this.#flavour = host.flavour();
    this.#wire = new Wire(socket, host.timing);
    this.#transactions = createTransactions({
      session: this,
      host,
      flavour: this.#flavour,
      wire: this.#wire,
      answer: (stage, line, normal) => this.#answer(stage, line, normal),
      act: (action, normal, before) => this.#act(action, normal, before),
      say: (lines) => this.#say(lines),
      offers: (extension) => this.#offers(extension),
    });
  }

  /** Round trips so far. */
  get flights(): number {
    return this.#wire.flights;
  }

  /** Whether it waits for a command, outside any transaction. */
  get idle(): boolean {
    return !this.closed && this.#waiting && !this.#transactions.open;
  }

  /** Cuts the connection at once. */
  destroy(): void {
    this.#wire.socket.destroy();
    this.#raw.destroy();
  }

  /** Ends the connection the way an idle timeout does. */
  disturb(style: IdleStyle): void {
    if (style === 'next-command') this.#dying = this.#flavour.idle;
    else if (style === 'reset') this.#wire.reset();
    else {
      if (style === 'unsolicited') this.#say(this.#flavour.idle);
      void this.#wire.close();
    }
  }

  /** Serves until either side is done. Never rejects. */
  async serve(implicitTls: boolean): Promise<void> {
    try {
      if (implicitTls) await this.#secure('implicit');
      await this.#answer('greeting', '', this.#flavour.greeting());
      for (;;) await this.#command(await this.#nextLine());
    } catch (error) {
      if (!(error instanceof WireClosed)) {
        this.transcript.push(`!: ${String(error)}`);
        this.#wire.reset();
      }
    } finally {
      this.#transactions.drop();
    }
  }

  async #nextLine(): Promise<string> {
    const { idleMs, idleStyle } = this.#host.rules;
    const timer =
      idleMs === undefined ? undefined : setTimeout(() => this.disturb(idleStyle ?? 'unsolicited'), idleMs);
    this.#waiting = true;
    try {
      return await this.#wire.line();
    } finally {
      this.#waiting = false;
      clearTimeout(timer);
    }
  }

  async #secure(how: 'starttls' | 'implicit'): Promise<void> {
    const raw = this.#wire.socket;
    this.#wire.detach();
    const secure = new TLSSocket(raw, {
      isServer: true,
      secureContext: this.#host.secureContext,
      SNICallback: (servername, done) => {
        this.servername = servername;
        done(null, this.#host.secureContext);
      },
    });
    this.#wire.attach(secure);
    await new Promise<void>((resolve, reject) => {
      secure.once('secure', resolve);
      const fail = (): void => reject(new WireClosed('TLS handshake failed'));
      secure.once('error', fail).once('close', fail);
    });
    this.tls = how;
    this.tlsProtocol = secure.getProtocol() ?? undefined;
    this.tlsResumed = secure.isSessionReused();
    if (this.tlsResumed && this.#host.rules.cutsResumed === true) throw new WireClosed('no session of mine');
  }

  #note(who: 'C' | 'S', line: string): void {
    if (this.#host.record) this.transcript.push(`${who}: ${line}`);
    this.noteDialogue(`${who}: ${line}`, who === 'C');
    this.#host.observe(this.id, who, line);
  }

  noteDialogue(line: string, isClient: boolean): void {
    if (!this.#host.record) return;
    if (isClient && this.#wire.flights !== this.#notedFlight) this.dialogue.push('');
    if (isClient) this.#notedFlight = this.#wire.flights;
    this.dialogue.push(line);
  }

  #say(lines: Lines): void {
    for (const line of lines) this.#note('S', line);
    this.#wire.say(lines.join('\r\n'));
  }

  /**
   * Answers with `normal` or with what a test scripted; what was said, undefined for nothing.
   * Throws `WireClosed` where the answer ends the connection.
   */
  async #answer(stage: Stage, line: string, normal: Lines): Promise<Lines | undefined> {
    const action = this.#host.script.take({
      stage,
      line,
      user: this.user,
      sender: this.#transactions.sender,
      connectionId: this.id,
    });
    if (action !== undefined) return this.#act(action, normal);
    this.#say(normal);
    return normal;
  }

  async #act(action: Action, normal: Lines, before?: Before): Promise<Lines | undefined> {
    if (action.delayMs !== undefined || action.until !== undefined) {
      await this.#wire.flush();
      if (action.until !== undefined) await action.until;
      if (action.delayMs !== undefined) await new Promise((r) => setTimeout(r, action.delayMs));
    }
    const silent =
      action.raw !== undefined ||
      action.dripMs !== undefined ||
      (action.after !== undefined && action.after !== 'continue');
    const scripted = typeof action.reply === 'string' ? [action.reply] : action.reply;
    const lines = scripted ?? (action.normal === true || !silent ? normal : undefined);
    before?.(action, lines);
    if (action.ahead !== undefined) this.#wire.say(Buffer.from(action.ahead));
    if (lines !== undefined) this.#say(lines);
    if (action.raw !== undefined) this.#wire.say(Buffer.from(action.raw));
    if (action.dripMs !== undefined) {
      await this.#wire.drip(action.dripMs);
      throw new WireClosed('scripted drip');
    }
    switch (action.after ?? 'continue') {
      case 'continue':
        break;
      case 'close':
        await this.#wire.close();
        throw new WireClosed('scripted close');
      case 'reset':
        await this.#wire.flush();
        this.#wire.reset();
        throw new WireClosed('scripted reset');
      case 'hang':
        await this.#wire.flush();
        await this.#wire.gone();
        throw new WireClosed('scripted silence');
    }
    return lines;
  }

  async #closeWith(lines: Lines): Promise<never> {
    this.#say(lines);
    await this.#wire.close();
    throw new WireClosed('closed by the server');
  }

  async #command(line: string): Promise<void> {
    // An initial response is a credential: not kept.
    const shown = line.replace(/^(AUTH \S+) .+$/i, '$1 <blob>');
    if (this.#host.record) this.commands.push(shown);
    this.#note('C', shown);
    if (this.#dying !== undefined) await this.#closeWith(this.#dying);
    const { maxAgeMs } = this.#host.rules;
    if (maxAgeMs !== undefined && Date.now() - this.openedAt > maxAgeMs) {
      await this.#closeWith(this.#flavour.expired);
    }
    if (line.length + 2 > this.#flavour.maxCommandOctets) {
      this.#say(this.#flavour.commandTooLong);
      return;
    }
    const verb = /^[A-Za-z]+/.exec(line)?.[0].toUpperCase() ?? '';
    switch (verb) {
      case 'EHLO':
        return this.#ehlo(line);
      case 'HELO':
        this.#transactions.drop();
        this.#say([`250 ${this.#flavour.hello('127.0.0.1')}`]);
        return;
      case 'STARTTLS':
        return this.#startTls(line);
      case 'AUTH':
        return this.#auth(line);
      case 'MAIL':
        return this.#transactions.mail(line);
      case 'RCPT':
        return this.#transactions.rcpt(line);
      case 'DATA':
        return this.#transactions.data(line);
      case 'BDAT':
        return this.#transactions.bdat(line);
      case 'RSET':
        this.#transactions.drop();
        await this.#answer('RSET', line, this.#flavour.reset);
        return;
      case 'NOOP':
        await this.#answer('NOOP', line, this.#flavour.noop);
        return;
      case 'QUIT':
        this.quit = true;
        await this.#answer('QUIT', line, this.#flavour.bye);
        await this.#wire.close();
        throw new WireClosed('QUIT');
      default:
        this.#say(this.#flavour.unrecognized);
    }
  }

  #offers(extension: Extension): boolean {
    const { withhold } = this.#host.rules;
    return this.#flavour.extensions.includes(extension) && !(withhold ?? []).includes(extension);
  }

  get #maxBytes(): number {
    return this.#host.rules.maxBytes ?? this.#flavour.maxBytes;
  }

  async #ehlo(line: string): Promise<void> {
    this.#transactions.drop();
    this.hello = line.slice(5).trim();
    const items = [this.#flavour.hello('127.0.0.1')];
    for (const extension of this.#flavour.extensions) {
      if (!this.#offers(extension)) continue;
      if (extension === 'STARTTLS' && this.tls !== 'none') continue;
      if (extension === 'AUTH') {
        if (this.tls !== 'none') items.push(`AUTH ${this.#flavour.mechanisms}`);
      } else items.push(extension === 'SIZE' ? `SIZE ${this.#maxBytes}` : extension);
    }
    const lines = items.map((item, i) => `250${i === items.length - 1 ? ' ' : '-'}${item}`);
    await this.#answer('EHLO', line, lines);
  }

  async #startTls(line: string): Promise<void> {
    if (this.tls !== 'none' || !this.#offers('STARTTLS')) {
      this.#say(this.#flavour.unrecognized);
      return;
    }
    const said = await this.#answer('STARTTLS', line, this.#flavour.startTls);
    if (said === undefined || !isPositive(said)) return;
    await this.#wire.flush();
    await this.#secure('starttls');
    this.hello = undefined;
  }

  async #auth(line: string): Promise<void> {
    const [, mechanism = '', initial] = line.split(' ');
    if (this.tls === 'none') return this.#say(this.#flavour.tlsRequired);
    if (this.user !== undefined) return this.#say(this.#flavour.secondAuth);
    if (this.hello === undefined) return this.#say(this.#flavour.badSequence);
    const form = FORMS.get(mechanism.toUpperCase());
    if (form === undefined || !this.#flavour.mechanisms.split(' ').includes(mechanism.toUpperCase()))
      return this.#say(this.#flavour.badMechanism);
    let blob = initial;
    const steps = initial === undefined ? 'two-step' : 'inline';
    if (blob === undefined) {
      const said = await this.#answer('AUTH-command', line, ['334 ']);
      if (said === undefined || !isPositive(said)) return;
      blob = await this.#wire.line();
      this.#note('C', '<blob>');
      if (blob === '*') return this.#say(['501 5.5.2 Cancelled']);
    }
    const match = form.exec(Buffer.from(blob, 'base64').toString('utf8'));
    if (match === null) return this.#say(this.#flavour.undecodable);
    const [, user = '', token = ''] = match;
    await this.#judge(line, user.replaceAll('=2C', ',').replaceAll('=3D', '='), token, steps);
  }

  async #judge(line: string, user: string, token: string, form: 'two-step' | 'inline'): Promise<void> {
    const action = this.#host.script.take({
      stage: 'AUTH',
      line,
      user,
      sender: undefined,
      connectionId: this.id,
    });
    let verdict: Lines = this.#flavour.authenticated;
    if (!this.#host.mayLogIn(user)) verdict = this.#flavour.tooManyLogins;
    else if (!this.#host.verify(user, token)) verdict = this.#flavour.badToken;
    const scripted = action?.reply;
    const first = (typeof scripted === 'string' ? scripted : scripted?.[0]) ?? verdict[0] ?? '';
    if (this.#flavour.challengesBadToken && /^(535|454)/.test(first)) {
      this.#say([gmailChallenge]);
      // Whatever comes, an empty line or not, is taken as the answer to the challenge.
      await this.#wire.line();
    }
    const said = action === undefined ? verdict : await this.#act(action, verdict);
    if (action === undefined) this.#say(verdict);
    if (said === undefined || !isPositive(said)) return;
    this.user = user;
    this.authForm = form;
    this.#host.loggedIn(user);
  }
}
