/**
 * The mail part of a simulated submission server's connection: MAIL, RCPT, DATA, BDAT. In: command
 * lines of an authenticated session. Out: submissions handed to the provider. Owns the envelope.
 */
import type { Extension, Flavour, Lines } from './flavour.ts';
import type { Action, Stage } from './smtp-script.ts';
import type { Session, SessionHost } from './smtp-session.ts';
import { draftSubmission, type Recipient, type SubmissionDraft } from './submission.ts';
import { type Wire, WireClosed } from './wire.ts';

/** Replies to what ran as commands come this much later. */
const LATE_MS = 50;

/** Runs before anything is said: with the scripted action and the lines that will be said. */
export type Before = (action: Action | undefined, lines: Lines | undefined) => void;

/** How a transaction reads and answers on its connection. */
export interface Voice {
  readonly session: Session;
  readonly host: SessionHost;
  readonly flavour: Flavour;
  readonly wire: Wire;
  /** Answers with `normal` or with what a test scripted; what was said, undefined for nothing. */
  answer(stage: Stage, line: string, normal: Lines): Promise<Lines | undefined>;
  act(action: Action, normal: Lines, before: Before): Promise<Lines | undefined>;
  say(lines: Lines): void;
  offers(extension: Extension): boolean;
}

export interface Transactions {
  readonly open: boolean;
  readonly sender: string | undefined;
  mail(line: string): Promise<void>;
  rcpt(line: string): Promise<void>;
  data(line: string): Promise<void>;
  bdat(line: string): Promise<void>;
  /** RSET, EHLO or the end of the connection before the verdict. */
  drop(): void;
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

const parsePath = (text: string): { address: string; parameters: string[] } | undefined => {
  const match = PATH.exec(text.trim());
  if (match === null) return undefined;
  const decoded = Buffer.from(match[1] ?? '', 'latin1').toString('utf8');
  return { address: decoded, parameters: (match[2] ?? '').split(' ').filter((p) => p !== '') };
};
export const isPositive = (lines: Lines): boolean => /^[23]/.test(lines[0] ?? '');

export function createTransactions(voice: Voice): Transactions {
  const { session, host, flavour, wire, answer, act, say, offers } = voice;
  let current: Envelope | undefined;
  const noteBody = (octets: number, what: string): void =>
    session.noteDialogue(`C: (${octets} octets${what})`, true);
  const maxBytes = (): number => host.rules.maxBytes ?? flavour.maxBytes;

  async function mail(line: string): Promise<void> {
    const path = parsePath(line.replace(/^MAIL FROM: */i, ''));
    let normal: Lines = flavour.mailOk;
    if (session.tls === 'none') normal = flavour.tlsRequired;
    else if (session.user === undefined) normal = flavour.authRequired;
    else if (current !== undefined || session.hello === undefined) normal = flavour.badSequence;
    else if (path === undefined || !/^MAIL FROM:/i.test(line)) normal = flavour.badParameter;
    else normal = mailVerdict(path.address, path.parameters, session.user);
    const firstFlight = wire.flights;
    const said = await answer('MAIL', line, normal);
    if (said === undefined) return;
    if (said === flavour.rateLimit) {
      await wire.close();
      throw new WireClosed('rate limit');
    }
    if (!isPositive(said) || path === undefined || current !== undefined) return;
    current = {
      sender: path.address,
      parameters: path.parameters,
      recipients: [],
      firstFlight,
      draft: undefined,
      failed: false,
    };
  }

  function mailVerdict(address: string, parameters: readonly string[], user: string): Lines {
    for (const parameter of parameters) {
      const [key = '', value] = parameter.toUpperCase().split('=');
      if (key === 'SIZE' && offers('SIZE') && /^\d+$/.test(value ?? '')) {
        if (Number(value) > maxBytes()) return flavour.tooBig;
      } else if (key === 'BODY' && (value === '7BIT' || value === '8BITMIME') && offers('8BITMIME')) {
      } else if (key === 'BODY' && value === 'BINARYMIME' && offers('BINARYMIME')) {
      } else if (key === 'SMTPUTF8' && value === undefined && offers('SMTPUTF8')) {
      } else if ((key === 'RET' || key === 'ENVID') && offers('DSN')) {
      } else if (key === 'AUTH') {
      } else return flavour.badParameter;
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the ASCII range is meant
    if (/[^\x00-\x7f]/.test(address) && !parameters.some((p) => p.toUpperCase() === 'SMTPUTF8')) {
      return flavour.badParameter;
    }
    const limit = host.mailLimit(user);
    if (limit === 'rate') return flavour.rateLimit;
    if (limit === 'daily' && flavour.name === 'gmail') return flavour.dailyLimit;
    return flavour.mailOk;
  }

  async function rcpt(line: string): Promise<void> {
    const envelope = current;
    const path = parsePath(line.replace(/^RCPT TO: */i, ''));
    let normal: Lines = flavour.rcptOk;
    const { maxRecipients } = host.rules;
    if (envelope === undefined || envelope.draft !== undefined) normal = flavour.badSequence;
    else if (path === undefined || path.address === '' || !/^RCPT TO:/i.test(line))
      normal = flavour.badParameter;
    else if (path.parameters.some((p) => !/^(NOTIFY|ORCPT)=./i.test(p) || !offers('DSN'))) {
      normal = flavour.badParameter;
    } else if (maxRecipients !== undefined && envelope.recipients.length >= maxRecipients) {
      normal = flavour.tooManyRecipients;
    }
    const said = await answer('RCPT', line, normal);
    if (said === undefined || !isPositive(said) || envelope === undefined || path === undefined) return;
    envelope.recipients.push(path);
  }

  async function data(line: string): Promise<void> {
    const envelope = current;
    let normal: Lines = flavour.dataGo;
    if (envelope === undefined || envelope.draft !== undefined) normal = flavour.badSequence;
    else if (envelope.recipients.length === 0) normal = flavour.rcptFirst;
    else if (envelope.parameters.some((p) => /^BODY=BINARYMIME$/i.test(p))) normal = flavour.badSequence;
    const said = await answer('DATA', line, normal);
    if (said === undefined || !(said[0] ?? '').startsWith('354') || envelope === undefined) return;
    const draft = begin(envelope, 'DATA');
    await wire.dotted((bytes) => draft.add(bytes));
    noteBody(draft.bytes, ', then a dot');
    await finish(envelope, draft, 'end-of-data', line);
  }

  async function bdat(line: string): Promise<void> {
    const match = /^BDAT (\d+)( LAST)?$/i.exec(line);
    if (!offers('CHUNKING') || match === null) return say(flavour.unrecognized);
    const size = Number(match[1]);
    const last = match[2] !== undefined;
    const envelope = current;
    if (envelope === undefined || envelope.recipients.length === 0 || envelope.failed) {
      if (envelope !== undefined) envelope.failed = true;
      await refuse(line, size, envelope === undefined ? flavour.badSequence : flavour.rcptFirst);
      return;
    }
    const { maxHeaderOctets } = host.rules;
    if (envelope.draft === undefined && maxHeaderOctets !== undefined && size > maxHeaderOctets) {
      envelope.failed = true;
      await refuse(line, size, flavour.headerTooBig);
      return;
    }
    const draft = envelope.draft ?? begin(envelope, 'BDAT');
    draft.chunks += 1;
    await wire.octets(size, (bytes) => draft.add(bytes));
    noteBody(size, '');
    if (last) return finish(envelope, draft, 'BDAT', line);
    const said = await answer('BDAT', line, flavour.chunkOk(size));
    if (said === undefined || !isPositive(said)) envelope.failed = true;
  }

  /** The chunk is on its way whatever the answer will be (RFC 3030 §2). */
  async function refuse(line: string, size: number, normal: Lines): Promise<void> {
    const habit = host.rules.refusedChunk ?? 'discarded';
    if (habit === 'discarded') {
      await wire.octets(size, () => {});
      noteBody(size, ', discarded');
    }
    await answer('BDAT', line, normal);
    if (habit === 'run_late') await wire.holdReplies(LATE_MS);
  }

  function begin(envelope: Envelope, via: 'DATA' | 'BDAT'): SubmissionDraft {
    const user = session.user ?? '';
    const draft = draftSubmission({
      user,
      sender: envelope.sender,
      mailParameters: envelope.parameters,
      recipients: envelope.recipients,
      connectionId: session.id,
      via,
      keepBody: host.record,
    });
    envelope.draft = draft;
    draft.overLimit = host.beginSubmission(user);
    return draft;
  }

  async function finish(
    envelope: Envelope,
    draft: SubmissionDraft,
    stage: 'BDAT' | 'end-of-data',
    line: string,
  ): Promise<void> {
    const flights = wire.flights - envelope.firstFlight + 1;
    const { deliveryMs } = host.rules;
    if (deliveryMs !== undefined) await new Promise((r) => setTimeout(r, deliveryMs));
    let normal = flavour.accepted(draft.id);
    if (draft.bytes > maxBytes()) normal = flavour.tooBig;
    else if (draft.overLimit) normal = flavour.concurrency;
    else if (host.mailLimit(draft.user) === 'daily') normal = flavour.dailyLimit;
    const occasion = { line, user: session.user, sender: envelope.sender, connectionId: session.id };
    const action =
      (stage === 'BDAT' ? host.script.take({ stage: 'BDAT', ...occasion }) : undefined) ??
      host.script.take({ stage: 'end-of-data', ...occasion });
    // Recorded before the reply is written, so that whoever reads a 250 finds the message.
    const keep = (done: Action | undefined, lines: Lines | undefined): void => {
      current = undefined;
      host.endSubmission(draft.user);
      const accepted = done?.accept ?? (lines !== undefined && isPositive(lines));
      if (accepted) session.accepted += 1;
      const told = lines !== undefined && wire.socket.writable;
      host.submitted(
        draft.finish(told ? (accepted ? 'accepted' : 'refused') : 'unanswered', accepted, lines, flights),
      );
    };
    if (action !== undefined) {
      await act(action, normal, keep);
      return;
    }
    keep(undefined, normal);
    say(normal);
  }

  function drop(): void {
    const envelope = current;
    current = undefined;
    if (envelope?.draft === undefined) return;
    host.endSubmission(envelope.draft.user);
    const flights = wire.flights - envelope.firstFlight + 1;
    host.submitted(envelope.draft.finish('cut', false, undefined, flights));
  }

  return {
    get open() {
      return current !== undefined;
    },
    get sender() {
      return current?.sender;
    },
    mail,
    rcpt,
    data,
    bdat,
    drop,
  };
}
