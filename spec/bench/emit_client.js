// Nest's side of the emit rows: what emit.lua does, by ClientTCP or, with a transport, another.
//
//   node emit_client.js '{"port":3001,"inFlight":64}'   what it reads and says: told.js
import { lastValueFrom, timeout } from 'rxjs';
import { told } from './told.js';

const BATCH = 100;
let events = 0;

await told((client) => {
  const count = () => lastValueFrom(client.send({ cmd: 'count' }, {}).pipe(timeout(5000)));
  return {
    count,
    async call() {
      for (let i = 0; i < BATCH; i += 1) {
        events += 1;
        const order = { orderId: 'ord_42', amount: events, currency: 'EUR', customer: 'cus_9f3b21', paid: false };
        await lastValueFrom(client.emit({ cmd: 'charged' }, order), { defaultValue: undefined });
      }
      await count();
      return BATCH;
    },
  };
});
