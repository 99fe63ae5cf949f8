/**
 * File operations on the state directory, as narrow as the store needs them: a simulation puts its own in
 * their place. Nothing is followed and nothing foreign is touched: a link, a FIFO or a file of somebody else
 * under one of our names is refused.
 */
import { closeSync, constants, fchownSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { access, open, readdir, rename, stat, unlink, utimes } from 'node:fs/promises';
import { makeDirectories } from '../directories.ts';

/** What stands there is not our own plain file or directory. The message names it and the cure. */
export class StateFileRefused extends Error {
  override readonly name = 'StateFileRefused';
  /** Where it is a plain file: that of another user. */
  readonly code: 'STATE_FILE_REFUSED' | 'STATE_FILE_FOREIGN';
  constructor(message: string, code: StateFileRefused['code'] = 'STATE_FILE_REFUSED') {
    super(message);
    this.code = code;
  }
}

export interface StateFiles {
  /** Makes it for the owner alone where it is missing. Rejects with `StateFileRefused` where it is somebody else's, with a system error where it cannot be used. */
  openDirectory(path: string): Promise<{ readonly othersMayEnter: boolean }>;
  list(directory: string): Promise<readonly string[]>;
  /** Undefined where there is none; '' for one larger than `maxOctets`. Rejects with `StateFileRefused`. */
  read(path: string, maxOctets: number): Promise<string | undefined>;
  /** A new file, 0600, in the kernel's hands when it resolves. Rejects with EEXIST where there is one. */
  create(path: string, text: string): Promise<void>;
  /** On the disk when it resolves. */
  sync(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** False where there was none. */
  remove(path: string): Promise<boolean>;
  /** Sign of life: `changedAt` is another one afterwards. */
  touch(path: string): Promise<void>;
  changedAt(path: string): Promise<number | undefined>;
}

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** Whose files they are. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

/** Of this user's own directory; as root of anybody's: what is made there is `owner`'s. */
export function stateFilesOf(owner?: FileOwner): StateFiles {
  const isOurs = (uid: number): boolean =>
    owner === undefined ? process.geteuid === undefined || uid === process.geteuid() : uid === owner.uid;
  return {
    async openDirectory(path) {
      makeDirectories(path);
      // The directory itself may be a link: systemd makes one. What counts is where it leads.
      const { mode, uid } = await stat(path);
      if (!isOurs(uid) && uid !== 0)
        throw new StateFileRefused(`${path} belongs to another user (${uid}): give the relay one of its own`);
      await access(path, constants.R_OK | constants.W_OK | constants.X_OK);
      return { othersMayEnter: (mode & 0o077) !== 0 };
    },
    list: (directory) => readdir(directory),
    async read(path, maxOctets) {
      try {
        // Without O_NONBLOCK a FIFO would hold us until somebody writes to it.
        const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
        try {
          const facts = await file.stat();
          if (!facts.isFile()) throw refused(path, 'is no plain file');
          if (!isOurs(facts.uid))
            throw new StateFileRefused(
              `${path} belongs to another user (uid ${facts.uid}): it may hold the newest refresh token, give it to the relay's user (chown)`,
              'STATE_FILE_FOREIGN',
            );
          if (facts.size > maxOctets) return '';
          if ((facts.mode & 0o077) !== 0) await file.chmod(0o600);
          return await file.readFile('utf8');
        } finally {
          await file.close();
        }
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return undefined;
        if (codeOf(error) === 'ELOOP') throw refused(path, 'is a symbolic link');
        throw error;
      }
    },
    async create(path, text) {
      // At once, not in a thread's queue: between a provider's answer and this line a SIGKILL loses the answer.
      const descriptor = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
      try {
        try {
          if (owner !== undefined) fchownSync(descriptor, owner.uid, owner.gid);
          const octets = Buffer.from(text);
          for (let at = 0; at < octets.length; ) at += writeSync(descriptor, octets, at);
        } finally {
          // A file system of another machine may say only here that it is full.
          closeSync(descriptor);
        }
      } catch (error) {
        // On a full disk a lock would be left without a word of whose it is.
        unlinkSync(path);
        throw error;
      }
    },
    async sync(path) {
      const handle = await open(path, O_RDONLY | O_NOFOLLOW);
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    },
    rename,
    remove: (path) => unlink(path).then(() => true, whereMissing(false)),
    async touch(path) {
      const now = new Date();
      await utimes(path, now, now);
    },
    changedAt: (path) => stat(path).then(({ mtimeMs }) => mtimeMs, whereMissing(undefined)),
  };
}

export const stateFiles: StateFiles = stateFilesOf();

/** The system's code of a file error. */
export function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === 'string' ? code : undefined;
}

const whereMissing =
  <T>(answer: T) =>
  (error: unknown): T => {
    if (codeOf(error) === 'ENOENT') return answer;
    throw error;
  };

const refused = (path: string, what: string): StateFileRefused =>
  new StateFileRefused(`${path} ${what}: it was not made by the relay, remove it`);
