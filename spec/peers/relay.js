// Ends TLS before a server that speaks plainly: what a client finds that starts with the handshake.
//
//   node relay.js '{"to":4222,"tls":{"cert":...,"key":...,"ca":...}}'   prints "ready PORT", ends with stdin or SIGTERM
import { connect } from 'node:net';
import { createServer } from 'node:tls';
import { endWithParent, options, say, tlsOptions } from './common.js';

const { to, tls } = options();
const relay = createServer(tlsOptions(tls), (client) => {
  const server = connect(to, '127.0.0.1');
  client.pipe(server).pipe(client);
  client.on('error', () => server.destroy());
  server.on('error', () => client.destroy());
});
relay.on('tlsClientError', () => {}); // strangers are expected
relay.listen(0, '127.0.0.1', () => {
  endWithParent(async () => relay.close());
  say(`ready ${relay.address().port}`);
});
