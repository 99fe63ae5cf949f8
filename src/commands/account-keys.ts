/** The keys of the accounts file, for people: docs/accounts.md and the manual page. In: the schema that also checks them. Out: rows, tables. Pure. */
import { EARLIER_MARKS, EARLIER_NAMES } from '../accounts/legacy-entry.ts';
import { accountsJsonSchema, SECRET_FORMS } from '../accounts/schema.ts';

export interface KeyRow {
  readonly key: string;
  /** Form of its value in a few words. */
  readonly form: string;
  readonly help: string;
}

/** The part of JSON Schema that is read here. */
interface Node {
  readonly type?: string;
  readonly description?: string;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly Node[];
  readonly items?: Node;
  readonly properties?: Readonly<Record<string, Node>>;
  readonly additionalProperties?: Node | boolean;
}

/** Keys of an account, and of an entry of `providers`. */
export function accountKeys(): { readonly account: readonly KeyRow[]; readonly provider: readonly KeyRow[] } {
  const whole = (accountsJsonSchema() as Node).anyOf?.find(({ properties }) => properties !== undefined);
  const { accounts, providers } = whole?.properties ?? {};
  const provider = providers?.additionalProperties;
  return {
    account: rowsOf(accounts?.items),
    provider: rowsOf(typeof provider === 'object' ? provider : undefined),
  };
}

const rowsOf = (node: Node | undefined): readonly KeyRow[] =>
  Object.entries(node?.properties ?? {}).map(([key, value]) => ({
    key,
    form: formOf(value),
    help: value.description ?? '',
  }));

function formOf(node: Node): string {
  if (node.enum !== undefined) return node.enum.join(', ');
  if (isSecret(node)) return 'secret';
  switch (node.type) {
    case 'integer':
      return 'number';
    case 'boolean':
      return 'true, false';
    case 'array':
      return node.items?.enum === undefined ? 'list' : `list of ${formOf(node.items)}`;
    default:
      return node.anyOf === undefined ? 'text' : 'text, number';
  }
}

const isSecret = ({ anyOf = [], properties }: Node): boolean =>
  properties?.credential !== undefined || anyOf.some(isSecret);

const MARK = /(<!-- keys -->\n)[\s\S]*(<!-- \/keys -->)/;

/** docs/accounts.md with its tables as the schema has them. */
export function fillKeys(page: string): string {
  const { account, provider } = accountKeys();
  const lines = [
    `A *secret* is ${SECRET_FORMS.replace(/\{[^{}]*\}/g, (form) => `\`${form}\``)}.`,
    '',
    ...table('key of an account', account),
    '',
    ...table('key of a provider', provider),
    '',
    '`account import` takes over what other tools call otherwise, and names what has no counterpart:',
    '',
    '| their key | here |',
    '| --- | --- |',
    ...[...EARLIER_NAMES].map(([theirs, ours]) => `| \`${theirs}\` | \`${ours}\` |`),
    '',
    `\`serve\` takes none of them over. In an entry with ${EARLIER_MARKS.map((key) => `\`${key}\``).join(', ')} it ignores what it`,
    'does not know, says so in its log and in `check`, and takes empty text and `null` for nothing; anywhere else such a key is an error.',
  ];
  return page.replace(MARK, (_all, begin: string, end: string) => `${begin}${lines.join('\n')}\n${end}`);
}

const table = (head: string, rows: readonly KeyRow[]): readonly string[] => [
  `| ${head} | value | meaning |`,
  '| --- | --- | --- |',
  ...rows.map(({ key, form, help }) => `| \`${key}\` | ${literal(form)} | ${literal(help)} |`),
];

/** Nothing in it is Markdown; an address is no link. */
const literal = (text: string): string =>
  text
    .split(/(\b[a-z0-9]+:\/\/[^\s;,)]+)/)
    .map((part, index) => (index % 2 === 1 ? `\`${part}\`` : part.replace(/[\\*<>|`[\]]/g, '\\$&')))
    .join('');
