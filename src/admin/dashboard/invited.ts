/** The page of an invited person: one mailbox, one sign-in. The key stands behind # and is never sent but in a header. */
import type { SignInRow } from '../shapes.ts';
import { byId } from './dom.ts';
import { post } from './requests.ts';
import { createSignInView, type Desk, type Said, say } from './sign-in-view.ts';

const key = location.hash.slice(1);
// Not left in the address bar for the next person at this screen.
history.replaceState(null, '', location.pathname);

const headers = { 'x-invite-key': key };
const PATH = '/sign-in/invited';
let email = '';

const look = (): Promise<Said> =>
  say(PATH, { headers }, (body) => {
    const invited = body as { email: string; sign_in: SignInRow };
    email = invited.email;
    return invited.sign_in;
  });

const desk: Desk = {
  look,
  begin: (way) => say(PATH, post({ way }, headers)),
  paste: (url) => say(`${PATH}/redirect`, post({ url }, headers)),
  afterwards: 'You can close this page.',
};

const first =
  key === '' ? { error: 'Open the link you were sent again: it holds a key that is gone.' } : await look();
if (email !== '')
  byId('who').textContent =
    `The administrator asks you to let the mail relay send as ${email}. You sign in at your provider; your password is never seen here.`;
byId('sign-in').append(createSignInView(desk, email, first).element);
