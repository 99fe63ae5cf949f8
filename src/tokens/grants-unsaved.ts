/** The process ends and some refresh tokens could not be saved; the message names their accounts and the cure. */
export class GrantsUnsavedError extends Error {
  override readonly name = 'GrantsUnsavedError';
  readonly accountIds: readonly string[];
  constructor(accountIds: readonly string[]) {
    super(
      `the newest refresh tokens of ${accountIds.length} account(s) could not be saved: ${accountIds.join(', ')}; they may have to sign in again, unless the state directory has them half written (*.tmp): the relay’s next start finishes that`,
    );
    this.accountIds = accountIds;
  }
}
