// A search server that builds its index when it boots: 120,000 documents, each a small object.
"use strict";
const http = require("http");

let seed = 1;
const next = (n) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) % n;
const words = Array.from({ length: 20000 }, (_, i) => "w" + (i * 7919).toString(36));
const documents = [];
const index = new Map();
for (let id = 0; id < 120000; id++) {
  const text = Array.from({ length: 12 }, () => words[Math.min(next(20000), next(20000))]);
  documents.push({ id, title: text.slice(0, 3).join(" "), text });
  for (const w of text) {
    let list = index.get(w);
    if (!list) index.set(w, (list = []));
    list.push(id);
  }
}

const server = http.createServer((_, res) => {
  const hits = index.get(words[5]) || [];
  res.end(JSON.stringify({ matches: hits.length, first: documents[hits[0]].title }) + "\n");
});
process.on("SIGTERM", () => process.exit(0));
server.listen(8000, "0.0.0.0");
