/** What becomes of a grant: its states, and what each event makes of them. Pure. */

/** `original`: the operator's own refresh token. `kept`: a rotated one that the store has. `unsaved`: one that only this process knows. */
export type GrantState = 'original' | 'kept' | 'unsaved';

export type GrantEvent =
  /** A provider gave a refresh token. */
  | 'rotated'
  | 'saved'
  /** The store already had a later one, which is taken. */
  | 'overtaken'
  | 'save failed'
  /** The store has one that is no older than ours. */
  | 'loaded';

/** What an event makes of a grant; undefined where it cannot come then, or changes nothing. */
export function nextGrantState(state: GrantState, event: GrantEvent): GrantState | undefined {
  switch (event) {
    case 'rotated':
      return 'unsaved';
    case 'saved':
    case 'overtaken':
      return state === 'unsaved' ? 'kept' : undefined;
    case 'save failed':
      return state === 'unsaved' ? 'unsaved' : undefined;
    case 'loaded':
      // What only we know is not given up for what the store has.
      return state === 'unsaved' ? undefined : 'kept';
    default:
      return event satisfies never;
  }
}
