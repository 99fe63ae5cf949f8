/**
 * One connection to the simulated submission server: RFC 5321 with PIPELINING, CHUNKING (RFC 3030),
 * STARTTLS and two-step XOAUTH2. In: a socket and the provider's state. Out: submissions handed to
 * the provider. Strict on purpose: a parameter or an order the flavour does not know is refused.
 */
import type { Socket } from 'node:net';
import { type SecureContext, TLSSocket } from 'node:tls';
import { type Extension, type Flavour, gmailChallenge, type Lines } from './flavour.ts';
import type { Action, IdleStyle, Script, SmtpRules, Stage } from './smtp-script.ts';
import { draftSubmission, type Submission, type SubmissionDraft } from './submission.ts';
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
}

/** A recipient as it came in RCPT TO. */
export interface Recipient {
  readonly address: string;
  readonly parameters: readonly string[];
}

interface Envelope {
  readonly sender: string;
  readonly parameters: readonly string[];
  readonly recipients: Recipient[];
  /** The connection's flight in which MAIL came. */
  readonly firstFlight: number;
  draft: SubmissionDraft | undefined;
  failed: boolean;
}

const PATH = /^<((?:"(?:[^"\\]|\\.)*"|[^>"])*)>(?: +(.*))?$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: \x01 separates the fields of XOAUTH2
const BLOB = /^user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01$/;

const parsePath = (text: string): { address: string; parameters: string[] } | undefined => {
  const match = PATH.exec(text.trim());
  if (match === null) return undefined;
  const decoded = Buffer.from(match[1] ?? '', 'latin1').toString('utf8');
  return { address: decoded, parameters: (match[2] ?? '').split(' ').filter((p) => p !== '') };
};
const isPositive = (lines: Lines): boolean => /^[23]/.test(lines[0] ?? '');

export class Session {
  readonly id: number;
  readonly openedAt = Date.now();
  /** Command lines as they came; the XOAUTH2 blob is left out. */
  readonly commands: string[] = [];
  /** `C: ` and `S: ` lines in order. */
  readonly transcript: string[] = [];
  tls: 'none' | 'starttls' | 'implicit' = 'none';
  /** SNI name the client asked for. */
  servername: string | undefined;
  tlsProtocol: string | undefined;
  /** Whether the TLS session was resumed. */
  resumed = false;
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
  #envelope: Envelope | undefined;
  #dying: Lines | undefined;
  #waiting = false;

  constructor(id: number, socket: Socket, host: SessionHost) {
    this.id = id;
    this.#raw = socket;
    this.#host = host;
    this.#flavour = host.flavour();
    this.#wire = new Wire(socket, host.timing);
  }

  /** Round trips so far. */
  get flights(): number {
    return this.#wire.flights;
  }

  /** Whether it waits for a command, outside any transaction. */
  get idle(): boolean {
    return !this.closed && this.#waiting && this.#envelope === undefined;
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
      this.#dropEnvelope('cut');
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
    this.resumed = secure.isSessionReused();
  }

  #say(lines: Lines): void {
    if (this.#host.record) for (const line of lines) this.transcript.push(`S: ${line}`);
    this.#wire.say(lines.join('\r\n'));
  }

  /**
   * Answers with `normal` or with what a test scripted; what was said, undefined for nothing.
   * Throws `WireClosed` where the answer ends the connection.
   */
  async #answer(
    stage: Stage,
    line: string,
    normal: Lines,
    before?: (action: Action | undefined, lines: Lines | undefined) => void,
  ): Promise<Lines | undefined> {
    const action = this.#host.script.take({
      stage,
      line,
      user: this.user,
      sender: this.#envelope?.sender,
      connectionId: this.id,
    });
    if (action === undefined) {
      before?.(undefined, normal);
      this.#say(normal);
      return normal;
    }
    return this.#act(action, normal, before);
  }

  async #act(
    action: Action,
    normal: Lines,
    before?: (action: Action | undefined, lines: Lines | undefined) => void,
  ): Promise<Lines | undefined> {
    if (action.delayMs !== undefined || action.until !== undefined) {
      await this.#wire.flush();
      if (action.until !== undefined) await action.until;
      if (action.delayMs !== undefined) await new Promise((r) => setTimeout(r, action.delayMs));
    }
    const silent = action.raw !== undefined || (action.after !== undefined && action.after !== 'continue');
    const scripted = typeof action.reply === 'string' ? [action.reply] : action.reply;
    const lines = scripted ?? (action.normal === true || !silent ? normal : undefined);
    before?.(action, lines);
    if (lines !== undefined) this.#say(lines);
    if (action.raw !== undefined) this.#wire.say(Buffer.from(action.raw));
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
    if (this.#host.record) {
      this.commands.push(line);
      this.transcript.push(`C: ${line}`);
    }
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
        this.#dropEnvelope('cut');
        this.#say([`250 ${this.#flavour.hello('127.0.0.1')}`]);
        return;
      case 'STARTTLS':
        return this.#startTls(line);
      case 'AUTH':
        return this.#auth(line);
      case 'MAIL':
        return this.#mail(line);
      case 'RCPT':
        return this.#rcpt(line);
      case 'DATA':
        return this.#data(line);
      case 'BDAT':
        return this.#bdat(line);
      case 'RSET':
        this.#dropEnvelope('cut');
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
    this.#dropEnvelope('cut');
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
    if (mechanism.toUpperCase() !== 'XOAUTH2') return this.#say(this.#flavour.badMechanism);
    let blob = initial;
    const form = initial === undefined ? 'two-step' : 'inline';
    if (blob === undefined) {
      const said = await this.#answer('AUTH-command', line, ['334 ']);
      if (said === undefined || !isPositive(said)) return;
      blob = await this.#wire.line();
      if (blob === '*') return this.#say(['501 5.5.2 Cancelled']);
    } else this.#replaceLast(`AUTH ${mechanism} <blob>`);
    const match = BLOB.exec(Buffer.from(blob, 'base64').toString('utf8'));
    if (match === null) return this.#say(this.#flavour.undecodable);
    const [, user = '', token = ''] = match;
    await this.#judge(line, user, token, form);
  }

  #replaceLast(line: string): void {
    if (!this.#host.record) return;
    this.commands.splice(-1, 1, line);
    this.transcript.splice(-1, 1, `C: ${line}`);
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

  async #mail(line: string): Promise<void> {
    const path = parsePath(line.replace(/^MAIL FROM: */i, ''));
    let normal: Lines = this.#flavour.mailOk;
    if (this.tls === 'none') normal = this.#flavour.tlsRequired;
    else if (this.user === undefined) normal = this.#flavour.authRequired;
    else if (this.#envelope !== undefined || this.hello === undefined) normal = this.#flavour.badSequence;
    else if (path === undefined || !/^MAIL FROM:/i.test(line)) normal = this.#flavour.badParameter;
    else normal = this.#mailVerdict(path.address, path.parameters, this.user);
    const firstFlight = this.#wire.flights;
    const said = await this.#answer('MAIL', line, normal);
    if (said === undefined) return;
    if (said === this.#flavour.rateLimit) {
      await this.#wire.close();
      throw new WireClosed('rate limit');
    }
    if (!isPositive(said) || path === undefined || this.#envelope !== undefined) return;
    this.#envelope = {
      sender: path.address,
      parameters: path.parameters,
      recipients: [],
      firstFlight,
      draft: undefined,
      failed: false,
    };
  }

  #mailVerdict(address: string, parameters: readonly string[], user: string): Lines {
    for (const parameter of parameters) {
      const [key = '', value] = parameter.toUpperCase().split('=');
      if (key === 'SIZE' && this.#offers('SIZE') && /^\d+$/.test(value ?? '')) {
        if (Number(value) > this.#maxBytes) return this.#flavour.tooBig;
      } else if (key === 'BODY' && (value === '7BIT' || value === '8BITMIME') && this.#offers('8BITMIME')) {
      } else if (key === 'BODY' && value === 'BINARYMIME' && this.#offers('BINARYMIME')) {
      } else if (key === 'SMTPUTF8' && value === undefined && this.#offers('SMTPUTF8')) {
      } else if ((key === 'RET' || key === 'ENVID') && this.#offers('DSN')) {
      } else if (key === 'AUTH') {
      } else return this.#flavour.badParameter;
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the ASCII range is meant
    if (/[^\x00-\x7f]/.test(address) && !parameters.some((p) => p.toUpperCase() === 'SMTPUTF8')) {
      return this.#flavour.badParameter;
    }
    const limit = this.#host.mailLimit(user);
    if (limit === 'rate') return this.#flavour.rateLimit;
    if (limit === 'daily' && this.#flavour.name === 'gmail') return this.#flavour.dailyLimit;
    return this.#flavour.mailOk;
  }

  async #rcpt(line: string): Promise<void> {
    const envelope = this.#envelope;
    const path = parsePath(line.replace(/^RCPT TO: */i, ''));
    let normal: Lines = this.#flavour.rcptOk;
    const { maxRecipients } = this.#host.rules;
    if (envelope === undefined || envelope.draft !== undefined) normal = this.#flavour.badSequence;
    else if (path === undefined || path.address === '' || !/^RCPT TO:/i.test(line))
      normal = this.#flavour.badParameter;
    else if (path.parameters.some((p) => !/^(NOTIFY|ORCPT)=./i.test(p) || !this.#offers('DSN'))) {
      normal = this.#flavour.badParameter;
    } else if (maxRecipients !== undefined && envelope.recipients.length >= maxRecipients) {
      normal = this.#flavour.tooManyRecipients;
    }
    const said = await this.#answer('RCPT', line, normal);
    if (said === undefined || !isPositive(said) || envelope === undefined || path === undefined) return;
    envelope.recipients.push(path);
  }

  async #data(line: string): Promise<void> {
    const envelope = this.#envelope;
    let normal: Lines = this.#flavour.dataGo;
    if (envelope === undefined || envelope.draft !== undefined) normal = this.#flavour.badSequence;
    else if (envelope.recipients.length === 0) normal = this.#flavour.rcptFirst;
    else if (envelope.parameters.some((p) => /^BODY=BINARYMIME$/i.test(p)))
      normal = this.#flavour.badSequence;
    const said = await this.#answer('DATA', line, normal);
    if (said === undefined || !(said[0] ?? '').startsWith('354') || envelope === undefined) return;
    const draft = this.#begin(envelope, 'DATA');
    await this.#wire.dotted((bytes) => draft.add(bytes));
    await this.#finish(envelope, draft, 'end-of-data', line);
  }

  async #bdat(line: string): Promise<void> {
    const match = /^BDAT (\d+)( LAST)?$/i.exec(line);
    if (!this.#offers('CHUNKING') || match === null) return this.#say(this.#flavour.unrecognized);
    const size = Number(match[1]);
    const last = match[2] !== undefined;
    const envelope = this.#envelope;
    if (envelope === undefined || envelope.recipients.length === 0 || envelope.failed) {
      // The chunk is on its way whatever the answer will be (RFC 3030 §2).
      await this.#wire.octets(size, () => {});
      if (envelope !== undefined) envelope.failed = true;
      await this.#answer(
        'BDAT',
        line,
        envelope === undefined ? this.#flavour.badSequence : this.#flavour.rcptFirst,
      );
      return;
    }
    const draft = envelope.draft ?? this.#begin(envelope, 'BDAT');
    draft.chunks += 1;
    await this.#wire.octets(size, (bytes) => draft.add(bytes));
    if (last) return this.#finish(envelope, draft, 'BDAT', line);
    const said = await this.#answer('BDAT', line, this.#flavour.chunkOk(size));
    if (said === undefined || !isPositive(said)) envelope.failed = true;
  }

  #begin(envelope: Envelope, via: 'DATA' | 'BDAT'): SubmissionDraft {
    const user = this.user ?? '';
    const draft = draftSubmission({
      user,
      sender: envelope.sender,
      mailParameters: envelope.parameters,
      recipients: envelope.recipients,
      connectionId: this.id,
      via,
      keepBody: this.#host.record,
    });
    envelope.draft = draft;
    draft.overLimit = this.#host.beginSubmission(user);
    return draft;
  }

  async #finish(
    envelope: Envelope,
    draft: SubmissionDraft,
    stage: 'BDAT' | 'end-of-data',
    line: string,
  ): Promise<void> {
    const flights = this.#wire.flights - envelope.firstFlight + 1;
    const { deliveryMs } = this.#host.rules;
    if (deliveryMs !== undefined) await new Promise((r) => setTimeout(r, deliveryMs));
    let normal = this.#flavour.accepted(draft.id);
    if (draft.bytes > this.#maxBytes) normal = this.#flavour.tooBig;
    else if (draft.overLimit) normal = this.#flavour.concurrency;
    else if (this.#host.mailLimit(draft.user) === 'daily') normal = this.#flavour.dailyLimit;
    const occasion = { line, user: this.user, sender: envelope.sender, connectionId: this.id };
    const action =
      (stage === 'BDAT' ? this.#host.script.take({ stage: 'BDAT', ...occasion }) : undefined) ??
      this.#host.script.take({ stage: 'end-of-data', ...occasion });
    // Recorded before the reply is written, so that whoever reads a 250 finds the message.
    const keep = (done: Action | undefined, lines: Lines | undefined): void => {
      this.#envelope = undefined;
      this.#host.endSubmission(draft.user);
      const accepted = done?.accept ?? (lines !== undefined && isPositive(lines));
      if (accepted) this.accepted += 1;
      const told = lines !== undefined && this.#wire.socket.writable;
      this.#host.submitted(
        draft.finish(told ? (accepted ? 'accepted' : 'refused') : 'unanswered', accepted, lines, flights),
      );
    };
    if (action !== undefined) {
      await this.#act(action, normal, keep);
      return;
    }
    keep(undefined, normal);
    this.#say(normal);
  }

  /** RSET, EHLO or the end of the connection before the verdict. */
  #dropEnvelope(outcome: 'cut'): void {
    const envelope = this.#envelope;
    this.#envelope = undefined;
    if (envelope?.draft === undefined) return;
    this.#host.endSubmission(envelope.draft.user);
    const flights = this.#wire.flights - envelope.firstFlight + 1;
    this.#host.submitted(envelope.draft.finish(outcome, false, undefined, flights));
  }
}
