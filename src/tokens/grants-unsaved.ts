/** The process ends and some refresh tokens could not be saved; the message names their accounts and the cure. */
export class GrantsUnsavedError extends Error {
  override readonly name = 'GrantsUnsavedError';
  readonly accountIds: readonly string[];
  /** `hasDirectory`: there is one in which they may be half written. */
  constructor(accountIds: readonly string[], hasDirectory: boolean) {
    super(
      `the newest refresh tokens of ${accountIds.length} account(s) could not be saved: ${accountIds.join(', ')}; they may have to sign in again${hasDirectory ? ', unless the state directory has them half written (*.tmp): it is looked for there before anything is asked' : ''}`,
    );
    this.accountIds = accountIds;
  }
}
