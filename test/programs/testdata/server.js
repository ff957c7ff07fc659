// Serves what test/programs/servers_test.go asks for: data in memory, timers, a request
// that waits, and work for the collector and another thread.
'use strict';
const { createHash } = require('crypto');
const { createServer } = require('http');
const { Worker } = require('worker_threads');

const values = new Map();
const names = [];
const waiting = [];
let ticks = 0;
setInterval(() => ticks++, 10);

function digest() {
  const hash = createHash('sha256');
  for (let i = 0; i < values.size; i++) hash.update(values.get('key ' + i) + '\n');
  return hash.digest('hex');
}

// A thread that lives over the capture and says what it is asked to, doubled.
const echo = new Worker(`
  const { parentPort } = require('worker_threads');
  parentPort.on('message', (n) => parentPort.postMessage(2 * n));
`, { eval: true });

function work(answer) {
  let garbage = [];
  for (let i = 0; i < 200000; i++) garbage.push({ i, text: 'x' + i });
  garbage = null;
  global.gc();
  echo.once('message', (n) => answer(n === 42 ? digest() : 'the thread said ' + n));
  echo.postMessage(21);
}

const handlers = {
  '/load': (q, answer) => {
    for (let i = 0; i < Number(q.get('n')); i++) values.set('key ' + i, String(i * i));
    answer('loaded');
  },
  '/digest': (q, answer) => answer(digest()),
  '/add': (q, answer) => { names.push(q.get('name')); answer('added'); },
  '/names': (q, answer) => answer(names.join(' ')),
  '/ticks': (q, answer) => answer(String(ticks)),
  '/wait': (q, answer) => waiting.push(answer),
  '/release': (q, answer) => { waiting.splice(0).forEach((w) => w('released')); answer('done'); },
  '/work': (q, answer) => work(answer),
};

createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const handle = handlers[url.pathname];
  if (!handle) {
    response.writeHead(404).end();
    return;
  }
  handle(url.searchParams, (text) => response.end(text));
}).listen(8080, '0.0.0.0');
