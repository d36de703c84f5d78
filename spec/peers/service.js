// A Nest 12 microservice with a handler for whatever a client spec needs.
//
//   node service.js '{"port":0,"tls":{...},"maxBufferSize":...}'                 TCP; prints "ready PORT"
//   node service.js '{"transport":"nats","servers":"nats://127.0.0.1:4222"}'    or "redis"; prints "ready 0"
//
// Ends with stdin or SIGTERM.
import { Catch, Controller, ForbiddenException, Module, UseFilters, UseGuards } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  Ctx, EventPattern, MessagePattern, NatsRecordBuilder, Payload, RpcException, Transport,
} from '@nestjs/microservices';
import { EMPTY, NEVER, concat, concatMap, delay, from, of, throwError, timer } from 'rxjs';
import {
  decorateClass, decorateMethod, decorateParameters, endWithParent, headerList, logger, options, say, transportOptions,
} from './common.js';

const chosen = transportOptions(options());
const isTcp = chosen.transport === Transport.TCP, isNats = chosen.transport === Transport.NATS;

class Service {}
const received = []; // events, as their handlers saw them

function add(patternDecorator, fn, ...decorators) {
  const name = `handler${Object.getOwnPropertyNames(Service.prototype).length}`;
  Object.defineProperty(Service.prototype, name, { value: fn, configurable: true, writable: true });
  decorateParameters(Service, name, Payload(), Ctx());
  decorateMethod(Service, name, patternDecorator, ...decorators);
}
const message = (pattern, fn, ...decorators) => add(MessagePattern(pattern), fn, ...decorators);
const event = (pattern, fn, ...decorators) => add(EventPattern(pattern), fn, ...decorators);

// Plain values
message('echo', (data) => data);
message({ cmd: 'charge' }, ({ amount }) => ({ id: 'inv_8a1', amount, status: 'paid' }));
message('value.null', () => null); // a handler named "null" would be out of reach: the name is parsed as JSON
message('value.undefined', () => undefined);
message('promise', async (data) => data);
message('promise.stream', async () => of(1, 2));
message('slow', ({ ms, value }) => timer(ms).pipe(concatMap(() => of(value ?? ms))));
message('never', () => NEVER);
message('big', ({ units }) => 'x'.repeat(units));
message('unencodable', () => 1n);

// Streams
message('stream', () => of(1, 2, 3));
message('stream.timed', ({ ms }) => from([1, 2, 3]).pipe(concatMap((value) => of(value).pipe(delay(ms)))));
message('stream.late.end', ({ ms }) => concat(of(1), timer(ms).pipe(concatMap(() => EMPTY))));
message('stream.empty', () => EMPTY);
message('stream.undefined', () => of(1, undefined, 2, undefined));
message('stream.error', () => concat(of(1, 2), throwError(() => new RpcException('mid'))));
message('stream.count', ({ n }) => from(Array.from({ length: n }, (_, index) => index + 1)));
message('array', () => [1, 2]);

// Errors: every row of the default filter, and a filter of one's own
class PlainErrors {
  catch(_exception, _host) {
    return throwError(() => 'plain');
  }
}
class NamedErrors {
  catch(exception) {
    return throwError(() => exception.payload);
  }
}
class Refuse {
  canActivate() {
    return false;
  }
}
decorateClass(PlainErrors, Catch());
decorateClass(NamedErrors, Catch());
const thrower = (make) => () => {
  throw make();
};
message('error.text', thrower(() => new RpcException('bad')));
message('error.number', thrower(() => new RpcException(42)));
message('error.object', thrower(() => new RpcException({ code: 402, message: 'no funds' })));
message('error.code', thrower(() => new RpcException({ code: 1 })));
message('error.array', thrower(() => new RpcException([1, 2])));
message('error.wrapped', thrower(() => new RpcException(new Error('x'))));
message('error.unknown', thrower(() => new Error('secret')));
message('error.http', thrower(() => new ForbiddenException('no')));
message('error.literal', thrower(() => 'literal'));
message('error.guard', () => 1, UseGuards(new Refuse()));
message('error.filter', thrower(() => new Error('x')), UseFilters(new PlainErrors()));
message('error.payload', (payload) => {
  throw Object.assign(new Error('x'), { payload });
}, UseFilters(new NamedErrors()));

// Patterns: what the client writes has to find these
message({ b: { z: 1, a: 'x"y\\z' }, a: [1, 2] }, () => 'nested');
message({ B: 1, a: 2, A: 3, b: 4, _c: 5, 10: 6, 9: 7 }, () => 'collated');
message({ a: true, b: null, d: 1 }, () => 'bare');
message(42, () => 'number');
message('1.0', () => 'unreachable');
if (isTcp) message(true, () => 'boolean'); // no name of a channel
message('true', () => 'unreachable');
message(0, () => 'zero');
message('1e+21', () => 'large');
if (!isNats) message({ text: 'ä\tö 日 😀' }, () => 'unicode'); // no subject has white space
message({ text: 'ä日😀' }, () => 'letters');

// Context
const addressOf = (ctx) => (isTcp ? ctx.getPattern() : isNats ? ctx.getSubject() : ctx.getChannel());
const metadataOf = (ctx) => (isNats ? null : ctx.getMetadata() ?? null); // NATS' context has none
message('context', (_data, ctx) => ({
  pattern: addressOf(ctx),
  metadata: metadataOf(ctx),
  ...(isTcp && { port: ctx.getSocketRef().netSocket.localPort }),
  ...(isNats && { headers: headerList(ctx.getHeaders()) }),
}));
message({ ctx: 1, a: 2 }, (_data, ctx) => addressOf(ctx));
if (!isTcp) {
  message('wild.*', (data, ctx) => ({ data, channel: addressOf(ctx) })); // on Redis a name, or a glob with `wildcards`
  message('who', () => process.pid);
}
if (isNats) {
  message('rest.>', (data, ctx) => ({ data, channel: addressOf(ctx) }));
  add(MessagePattern('who.queued', { queue: 'workers' }), () => process.pid);
  message('record', (data) => new NatsRecordBuilder(data).setHeaders({ 'x-reply': '1' }).build());
}

// Events, recorded; the request "received" tells them in the order they were run
const record = (name) => (data, ctx) => {
  received.push({ name, data, pattern: addressOf(ctx), metadata: metadataOf(ctx) });
};
event('event', record('event'));
event({ ev: 'nested', z: { q: 'r' } }, record('nested'));
event('event.two', record('first'));
event('event.two', record('second'));
event('event.failing', thrower(() => new Error('first fails')));
event('event.failing', record('second'));
message('event.message', record('message'));
message('received', () => received.splice(0));
event('event.value', () => 'value');
event('event.values', () => 'a');
event('event.values', () => 'b');
event('event.stream', () => of('a', 'b'));
if (!isTcp) event('wild.events.*', record('wild'));
if (isTcp) {
  message('cut', (_data, ctx) => ctx.getSocketRef().netSocket.destroy());
  message('write', ({ bytes }, ctx) => {
    ctx.getSocketRef().netSocket.write(bytes); // bytes of the spec's making in the middle of the stream of frames
    return NEVER;
  });
}
add(MessagePattern('only.redis', Transport.REDIS), () => 'redis');
decorateClass(Service, Controller());

class Root {}
decorateClass(Root, Module({ controllers: [Service] }));

const app = await NestFactory.createMicroservice(Root, { ...chosen, logger });
await app.listen();
endWithParent(() => app.close());
say(`ready ${isTcp ? app.unwrap().address().port : 0}`);
