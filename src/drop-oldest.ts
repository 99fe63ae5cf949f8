/** Of a map or a set what was put in first goes, until `most` are left. */
export function dropOldest<K>(
  of: { readonly size: number; keys(): Iterable<K>; delete(key: K): unknown },
  most: number,
): void {
  for (const oldest of of.keys()) {
    if (of.size <= most) return;
    of.delete(oldest);
  }
}
