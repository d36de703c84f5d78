// The client's side of calls.lua for Nest's clients: so many at once, for as long as standard input says.
import { ClientProxyFactory } from '@nestjs/microservices';
import { createInterface } from 'node:readline';
import { options, say, transportOptions } from './common.js';

/**
 * Says "ready"; to a line of milliseconds, the calls made. `prepare(client)` gives `call`, which makes one call, checks
 * its answer and may tell that it made more, and `count`, if what has arrived in a round must be what was made in it.
 */
export async function told(prepare) {
  const { inFlight, ...rest } = options();
  const client = ClientProxyFactory.create(transportOptions(rest));
  let made = 0;
  let isOver = false;

  await client.connect();
  const { call, count } = prepare(client);

  async function callOn() {
    while (!isOver) {
      const n = (await call()) ?? 1; // before `made` is read: others count meanwhile
      made += n;
    }
  }

  async function measure(ms) {
    const before = await count?.();
    made = 0;
    isOver = false;
    setTimeout(() => { isOver = true; }, ms); // as the limit does: no look at a clock for each call
    await Promise.all(Array.from({ length: inFlight }, callOn));
    const arrived = count ? (await count()) - before : made;
    if (arrived !== made) throw new Error(`${arrived} arrived, not ${made}`);
    return made;
  }

  const lines = createInterface({ input: process.stdin });
  lines.on('line', async (line) => say(String(await measure(Number(line)))));
  lines.once('close', () => process.exit(0));
  say('ready');
}
