/**
 * Files under `/sim/` in memory, in place of `node:fs/promises` for those paths. Every operation takes a
 * moment, may fail, and is durable only as far as it was synced: `losePower` leaves what a disk would.
 * What a killed process had asked for may or may not have happened. Installed once per process.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import type { Random } from './random.ts';
import { inhabited } from './virtual-time.ts';

const require = createRequire(import.meta.url);
const ROOT = '/sim/';

interface FileNode {
  data: Buffer;
  synced: Buffer;
  mode: number;
}

interface DirectoryNode {
  names: Map<string, FileNode>;
  synced: Map<string, FileNode>;
  mode: number;
}

export interface Files {
  /** At once and durable, by a person. */
  put(path: string, text: string): void;
  text(path: string): string | undefined;
  /** As after a power cut: what was not synced is gone. */
  losePower(under: string): void;
  /** Operations that fail with a code while this answers one. */
  fault: (operation: string, path: string) => string | undefined;
}

let files: Disk | undefined;

class Disk implements Files {
  readonly directories = new Map<string, DirectoryNode>();
  readonly dice: Random;
  fault: Files['fault'] = () => undefined;

  constructor(dice: Random) {
    this.dice = dice;
  }

  directory(path: string): DirectoryNode | undefined {
    return this.directories.get(path);
  }

  makeDirectory(path: string): void {
    if (!this.directories.has(path))
      this.directories.set(path, { names: new Map(), synced: new Map(), mode: 0o700 });
  }

  put(path: string, text: string): void {
    const [dir, name] = split(path);
    this.makeDirectory(dir);
    const node: FileNode = { data: Buffer.from(text), synced: Buffer.from(text), mode: 0o600 };
    this.directory(dir)?.names.set(name, node);
    this.directory(dir)?.synced.set(name, node);
  }

  text(path: string): string | undefined {
    const [dir, name] = split(path);
    return this.directory(dir)?.names.get(name)?.data.toString();
  }

  losePower(under: string): void {
    for (const [path, directory] of this.directories) {
      if (!path.startsWith(under)) continue;
      directory.names = new Map(directory.synced);
      for (const node of directory.names.values()) node.data = node.synced;
    }
  }
}

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

/** One operation: some time passes, then it happens as a whole or fails. */
function operate<T>(operation: string, path: string, act: (disk: Disk) => T): Promise<T> {
  const disk = files;
  if (disk === undefined) throw new Error('no files');
  const world = inhabited();
  return new Promise((resolve, reject) => {
    world.after(
      world.current,
      disk.dice.chance(0.1) ? disk.dice.between(1, 20) : disk.dice.between(0, 1),
      () => {
        const code = disk.fault(operation, path);
        if (code !== undefined) return reject(failure(code, operation, path));
        try {
          resolve(act(disk));
        } catch (error) {
          reject(error);
        }
      },
      'file',
    );
  });
}

function nodeAt(disk: Disk, operation: string, path: string): FileNode {
  const [dir, name] = split(path);
  const node = disk.directory(dir)?.names.get(name);
  if (node === undefined) throw failure('ENOENT', operation, path);
  return node;
}

const stats = (size: number, mode: number, isDirectory: boolean) => ({
  size,
  mode: mode | (isDirectory ? 0o040000 : 0o100000),
  isDirectory: () => isDirectory,
  isFile: () => !isDirectory,
  mtimeMs: 0,
  ino: 1,
  dev: 1,
});

class Handle {
  readonly #path: string;
  readonly #node: FileNode | undefined;
  constructor(path: string, node: FileNode | undefined) {
    this.#path = path;
    this.#node = node;
  }
  #on<T>(operation: string, act: (node: FileNode) => T): Promise<T> {
    return operate(operation, this.#path, () => {
      if (this.#node === undefined) throw failure('EISDIR', operation, this.#path);
      return act(this.#node);
    });
  }
  stat() {
    return operate('fstat', this.#path, (disk) =>
      this.#node === undefined
        ? stats(0, disk.directory(this.#path)?.mode ?? 0o700, true)
        : stats(this.#node.data.length, this.#node.mode, false),
    );
  }
  readFile(options?: unknown) {
    return this.#on('read', (node) => (isText(options) ? node.data.toString() : node.data));
  }
  writeFile(data: string | Buffer) {
    return this.#on('write', (node) => {
      node.data = Buffer.from(data as string);
    });
  }
  sync() {
    return operate('fsync', this.#path, (disk) => {
      if (this.#node !== undefined) this.#node.synced = this.#node.data;
      const directory = disk.directory(this.#path);
      if (directory !== undefined) directory.synced = new Map(directory.names);
    });
  }
  datasync() {
    return this.sync();
  }
  chmod(mode: number) {
    return this.#on('fchmod', (node) => {
      node.mode = mode;
    });
  }
  close() {
    return Promise.resolve();
  }
  [Symbol.asyncDispose]() {
    return this.close();
  }
}

const isText = (options: unknown): boolean =>
  typeof options === 'string' || (typeof options === 'object' && options !== null && 'encoding' in options);

function openFile(disk: Disk, path: string, flags: string, mode: number): Handle {
  if (disk.directory(path) !== undefined) return new Handle(path, undefined);
  const [dir, name] = split(path);
  const directory = disk.directory(dir);
  if (directory === undefined) throw failure('ENOENT', 'open', path);
  let node = directory.names.get(name);
  if (flags.includes('x') && node !== undefined) throw failure('EEXIST', 'open', path);
  if (node === undefined) {
    if (flags.startsWith('r')) throw failure('ENOENT', 'open', path);
    node = { data: Buffer.alloc(0), synced: Buffer.alloc(0), mode };
    directory.names.set(name, node);
  } else if (flags.startsWith('w')) node.data = Buffer.alloc(0);
  return new Handle(path, node);
}

const operations = {
  open: (path: string, flags = 'r', mode = 0o666) =>
    operate('open', path, (disk) => openFile(disk, path, flags, mode)),
  readFile: (path: string, options?: unknown) =>
    operate('readFile', path, (disk) => {
      const { data } = nodeAt(disk, 'open', path);
      return isText(options) ? data.toString() : data;
    }),
  writeFile: (path: string, data: string | Buffer, options?: { flag?: string; mode?: number }) =>
    operate('writeFile', path, (disk) => {
      const flags = typeof options === 'object' ? (options.flag ?? 'w') : 'w';
      openFile(disk, path, flags, 0o600);
      nodeAt(disk, 'write', path).data = Buffer.from(data as string);
    }),
  rename: (from: string, to: string) =>
    operate('rename', from, (disk) => {
      const node = nodeAt(disk, 'rename', from);
      const [fromDir, fromName] = split(from);
      const [toDir, toName] = split(to);
      disk.directory(toDir)?.names.set(toName, node);
      disk.directory(fromDir)?.names.delete(fromName);
    }),
  link: (from: string, to: string) =>
    operate('link', from, (disk) => {
      const node = nodeAt(disk, 'link', from);
      const [dir, name] = split(to);
      if (disk.directory(dir)?.names.has(name)) throw failure('EEXIST', 'link', to);
      disk.directory(dir)?.names.set(name, node);
    }),
  unlink: (path: string) =>
    operate('unlink', path, (disk) => {
      nodeAt(disk, 'unlink', path);
      const [dir, name] = split(path);
      disk.directory(dir)?.names.delete(name);
    }),
  readdir: (path: string) =>
    operate('readdir', path, (disk) => {
      const directory = disk.directory(path);
      if (directory === undefined) throw failure('ENOENT', 'readdir', path);
      return [...directory.names.keys()].sort();
    }),
  mkdir: (path: string) => operate('mkdir', path, (disk) => disk.makeDirectory(path)),
  stat: (path: string) =>
    operate('stat', path, (disk) => {
      const directory = disk.directory(path);
      if (directory !== undefined) return stats(0, directory.mode, true);
      const node = nodeAt(disk, 'stat', path);
      return stats(node.data.length, node.mode, false);
    }),
  access: (path: string) =>
    operate('access', path, (disk) => {
      if (disk.directory(path) === undefined) nodeAt(disk, 'access', path);
    }),
  chmod: (path: string, mode: number) =>
    operate('chmod', path, (disk) => {
      const directory = disk.directory(path);
      if (directory !== undefined) directory.mode = mode;
      else nodeAt(disk, 'chmod', path).mode = mode;
    }),
};

export function installVirtualFiles(): void {
  const real = require('node:fs/promises') as Record<string, (path: unknown, ...rest: unknown[]) => unknown>;
  for (const [name, virtual] of Object.entries(operations)) {
    const original = real[name];
    real[name] = (path: unknown, ...rest: unknown[]) =>
      typeof path === 'string' && path.startsWith(ROOT)
        ? (virtual as (path: string, ...rest: unknown[]) => unknown)(path, ...rest)
        : original?.(path, ...rest);
  }
  syncBuiltinESMExports();
}
