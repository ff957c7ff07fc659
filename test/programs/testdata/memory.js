// Makes and checks objects of all sizes for ever, in and outside of the collected heap, and
// says "ok" after each round in which all was right.
'use strict';
const { createHash, randomBytes } = require('crypto');

const digest = (data) => createHash('sha256').update(data).digest('hex');
const key = (i) => 'key ' + i;

function wrong(what) {
  console.log('wrong: ' + what);
  process.exit(3);
}

function zeroes(what, bytes) {
  for (const b of bytes) if (b !== 0) wrong(what);
  bytes.fill(0x5a);
}

const kept = new Float64Array(1 << 20).map((_, i) => i * 3);
const text = new Map();
for (let i = 0; i < 50000; i++) text.set(key(i), { value: 'value ' + i });
const slots = [];
const wasm = new WebAssembly.Memory({ initial: 1, maximum: 4096 });

function round(n) {
  for (let i = 0; i < 200; i++) {
    if (slots[i] && digest(slots[i].data) !== slots[i].digest) wrong('a buffer');
    if (Math.random() < 0.7) {
      const data = randomBytes([50, 500, 5000, 200000][Math.floor(Math.random() * 4)]);
      slots[i] = { data, digest: digest(data) };
    }
  }
  zeroes('a new array', new Uint8Array(1 << 20));
  zeroes('a new buffer', Buffer.alloc(300000));
  const at = 65536 * wasm.grow(1);
  zeroes("WebAssembly's memory", new Uint8Array(wasm.buffer, at, 65536));
  let garbage = [];
  for (let i = 0; i < 50000; i++) garbage.push({ i, list: [i, i + 1] });
  if (garbage.some((g, i) => g.i !== i || g.list[1] !== i + 1)) wrong('an object');
  garbage = null;
  if (kept.some((v, i) => v !== i * 3)) wrong('the array that is kept');
  for (let i = 0; i < 50000; i++) if (text.get(key(i)).value !== 'value ' + i) wrong('the map');
  global.gc();
  console.log('ok ' + n);
  setTimeout(round, 10, n + 1);
}

round(0);
