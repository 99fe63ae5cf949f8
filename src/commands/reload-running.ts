/** After the accounts file was edited: a running relay reads it again. In: settings. Out: words about what came of it. */
import type { Settings } from '../config.ts';
import { OperatorError } from '../enrol/operator-error.ts';
import { createAdminClient, NotRunningError } from './admin-client.ts';
import { describeOtherFile, findOtherFile } from './other-file.ts';
import type { Terminal } from './terminal.ts';

/** Tells a running relay; says what came of it. */
export async function reloadRunning(settings: Settings, terminal: Terminal): Promise<void> {
  const other = await findOtherFile(settings);
  if (other !== undefined) {
    terminal.note(`not reloaded: ${describeOtherFile(settings, other)}`);
    return;
  }
  try {
    const result = await createAdminClient(settings).reload();
    terminal.note(
      result.ok
        ? `reloaded: ${result.added.length} added, ${result.changed.length} changed, ${result.removed.length} removed`
        : 'the running relay did not take the file; see its log',
    );
  } catch (error) {
    if (error instanceof NotRunningError)
      terminal.note('no running relay to reload; it will read the file when it starts');
    else if (error instanceof OperatorError) terminal.note(`not reloaded: ${error.message}`);
    else throw error;
  }
}
