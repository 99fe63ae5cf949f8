/** What a soak ends with: what clients heard, held against what the provider took. Pure. */

/** One try of one message, as its client knows it. */
export interface Attempt {
  /** In the message's own `X-Soak` header: no two attempts have the same. */
  readonly mark: string;
  /** Those that heard 250. */
  promised: readonly string[];
  /** What the message heard at last; undefined: the connection ended first. */
  final: { readonly code: number; readonly text: string } | undefined;
  /** Any 5xx it heard at all. */
  bounce: string | undefined;
  readonly sha256: string;
}

export interface Taken {
  readonly mark: string;
  readonly recipients: readonly string[];
  readonly sha256: string;
}

export interface Verdict {
  /** Attempts. */
  readonly sent: number;
  readonly acknowledged: number;
  /** Heard 4xx; the client tried again. */
  readonly deferred: number;
  /** Acknowledged, and not with the provider as promised: missing, other recipients, other octets. */
  readonly lost: readonly string[];
  /** Delivered more than once, or delivered and deferred without the relay saying that it does not know. */
  readonly twice: readonly string[];
  /** Heard 5xx, which the provider never says here. */
  readonly bounced: readonly string[];
  /** Delivered without a 250 that the client heard: the connection broke after the last octet, or the relay said so. */
  readonly unknown: number;
}

const UNKNOWN = /delivery status unknown/;

export function judge(attempts: readonly Attempt[], taken: readonly Taken[]): Verdict {
  const byMark = new Map<string, Taken[]>();
  for (const each of taken) byMark.set(each.mark, [...(byMark.get(each.mark) ?? []), each]);
  const lost: string[] = [];
  const twice: string[] = [];
  const bounced: string[] = [];
  let acknowledged = 0;
  let deferred = 0;
  let unknown = 0;
  for (const { mark, promised, final, bounce, sha256 } of attempts) {
    const deliveries = byMark.get(mark) ?? [];
    byMark.delete(mark);
    const [delivery] = deliveries;
    if (bounce !== undefined) bounced.push(`${mark}: ${bounce}`);
    if (deliveries.length > 1) twice.push(`${mark}: ${deliveries.length} times`);
    if (final?.code === 250) {
      acknowledged += 1;
      if (delivery === undefined) lost.push(`${mark}: nowhere`);
      else if (delivery.sha256 !== sha256) lost.push(`${mark}: other octets`);
      else if ([...delivery.recipients].sort().join() !== [...promised].sort().join())
        lost.push(`${mark}: promised ${promised.join(' ')}, delivered ${delivery.recipients.join(' ')}`);
      continue;
    }
    if (final !== undefined) deferred += 1;
    if (delivery === undefined) continue;
    unknown += 1;
    if (final !== undefined && !UNKNOWN.test(final.text))
      twice.push(`${mark}: delivered, and heard ${final.code} ${final.text}`);
  }
  for (const mark of byMark.keys()) twice.push(`${mark}: from nowhere`);
  return { sent: attempts.length, acknowledged, deferred, lost, twice, bounced, unknown };
}
