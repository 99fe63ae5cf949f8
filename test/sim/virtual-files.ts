/**
 * Files under `/sim/` in memory: the accounts files, in place of `node:fs/promises`, and the state
 * directories, as the store's own file operations. Every operation takes a moment, may fail, and is durable
 * only as far as it was synced: `losePower` leaves what a disk would.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import type { StateFiles } from '../../src/tokens/state-files.ts';
import type { Random } from './random.ts';
import { inhabited } from './virtual-time.ts';

const require = createRequire(import.meta.url);
const ROOT = '/sim/';

interface FileNode {
  text: string;
  /** What of it is on the disk. */
  synced: string;
  changedAt: number;
}

interface Directory {
  names: Map<string, FileNode>;
  synced: Map<string, FileNode>;
}

export interface Files {
  /** At once and durable, by a person. */
  put(path: string, text: string): void;
  /** Of a file; undefined where there is none. */
  read(path: string): string | undefined;
  /** As after a power cut: what was not synced is gone. */
  losePower(under: string): void;
  /** Operations that fail with a code while this answers one. */
  fault: (operation: string, path: string) => string | undefined;
  /** Of the state directories. */
  readonly state: StateFiles;
}

let files: Disk | undefined;

export function useFiles(dice: Random): Files {
  files = new Disk(dice);
  return files;
}

function split(path: string): [string, string] {
  const at = path.lastIndexOf('/');
  return [path.slice(0, at), path.slice(at + 1)];
}

function failure(code: string, operation: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${operation} '${path}'`), { code, syscall: operation, path });
}

class Disk implements Files {
  readonly #directories = new Map<string, Directory>();
  readonly #dice: Random;
  fault: Files['fault'] = () => undefined;

  constructor(dice: Random) {
    this.#dice = dice;
  }

  #directory(path: string, operation: string): Directory {
    const found = this.#directories.get(path);
    if (found === undefined) throw failure('ENOENT', operation, path);
    return found;
  }

  #node(path: string, operation: string): FileNode {
    const [dir, name] = split(path);
    const node = this.#directory(dir, operation).names.get(name);
    if (node === undefined) throw failure('ENOENT', operation, path);
    return node;
  }

  #make(path: string): void {
    if (!this.#directories.has(path)) this.#directories.set(path, { names: new Map(), synced: new Map() });
  }

  put(path: string, text: string): void {
    const [dir, name] = split(path);
    this.#make(dir);
    const node = { text, synced: text, changedAt: inhabited().now };
    const directory = this.#directory(dir, 'put');
    directory.names.set(name, node);
    directory.synced.set(name, node);
  }

  read(path: string): string | undefined {
    const [dir, name] = split(path);
    return this.#directories.get(dir)?.names.get(name)?.text;
  }

  text(path: string): string {
    return this.#node(path, 'open').text;
  }

  losePower(under: string): void {
    for (const [path, directory] of this.#directories) {
      if (!path.startsWith(under)) continue;
      directory.names = new Map(directory.synced);
      for (const node of directory.names.values()) node.text = node.synced;
    }
  }

  /** One operation: some time passes, then it happens as a whole or fails. */
  operate<T>(operation: string, path: string, act: () => T): Promise<T> {
    const world = inhabited();
    const ms = this.#dice.chance(0.1) ? this.#dice.between(1, 20) : this.#dice.between(0, 1);
    return new Promise((resolve, reject) => {
      world.after(
        world.current,
        ms,
        () => {
          try {
            this.#fail(operation, path);
            resolve(act());
          } catch (error) {
            reject(error);
          }
        },
        'file',
      );
    });
  }

  /** A handle as far as the product uses one. */
  open(path: string, flags = 'r'): Promise<object> {
    return this.operate('open', path, () => {
      if (this.#directories.has(path))
        return { sync: () => this.state.sync(path), close: async () => undefined };
      const [dir, name] = split(path);
      const { names } = this.#directory(dir, 'open');
      const isRead = flags.startsWith('r');
      if (flags.includes('x') && names.has(name)) throw failure('EEXIST', 'open', path);
      if (isRead) this.#node(path, 'open');
      const node = names.get(name) ?? { text: '', synced: '', changedAt: inhabited().now };
      names.set(name, node);
      if (flags.startsWith('w')) node.text = '';
      const change = (act: () => void) => this.operate('write', path, act);
      const append = (text: string | Buffer) =>
        change(() => {
          node.text += text;
        });
      // Of this file, whatever its name is by now.
      const sync = () =>
        this.operate('fsync', path, () => {
          node.synced = node.text;
        });
      return {
        stat: async () => ({
          size: node.text.length,
          mode: 0o100600,
          uid: process.geteuid?.(),
          isDirectory: () => false,
          isFile: () => true,
        }),
        readFile: async (options?: unknown) => (options === undefined ? Buffer.from(node.text) : node.text),
        writeFile: append,
        appendFile: append,
        write: append,
        sync,
        datasync: sync,
        close: async () => undefined,
      };
    });
  }

  #fail(operation: string, path: string): void {
    const code = this.fault(operation, path);
    if (code !== undefined) throw failure(code, operation, path);
  }

  readonly state: StateFiles = {
    openDirectory: (path) =>
      this.operate('mkdir', path, () => {
        this.#make(path);
        return { othersMayEnter: false };
      }),
    list: (path) =>
      this.operate('readdir', path, () => [...this.#directory(path, 'readdir').names.keys()].sort()),
    read: (path) =>
      this.operate('read', path, () => {
        const [dir, name] = split(path);
        return this.#directory(dir, 'read').names.get(name)?.text;
      }),
    // At once, as the product does it: no event lies between a provider's answer and this.
    create: async (path, text) => {
      this.#fail('write', path);
      const [dir, name] = split(path);
      const { names } = this.#directory(dir, 'open');
      if (names.has(name)) throw failure('EEXIST', 'open', path);
      names.set(name, { text, synced: '', changedAt: inhabited().now });
    },
    sync: (path) =>
      this.operate('fsync', path, () => {
        const directory = this.#directories.get(path);
        if (directory !== undefined) {
          directory.synced = new Map(directory.names);
          return;
        }
        const node = this.#node(path, 'fsync');
        node.synced = node.text;
      }),
    rename: (from, to) =>
      this.operate('rename', from, () => {
        const node = this.#node(from, 'rename');
        const [fromDir, fromName] = split(from);
        const [toDir, toName] = split(to);
        this.#directory(toDir, 'rename').names.set(toName, node);
        this.#directory(fromDir, 'rename').names.delete(fromName);
      }),
    remove: (path) =>
      this.operate('unlink', path, () => {
        const [dir, name] = split(path);
        return this.#directory(dir, 'unlink').names.delete(name);
      }),
    touch: (path) =>
      this.operate('utimes', path, () => {
        this.#node(path, 'utimes').changedAt = inhabited().now;
      }),
    changedAt: (path) =>
      this.operate('stat', path, () => {
        const [dir, name] = split(path);
        return this.#directory(dir, 'stat').names.get(name)?.changedAt;
      }),
  };
}

/** What the product does with files in its own right: `node:fs/promises` under `/sim/`. */
export function installVirtualFiles(): void {
  const real = require('node:fs/promises') as Record<string, (path: unknown, ...rest: unknown[]) => unknown>;
  const operations: Record<string, (disk: Disk, path: string, ...rest: never[]) => unknown> = {
    // Flags as numbers only read here.
    open: (disk, path, flags: string | number) => disk.open(path, typeof flags === 'number' ? 'r' : flags),
    readFile: (disk, path, options: unknown) =>
      disk.operate('read', path, () =>
        options === undefined ? Buffer.from(disk.text(path)) : disk.text(path),
      ),
    realpath: (disk, path) => disk.operate('realpath', path, () => disk.text(path) && path),
    stat: (disk, path) =>
      disk.operate('stat', path, () => ({ size: disk.text(path).length, uid: process.getuid?.() })),
    chown: async () => undefined,
    chmod: async () => undefined,
    rm: (disk, path) => disk.state.remove(path),
    rename: (disk, from, to: string) => disk.state.rename(from, to),
    unlink: async (disk, path) => {
      if (!(await disk.state.remove(path))) throw failure('ENOENT', 'unlink', path);
    },
  };
  for (const [name, original] of Object.entries(real)) {
    if (typeof original !== 'function') continue;
    const virtual = operations[name];
    real[name] = (path: unknown, ...rest: unknown[]) => {
      if (typeof path !== 'string' || !path.startsWith(ROOT) || files === undefined)
        return original(path, ...rest);
      if (virtual !== undefined) return virtual(files, path, ...(rest as never[]));
      // The product would take it for a disk that fails.
      console.error(`the simulated disk has no ${name}`);
      process.exit(2);
    };
  }
  syncBuiltinESMExports();
}
