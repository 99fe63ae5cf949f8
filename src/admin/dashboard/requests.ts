/** Requests of the page to the relay. In: a path of the admin API. Out: the answer, or in words why there is none. */

export interface Answer {
  /** 0: nobody answered. */
  readonly status: number;
  readonly body: unknown;
  /** Undefined where it is what was asked for. */
  readonly trouble: string | undefined;
}

export const pathOf = (id: string): string => `/admin/accounts/${encodeURIComponent(id)}`;

export const post = (body: object, headers: Record<string, string> = {}): RequestInit => ({
  method: 'POST',
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify(body),
});

/** Never rejects. */
export async function ask(path: string, init: RequestInit = {}): Promise<Answer> {
  try {
    const answer = await fetch(path, init);
    const { status } = answer;
    const body = (await answer.json()) as { readonly error?: string | null; readonly cure?: string | null };
    const words = [body.error ?? `answer ${status}`, body.cure].filter(Boolean).join(' — ');
    return { status, body, trouble: answer.ok ? undefined : words };
  } catch {
    return { status: 0, body: undefined, trouble: 'the relay does not answer' };
  }
}
