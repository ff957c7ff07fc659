"""Follows a feed over TCP. Here the feed is its own; elsewhere it is a database's.

After a restore the connection is closed, and the program cannot know for how long it
slept: on SIGHUP it connects anew and takes what it missed.
"""
import signal
import socket
import socketserver
import threading
import time


class Feed(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            self.wfile.write(b"%d\n" % time.time())
            time.sleep(0.1)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request, client_address):
        print("a reader left", flush=True)


server = Server(("127.0.0.1", 9000), Feed)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("booted", flush=True)
stale = False


def resync(*_):
    # Only a note: whatever the program is doing, it is in the middle of it.
    global stale
    stale = True


signal.signal(signal.SIGHUP, resync)
last = 0
while True:
    with socket.create_connection(server.server_address) as feed:
        print("connected", flush=True)
        for line in feed.makefile("rb"):
            last = int(line)
    print("the feed ended at", last, flush=True)
    while not stale:
        time.sleep(0.1)
    stale = False
    print("resynced", flush=True)
