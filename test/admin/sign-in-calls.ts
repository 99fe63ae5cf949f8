/** Requests to the operations by which accounts come, go and are signed in to, for the test of answers and description. */
import type { FakeAdminBackend } from '../support/fake-admin-backend.ts';

const ANN = '/admin/accounts/ann@example.com';
const OF = '/admin/accounts/{id}';
const json = { 'content-type': 'application/json' };
const key = { 'x-invite-key': 'K'.repeat(43) };
const way = '{"way":"device"}';
const url = '{"url":"http://127.0.0.1:9090/?code=c&state=s"}';

const entry = '{"email":"new@example.com","provider":"gmail","way":"device"}';
const token = '{"access_token":"abc","expires_in":60}';
const used = (b: FakeAdminBackend): void => {
  b.signIns.keyState = 'used';
};

export const SIGN_IN_CALLS = [
  {
    template: '/admin/accounts',
    method: 'POST',
    path: '/admin/accounts',
    status: 200,
    headers: json,
    body: entry,
  },
  { template: '/admin/accounts', method: 'POST', path: '/admin/accounts', status: 400, body: '{}' },
  { template: OF, method: 'DELETE', path: ANN, status: 200 },
  { template: `${OF}/token`, method: 'PUT', path: `${ANN}/token`, status: 200, headers: json, body: token },
  {
    template: `${OF}/token`,
    method: 'PUT',
    path: `${ANN}/token`,
    status: 400,
    body: '{"access_token":"a b","expires_in":1}',
  },
  { template: `${OF}/invite`, method: 'POST', path: `${ANN}/invite`, status: 200 },
  { template: `${OF}/sign-in`, path: `${ANN}/sign-in`, status: 200 },
  { template: `${OF}/sign-in`, path: '/admin/accounts/nobody@example.com/sign-in', status: 409 },
  {
    template: `${OF}/sign-in`,
    method: 'POST',
    path: `${ANN}/sign-in`,
    status: 200,
    headers: json,
    body: way,
  },
  { template: `${OF}/sign-in`, method: 'POST', path: `${ANN}/sign-in`, status: 400, body: '{"way":"post"}' },
  { template: `${OF}/sign-in`, method: 'DELETE', path: `${ANN}/sign-in`, status: 200 },
  {
    template: `${OF}/sign-in/redirect`,
    method: 'POST',
    path: `${ANN}/sign-in/redirect`,
    status: 200,
    headers: json,
    body: url,
  },
  { template: '/sign-in/invited', path: '/sign-in/invited', status: 200, headers: key },
  { template: '/sign-in/invited', path: '/sign-in/invited', status: 410 },
  { template: '/sign-in/invited', path: '/sign-in/invited', status: 200, headers: key, before: used },
  {
    template: '/sign-in/invited',
    method: 'POST',
    path: '/sign-in/invited',
    status: 200,
    headers: { ...key, ...json },
    body: way,
  },
  {
    template: '/sign-in/invited',
    method: 'POST',
    path: '/sign-in/invited',
    status: 410,
    headers: key,
    body: way,
    before: used,
  },
  {
    template: '/sign-in/invited/redirect',
    method: 'POST',
    path: '/sign-in/invited/redirect',
    status: 200,
    headers: { ...key, ...json },
    body: url,
  },
] as const;
