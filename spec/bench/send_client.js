// Nest's side of the send rows: what send.lua does, by ClientTCP or, with a transport, another.
//
//   node send_client.js '{"port":3001,"inFlight":64}'   prints "ready"; to a line of milliseconds it says the calls made
import { ClientProxyFactory } from '@nestjs/microservices';
import { createInterface } from 'node:readline';
import { lastValueFrom, timeout } from 'rxjs';
import { options, say, transportOptions } from './common.js';

const { inFlight, ...rest } = options();
const client = ClientProxyFactory.create(transportOptions(rest));
let calls = 0;
let stopAt = 0;

async function callOn() {
  while (Date.now() < stopAt) {
    calls += 1;
    const order = { orderId: 'ord_42', amount: calls, currency: 'EUR', customer: 'cus_9f3b21', paid: false };
    const { amount } = order;
    // perigee's send has this limit by default
    const answer = await lastValueFrom(client.send({ cmd: 'charge' }, order).pipe(timeout(5000)));
    if (answer.amount !== amount) throw new Error(`an answer to another call: ${answer.amount}, not ${amount}`);
  }
}

async function measure(ms) {
  calls = 0;
  stopAt = Date.now() + ms;
  await Promise.all(Array.from({ length: inFlight }, callOn));
  return calls;
}

await client.connect();
const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => say(String(await measure(Number(line)))));
lines.once('close', () => process.exit(0));
say('ready');
