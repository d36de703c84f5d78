// A Nest 12 client at the end of a pipe: a command per line on stdin, an outcome per line on stdout.
//
//   node client.js '{"port":3001}'   or with "transport": "nats" or "redis", and that client's options
//   {"id":1,"op":"send","pattern":"echo","data":1}   -> {"id":1,"values":[1]}
//   {"id":2,"op":"send","pattern":"bad","data":1}    -> {"id":2,"values":[],"error":{...}}
//   {"id":3,"op":"send",...,"live":true}             -> {"id":3,"value":1} for each value before that, {"id":3,"values":[...]}
// ops: send, emit (headers = those of a NATS record), connect, close, cancel (of = the id of a send),
// metadata (data = what the dispatch hook adds), status (data = how many to wait for), pending, options.
// An undefined value is told as {"undefined":true}. Prints "ready" first.
import { ClientProxyFactory, NatsRecordBuilder } from '@nestjs/microservices';
import { createInterface } from 'node:readline';
import { Logger } from '@nestjs/common';
import { logger, natsPackage, options, say, transportOptions } from './common.js';

Logger.overrideLogger(logger);

const running = new Map(); // id -> Subscription
const seen = []; // statuses since the client was made
let waiting = []; // for how many of them
let client;

function open(chosen) {
  client = ClientProxyFactory.create(transportOptions(chosen));
  seen.length = 0;
  client.status.subscribe((status) => {
    seen.push(status);
    tellStatuses();
  });
}

function tellStatuses() {
  const due = waiting.filter(({ n }) => seen.length >= n);
  waiting = waiting.filter(({ n }) => seen.length < n);
  for (const { id } of due) say({ id, values: [...seen] });
}

const told = (value) => (value === undefined ? { undefined: true } : value);
const failure = (error) => (error instanceof Error ? { name: error.name, message: error.message, code: error.code } : error);

function watch({ id, live }, outcome$) {
  const values = [];
  const subscription = outcome$.subscribe({
    next(value) {
      values.push(told(value));
      if (live) say({ id, value: told(value) });
    },
    error(error) {
      running.delete(id);
      say({ id, values, error: failure(error) });
    },
    complete() {
      running.delete(id);
      say({ id, values });
    },
  });
  if (!subscription.closed) running.set(id, subscription);
}

/** The data of a command; with headers, `[name, value]` each, a NATS record of it. */
function dataOf({ data, headers }) {
  if (!headers) return data;
  const all = natsPackage().headers();
  for (const [name, value] of headers) all.append(name, value);
  return new NatsRecordBuilder(data).setHeaders(all).build();
}

const ops = {
  send: (command) => watch(command, client.send(command.pattern, dataOf(command))),
  emit: (command) => watch(command, client.emit(command.pattern, dataOf(command))),
  async connect({ id }) {
    try {
      await client.connect();
      say({ id, values: [] });
    } catch (error) {
      say({ id, values: [], error: failure(error) });
    }
  },
  async close({ id }) {
    await client.close();
    say({ id, values: [] });
  },
  cancel({ id, of }) {
    running.get(of)?.unsubscribe();
    running.delete(of);
    say({ id, values: [] });
  },
  metadata({ id, data }) {
    client.setOnDispatchHook((packet) => {
      if (data) packet.metadata = data;
    });
    say({ id, values: [] });
  },
  status({ id, data: n = 0 }) {
    waiting.push({ id, n });
    tellStatuses();
  },
  pending: ({ id }) => say({ id, values: [client.routingMap.size] }),
  async options({ id, data }) {
    await client.close();
    open(data);
    say({ id, values: [] });
  },
};

open(options());
const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const command = JSON.parse(line);
  ops[command.op](command);
});
lines.once('close', () => process.exit(0));
process.once('SIGTERM', () => process.exit(0));
say('ready');
