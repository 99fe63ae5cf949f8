/** What an operator can cure: a message for a person, which never holds a secret. */
export class OperatorError extends Error {
  override readonly name = 'OperatorError';
  /** Of a command that ends with it. */
  readonly exitCode: number;
  constructor(message: string, exitCode = 1, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.exitCode = exitCode;
  }
}
