/** Replaces a file so that a reader sees the old content or the new one, never half of it. */
import { chown, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Writes beside the file, flushes, renames; mode 0600, owner as before. A symbolic link keeps pointing where it does. */
export async function writeFileAtomically(path: string, text: string): Promise<void> {
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
    // root edits the file of the service's user.
    if (before !== undefined && before.uid !== process.getuid?.())
      await chown(temporary, before.uid, before.gid);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  const directory = await open(dirname(target), 'r');
  await directory.sync().finally(() => directory.close());
}
