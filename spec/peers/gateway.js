// A Nest 12 HTTP gateway on fastify: POST /orders/charge -> {cmd:"charge"} over TCP -> the reply as JSON.
//
//   node gateway.js '{"port":0,"service":{"port":3001}}'   prints "ready PORT"
import { Body, Controller, Inject, Module, Post } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientsModule, Transport } from '@nestjs/microservices';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { timeout } from 'rxjs';
import {
  decorateClass, decorateMethod, decorateParameters, endWithParent, logger, options, say,
} from './common.js';

class Orders {
  constructor(billing) {
    this.billing = billing;
  }

  charge(body) {
    return this.billing.send({ cmd: 'charge' }, body).pipe(timeout(5000));
  }
}
decorateParameters(Orders, undefined, Inject('BILLING_SERVICE'));
decorateParameters(Orders, 'charge', Body());
decorateMethod(Orders, 'charge', Post('charge'));
decorateClass(Orders, Controller('orders'));

class Root {}
const { port = 0, host = '127.0.0.1', service = {} } = options();
decorateClass(Root, Module({
  imports: [
    ClientsModule.register([
      { name: 'BILLING_SERVICE', transport: Transport.TCP, options: { host: '127.0.0.1', ...service } },
    ]),
  ],
  controllers: [Orders],
}));

const app = await NestFactory.create(Root, new FastifyAdapter(), { logger });
await app.listen(port, host);
endWithParent(() => app.close());
say(`ready ${app.getHttpServer().address().port}`);
