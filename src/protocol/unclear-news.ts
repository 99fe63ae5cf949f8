/** A message of which nobody knows whether Graph sent it, and which no retry will clear: what a person is told. */
export interface UnclearNews {
  /** Names it in a decision. */
  readonly key: string;
  /** Account id. */
  readonly account: string | undefined;
  /** With angle brackets. */
  readonly messageId: string | undefined;
  readonly reason: string;
  readonly cure: string;
}
