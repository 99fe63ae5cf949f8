/** Sign-ins for the admin room's tests: one row a test can set, and what was asked for. */
import type { SignInAnswer, SignInDesk } from '../../src/admin/backend.ts';
import type { SignInRow } from '../../src/admin/shapes.ts';

export interface FakeSignIns extends SignInDesk {
  row: SignInRow;
  /** What was asked for, as `begin ann@example.com device http://127.0.0.1:9090`. */
  readonly asked: string[];
  /** The one key that is good. */
  key: string;
  keyState: 'open' | 'used';
}

const IDLE_SIGN_IN: SignInRow = {
  account: 'ann@example.com',
  state: 'idle',
  way: null,
  offered: ['device', 'browser'],
  url: null,
  code: null,
  until: null,
  returns: true,
  steps: [],
  note: null,
};

export function createFakeSignIns(isKnown: (id: string) => boolean): FakeSignIns {
  const asked: string[] = [];
  const say = (account: string): SignInAnswer => ({ ok: true, row: { ...desk.row, account } });
  const desk: FakeSignIns = {
    row: IDLE_SIGN_IN,
    asked,
    key: 'K'.repeat(43),
    keyState: 'open',
    look: async (id) =>
      isKnown(id)
        ? { ok: true, row: { ...desk.row, account: id, url: null, code: null } }
        : { ok: false, error: 'no such account' },
    async begin(id, way, origin) {
      asked.push(`begin ${id} ${way} ${origin}`);
      desk.row = {
        ...IDLE_SIGN_IN,
        way,
        state: 'waiting',
        url: way === 'device' ? 'https://login.example/device' : 'https://login.example/authorize?state=s',
        code: way === 'device' ? 'ABCD-1234' : null,
        until: new Date(Date.now() + 600_000).toISOString(),
      };
      return say(id);
    },
    add: async (account, way, origin) => {
      asked.push(`add ${account.email} ${account.provider}`);
      return desk.begin(account.email, way, origin);
    },
    paste: async (id, url) => {
      asked.push(`paste ${id} ${url}`);
      return say(id);
    },
    cancel: (id) => {
      asked.push(`cancel ${id}`);
      desk.row = IDLE_SIGN_IN;
      return { ...IDLE_SIGN_IN, account: id };
    },
    returned: (query) => query.get('state') === 's',
    invite: async () => ({ key: desk.key, until: new Date(Date.now() + 86_400_000).toISOString() }),
    invited: (key) => (key === desk.key ? { account: 'ann@example.com', state: desk.keyState } : undefined),
  };
  return desk;
}
