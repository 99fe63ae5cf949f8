/** The OpenAPI 3.1 description of the admin API, made of its operations and shapes; served at /admin/openapi.json. */
import type { Operation } from './operation.ts';
import { OPERATIONS } from './operations.ts';
import { jsonSchemas, SHAPES } from './shapes.ts';

type Described = ReturnType<typeof describe>;
export type OpenApi = ReturnType<typeof openApi>;

const ref = (name: string): object => ({ $ref: `#/components/schemas/${name}` });

/** What the guard may answer in place of any operation. */
const REFUSALS: Operation['answers'] = {
  400: ['Malformed request', 'Error'],
  401: ['A token is needed, or this one is not accepted', 'Error'],
  403: ['Foreign Host or Origin, or the token may only read', 'Error'],
};

function describeAnswers(
  answers: Operation['answers'],
): Record<string, { description: string; content: Record<string, { schema: object }> }> {
  return Object.fromEntries(
    Object.entries({ ...answers, ...REFUSALS }).map(([status, [description, body]]) => {
      if (body === 'text/plain' || body === 'text/event-stream')
        return [status, { description, content: { [body]: { schema: { type: 'string' } } } }];
      const schema = body in SHAPES ? ref(body) : { type: 'object' };
      return [status, { description, content: { 'application/json': { schema } } }];
    }),
  );
}

const describe = ({ id, summary, parameters, takes, answers }: Operation) => ({
  operationId: id,
  summary,
  ...(parameters === undefined
    ? {}
    : { parameters: parameters.map((p) => (p.in === 'path' ? { ...p, required: true } : p)) }),
  ...(takes === undefined
    ? {}
    : { requestBody: { required: true, content: { 'application/json': { schema: ref(takes) } } } }),
  responses: describeAnswers(answers),
});

/** The page itself is no operation: it is a file. */
const DASHBOARD: Described = {
  operationId: 'dashboard',
  summary: 'Dashboard',
  responses: {
    '200': { description: 'The page', content: { 'text/html': { schema: { type: 'string' } } } },
  },
};

/** The description, with the version of the program that serves it. */
export function openApi(version: string) {
  const paths: Record<string, Record<string, Described>> = { '/': { get: DASHBOARD } };
  for (const operation of OPERATIONS) {
    const path = paths[operation.path] ?? {};
    path[operation.method] = describe(operation);
    paths[operation.path] = path;
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'xoauth2-relay admin API',
      version,
      description:
        'On loopback without a token; elsewhere every request needs one. No answer carries a secret.',
    },
    security: [{}, { bearer: [] }],
    paths,
    components: {
      schemas: jsonSchemas(),
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
    },
  };
}
