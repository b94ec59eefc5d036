// One event loop in Node: an http.Agent that keeps connections, and one connection to Redis on which
// commands follow each other without waiting, as its usual clients do.
//
// usage: node node.js PORT STOCK PRICE SHIP REDIS
'use strict';
const http = require('node:http');
const net = require('node:net');

const [port, stock, price, ship, redisPort] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true });

const waiting = [];
const redis = net.connect({ host: '127.0.0.1', port: redisPort, noDelay: true });
redis.on('data', (bytes) => {
  // Nobody stores anything: every reply is nil.
  for (let count = bytes.length / '$-1\r\n'.length; count > 0; count -= 1) waiting.shift()();
});

function redisGet(key) {
  redis.write(`*2\r\n$3\r\nGET\r\n$${key.length}\r\n${key}\r\n`);
  return new Promise((resolve) => waiting.push(resolve));
}

function post(to, path, body) {
  return new Promise((resolve, reject) => {
    const headers = { 'Content-Length': body.length };
    const options = { host: '127.0.0.1', port: to, path, method: 'POST', agent, headers };
    const request = http.request(options, (response) => {
      response.on('end', resolve);
      response.resume();
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function serve(body) {
  await post(stock, '/stock', body);
  await Promise.all([post(price, '/price', body), redisGet(`key:${body}`)]);
  if (Number(body) % 2 === 0) await post(ship, '/ship', body);
}

http.createServer((request, response) => {
  let body = '';
  request.on('data', (bytes) => { body += bytes; });
  request.on('end', () => serve(body).then(
    () => response.end('ok\n'),
    (error) => { response.statusCode = 502; response.end(`${error}\n`); },
  ));
}).listen({ host: '127.0.0.1', port, backlog: 1024 });
