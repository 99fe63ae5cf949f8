/**
 * `npm run bench -- graph`: what a message by Microsoft Graph costs in the relay, beside the same message
 * by SMTP. Prints a table; asserts nothing. Each mailbox keeps within Graph's 10,000 requests in 10 minutes.
 */
import { startGraphServer } from '../support/graph-server.ts';
import { startTokenEndpoint } from '../support/token-endpoint.ts';
import { run } from './load.ts';
import {
  benchEntry,
  bodyOf,
  certificateFiles,
  clear,
  cpuSeconds,
  directory,
  helper,
  median,
  startRelay,
  table,
} from './stage.ts';

const SESSIONS = 8;
const MESSAGES = 1_000;
const ROUNDS = 3;

const tokens = await startTokenEndpoint('microsoft');
const graph = await startGraphServer({
  verify: () => ({
    audience: 'https://graph.microsoft.com',
    scopes: ['Mail.Send', 'Mail.ReadWrite'],
    app: 'app',
  }),
  record: false,
});
try {
  const sink = await helper('sink', certificateFiles());
  const entry = benchEntry(tokens, 'ann@example.com', sink.port, {
    provider: 'outlook',
    messages_per_minute: 0,
    max_connections: SESSIONS,
    min_connections: SESSIONS,
    messages_per_connection: 1_000_000,
  });
  const byGraph = { ...entry, transport: 'graph', graph_url: graph.url };
  const relays = {
    SMTP: await startRelay([entry]),
    'Graph, memory': await startRelay([byGraph]),
    'Graph, journal on disk': await startRelay([byGraph], ['--state-dir', `${directory}/state`]),
  };
  const rows: string[][] = [['4 kB, kept open', 'µs CPU', 'msg/s']];
  const rest = bodyOf(4_096);
  let n = 0;
  const next = (): Buffer =>
    Buffer.concat([Buffer.from(`Message-ID: <${n++}@bench>\r\nTo: bob@example.net\r\n`), rest]);
  for (const [name, relay] of Object.entries(relays)) {
    const cpu: number[] = [];
    const rate: number[] = [];
    // The first round warms up.
    for (let round = 0; round <= ROUNDS; round++) {
      const before = cpuSeconds(relay.pid);
      const seconds = await run({
        port: relay.smtp,
        sessions: SESSIONS,
        messages: MESSAGES,
        body: rest,
        next,
      });
      if (round === 0) continue;
      cpu.push(((cpuSeconds(relay.pid) - before) / MESSAGES) * 1e6);
      rate.push(MESSAGES / seconds);
    }
    rows.push([name, median(cpu).toFixed(0), median(rate).toFixed(0)]);
    await relay.stop();
  }
  table('Microsoft Graph beside SMTP', rows);
  console.log(`at most ${graph.maxAtOnce} requests at once, ${graph.delivered.length} delivered`);
} finally {
  clear();
  await graph.close();
  await tokens.close();
}
