// What the peers share: options from the command line, a logger off stdout, an end with the parent.
import 'reflect-metadata';
import { Transport } from '@nestjs/microservices';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

/** Options as JSON in the first argument. */
export function options() {
  return JSON.parse(process.argv[2] ?? '{}');
}

/** stdout carries the protocol with the spec, so Nest logs to stderr. */
export const logger = {
  log() {},
  error(...texts) {
    process.stderr.write(`error ${texts.map(String).join(' ')}\n`);
  },
  warn(...texts) {
    process.stderr.write(`warn ${texts.map(String).join(' ')}\n`);
  },
};

/** The package of NATS' client, loaded where it is used. */
export const natsPackage = () => createRequire(import.meta.url)('@nats-io/transport-node');

const read = (file) => file && readFileSync(file);

/** Node's TLS options from `{ca, cert, key}` given as file names. */
export function tlsOptions({ ca, cert, key, ...rest }) {
  return { ...rest, ca: read(ca), cert: read(cert), key: read(key) };
}

const natsTlsOptions = ({ ca, cert, key, ...rest }) => ({ ...rest, caFile: ca, certFile: cert, keyFile: key });

/** The NATS client's options: `creds` is a file's name, `nkey` a seed. */
function natsOptions({ creds, nkey, tls, ...rest }) {
  const { credsAuthenticator, nkeyAuthenticator } = natsPackage();
  const authenticator = creds
    ? credsAuthenticator(readFileSync(creds))
    : nkey && nkeyAuthenticator(new TextEncoder().encode(nkey));
  return {
    ...rest,
    ...(authenticator && { authenticator }),
    ...(tls && { tls: natsTlsOptions(tls) }),
  };
}

/** Nest's `{transport, options}` from ours: its own options beside `transport`, "tcp" when there is none. */
export function transportOptions({ transport = 'tcp', tls, ...rest }) {
  switch (transport) {
    case 'nats':
      return { transport: Transport.NATS, options: natsOptions({ tls, ...rest }) };
    case 'redis':
      return { transport: Transport.REDIS, options: { host: '127.0.0.1', ...rest, ...(tls && { tls: tlsOptions(tls) }) } };
    default:
      return {
        transport: Transport.TCP,
        options: { host: '127.0.0.1', port: 0, ...rest, ...(tls && { tlsOptions: tlsOptions(tls) }) },
      };
  }
}

/** NATS headers as `[name, [value, ...]]`, or null. */
export const headerList = (headers) => headers && headers.keys().map((name) => [name, headers.values(name)]);

/** Ends with the parent: its end of our stdin closes, whatever becomes of it. */
export function endWithParent(close) {
  const end = async () => {
    await close();
    process.exit(0);
  };
  process.once('SIGTERM', end);
  process.stdin.once('end', end);
  process.stdin.resume();
}

export function say(value) {
  process.stdout.write(`${typeof value === 'string' ? value : JSON.stringify(value)}\n`);
}

/** Decorates by hand what TypeScript would: a class, its constructor's or a method's parameters, a method. */
export function decorateClass(target, ...decorators) {
  Reflect.decorate(decorators, target);
}

export function decorateMethod(target, name, ...decorators) {
  const descriptor = Object.getOwnPropertyDescriptor(target.prototype, name);
  for (const decorate of decorators) decorate(target.prototype, name, descriptor);
  Object.defineProperty(target.prototype, name, descriptor);
}

/** Asks Nest to pass the given parameter decorators' values, in order. */
export function decorateParameters(target, name, ...decorators) {
  decorators.forEach((decorate, index) => decorate(name ? target.prototype : target, name, index));
}
