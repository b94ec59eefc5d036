// Inventory: one thread, one event loop, several requests in the air at a time. Each request asks
// Redis over a small pool of raw sockets and calls pricing over a small pool of HTTP connections.
//
// usage: node inventory.js PORT PRICING_PORT REDIS_PORT
//
// No header of a request reaches the calls it causes. The reply says what was really called.
'use strict';
const http = require('node:http');
const net = require('node:net');

// Where it listens, and where those are whom it calls.
const BIND = process.env.DEMO_BIND ?? '127.0.0.1';
const OTHERS = process.env.DEMO_OTHERS ?? '127.0.0.1';
const POOL_SIZE = 16;
const [port, pricingPort, redisPort] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: POOL_SIZE });

// One RESP connection with at most one command in the air; replies are `$`, `:` and `+` only.
class Redis {
  constructor() {
    this.buffer = '';
    this.socket = net.connect({ host: OTHERS, port: redisPort, noDelay: true });
    this.socket.on('data', (bytes) => this.feed(bytes.toString('latin1')));
    this.socket.on('error', (error) => this.fail(error));
    this.socket.on('close', () => this.fail(new Error('redis closed the connection')));
  }

  call(words) {
    let command = `*${words.length}\r\n`;
    for (const word of words) command += `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.socket.write(command);
    });
  }

  feed(text) {
    this.buffer += text;
    const end = this.buffer.indexOf('\r\n');
    if (end < 0) return;
    let total = end + 2;
    if (this.buffer[0] === '$' && !this.buffer.startsWith('$-1')) {
      total += Number(this.buffer.slice(1, end)) + 2;
    }
    if (this.buffer.length < total) return;
    const reply = this.buffer.slice(0, total);
    this.buffer = this.buffer.slice(total);
    const { resolve } = this.waiting;
    this.waiting = undefined;
    resolve(reply);
  }

  fail(error) {
    this.broken = true;
    this.waiting?.reject(error);
    this.waiting = undefined;
  }
}

// Whoever finds no idle connection and the pool full waits in line.
const idle = [];
const line = [];
let open = 0;

async function redis(...words) {
  let connection = idle.pop();
  if (!connection && open < POOL_SIZE) {
    open += 1;
    connection = new Redis();
  }
  connection ??= await new Promise((resolve) => line.push(resolve));
  try {
    await connection.call(words);
  } finally {
    if (connection.broken) {
      open -= 1;
      connection = new Redis();
      open += 1;
    }
    const next = line.shift();
    if (next) next(connection);
    else idle.push(connection);
  }
  return { service: 'redis', operation: words[0], key: words[1] };
}

function pricing(path) {
  return new Promise((resolve, reject) => {
    http.get({ host: OTHERS, port: pricingPort, path, agent }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text) => { body += text; });
      response.on('end', () => resolve(JSON.parse(body)));
    }).on('error', reject);
  });
}

// Every seventh product is unknown; the base price is asked for only after Redis has answered.
async function stock(number) {
  const calls = [await redis('GET', `stock:${number}`)];
  if (number % 7 === 0) return { status: 404, calls };
  calls.push(await pricing(`/base/${number}`));
  return { status: 200, calls };
}

// Both calls are in the air at the same time.
async function shipping(number) {
  const calls = await Promise.all([
    redis('HGET', `shipping:${number}`, 'days'),
    pricing(`/base/${number}`),
  ]);
  return { status: 200, calls };
}

const routes = { stock, shipping };

async function handle(request, response) {
  const [, name, number] = request.url.split('?')[0].split('/');
  let result = { status: 400, calls: [] };
  if (Object.hasOwn(routes, name) && /^\d+$/.test(number ?? '')) {
    try {
      result = await routes[name](Number(number));
    } catch (error) {
      result = { status: 503, calls: [], error: String(error) };
    }
  }
  const { status, calls, error } = result;
  const body = JSON.stringify({
    service: 'inventory', path: request.url, status, pid: process.pid, tid: process.pid, calls, error,
  });
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
}

const server = http.createServer(handle);
// A pooled connection must not be closed under the storefront's feet.
server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.listen(port, BIND, 128);
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
