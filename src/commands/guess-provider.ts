/** Which provider a mailbox plainly is with. In: what is known of it. Out: a built-in provider, or nothing. Pure. */

/** `hosts`: addresses of its servers and token endpoint; they say more than the domain of `email`. */
export function guessProvider(email: unknown, hosts: readonly unknown[] = []): string | undefined {
  const named = hosts.filter((host) => typeof host === 'string' && host !== '');
  const hints = named.join(' ');
  if (/gmail|googleapis|google\.com/i.test(hints)) return 'gmail';
  if (/smtp-mail\.outlook|login\.live\.com|\/consumers\//i.test(hints)) return 'outlook-personal';
  if (/office365|microsoftonline/i.test(hints)) return 'outlook';
  // Servers of its own.
  if (named.length > 0 && !/outlook\.com/i.test(hints)) return undefined;
  const domain = typeof email === 'string' ? email.slice(email.lastIndexOf('@') + 1).toLowerCase() : '';
  if (/^(?:gmail|googlemail)\.com$/.test(domain)) return 'gmail';
  if (/^(?:outlook|hotmail|live|msn)\.[a-z.]+$/.test(domain)) return 'outlook-personal';
  return undefined;
}
