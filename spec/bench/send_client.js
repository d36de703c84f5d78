// Nest's side of the send rows: what send.lua does, by ClientTCP or, with a transport, another.
//
//   node send_client.js '{"port":3001,"inFlight":64}'   what it reads and says: told.js
import { lastValueFrom, timeout } from 'rxjs';
import { told } from './told.js';

let calls = 0;

await told((client) => ({
  async call() {
    calls += 1;
    const order = { orderId: 'ord_42', amount: calls, currency: 'EUR', customer: 'cus_9f3b21', paid: false };
    const { amount } = order;
    // perigee's send has this limit by default
    const answer = await lastValueFrom(client.send({ cmd: 'charge' }, order).pipe(timeout(5000)));
    if (answer.amount !== amount) throw new Error(`an answer to another call: ${answer.amount}, not ${amount}`);
  },
}));
