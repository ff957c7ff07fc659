"""A search server that takes seconds to boot: it builds its whole index first.

GET / answers a query and says which life of the program answers it.
"""

import gc
import json
import os
import signal
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from corpus import Corpus
from index import Index

PORT = 8000
DOCUMENTS = 27000
VOCABULARY = 30000
SEED = 20260101


class Service:
    """The index and what is only true of this life of the program."""

    def __init__(self):
        began = time.monotonic()
        self.boot_id = uuid.uuid4().hex
        self.counter = 0
        self.lock = threading.Lock()  # guards counter
        corpus = Corpus(DOCUMENTS, VOCABULARY, SEED)
        self.index = Index(corpus)
        words = corpus.vocabulary
        self.expression = f"{words[300]} & ({words[550]} | {words[700]}) & ~{words[4000]}"
        self.query = self.index.query(self.expression)
        self.checksum = self.index.checksum()
        # The index lives as long as the program: the collector need not look at it again.
        gc.freeze()
        self.boot_seconds = round(time.monotonic() - began, 3)

    def answer(self) -> dict:
        with self.lock:
            self.counter += 1
            counter = self.counter
        matches, best = self.index.search(self.query)
        return {
            "boot_id": self.boot_id,
            "counter": counter,
            "documents": len(self.index.texts),
            "words": len(self.index.postings),
            "rss_mb": resident_mb(),
            "boot_seconds": self.boot_seconds,
            "answer": {"query": self.expression, "matches": matches, "best": best, "checksum": self.checksum},
        }


def resident_mb() -> float:
    with open("/proc/self/statm") as f:
        return round(int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/":
            self.send_error(404)
            return
        body = json.dumps(self.server.service.answer()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Says nothing: thousands of requests would be thousands of lines."""


class Server(ThreadingHTTPServer):
    def __init__(self, service: Service):
        self.service = service
        super().__init__(("0.0.0.0", PORT), Handler)

    def handle_error(self, request, client_address):
        """A client that went away, or a connection that a restore closed, is no error of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main():
    # As a container's first process it gets no signal that it does not ask for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service = Service()
    Server(service).serve_forever()


if __name__ == "__main__":
    main()
