/** Replaces a file so that a reader sees the old content or the new one, never half of it. */
import { chmod, chown, link, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Writes beside the file, flushes, renames; owner, group and mode as before, 0600 where it is new or everybody could read
 * it. A symbolic link keeps pointing where it does. `mayReplace` is asked in the last moment; false where it says so, and
 * nothing is replaced. Rejects as it does.
 */
export async function writeFileAtomically(
  path: string,
  text: string,
  mayReplace?: () => Promise<boolean>,
): Promise<boolean> {
  const target = await realpath(path).catch(() => path);
  const before = await stat(target).catch(() => undefined);
  const temporary = `${target}.${process.pid}.tmp`;
  // Left over from a process of this id that was killed here.
  await rm(temporary, { force: true });
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    // root edits the file that the service reads by its user or its group.
    if (before !== undefined) {
      const made = await stat(temporary);
      if (before.uid !== made.uid || before.gid !== made.gid) await chown(temporary, before.uid, before.gid);
      if ((before.mode & 0o007) === 0) await chmod(temporary, before.mode & 0o770);
    }
    if (mayReplace !== undefined && !(await mayReplace())) {
      await rm(temporary);
      return false;
    }
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  const directory = await open(dirname(target), 'r');
  await directory.sync().finally(() => directory.close());
  return true;
}

/** Rejects with EXDEV where a file is mounted by itself: no other one can take its place. Nothing is changed. */
export async function refuseMounted(path: string): Promise<void> {
  const target = await realpath(path).catch(() => path);
  const temporary = `${target}.${process.pid}.tmp`;
  try {
    // No link leads out of a mount, one onto the same file system neither.
    await link(target, temporary);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EXDEV') throw error;
    return;
  }
  await rm(temporary);
}
