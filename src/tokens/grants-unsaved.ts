/** The process ends and some refresh tokens could not be saved; the message names their accounts and the cure. */
export class GrantsUnsavedError extends Error {
  override readonly name = 'GrantsUnsavedError';
  readonly accountIds: readonly string[];
  constructor(accountIds: readonly string[]) {
    super(
      `the newest refresh tokens of ${accountIds.length} account(s) could not be saved and are lost: ${accountIds.join(', ')}; they may have to sign in again`,
    );
    this.accountIds = accountIds;
  }
}
