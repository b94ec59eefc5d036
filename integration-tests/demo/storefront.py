"""Storefront: one thread per connection, calls inventory, pricing and Redis, one after the other.

usage: storefront.py PORT INVENTORY_PORT PRICING_PORT REDIS_PORT

Nothing of an incoming request but the product's number reaches the calls it causes: no header is
passed on. The reply says what was really called, so that a test can compare traces with it.
"""

import http.client
import json
import os
import queue
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Where it listens, and where those are whom it calls.
BIND = os.environ.get("DEMO_BIND", "127.0.0.1")
OTHERS = os.environ.get("DEMO_OTHERS", "127.0.0.1")


class Redis:
    """One connection that speaks as much RESP as the demo needs."""

    def __init__(self, port):
        self.socket = socket.create_connection((OTHERS, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb")

    def call(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))
        line = self.replies.readline()
        if not line:
            raise ConnectionError("redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$" and rest != b"-1":
            return self.replies.read(int(rest) + 2)[:-2].decode()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        return None if kind == b"$" else rest.decode()


class Pool:
    """Connections outlive the request that opened them and move between threads."""

    def __init__(self, connect):
        self.connect = connect
        self.idle = queue.LifoQueue()
        self.local = threading.local()

    def __enter__(self):
        try:
            connection = self.idle.get_nowait()
        except queue.Empty:
            connection = self.connect()
        self.local.connection = connection
        return connection

    def __exit__(self, error, *_):
        # A connection on which something failed is not used again.
        if error is None:
            self.idle.put(self.local.connection)
        self.local.connection = None


def http_pool(port):
    return Pool(lambda: http.client.HTTPConnection(OTHERS, port, timeout=10))


class Storefront(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "storefront"
    disable_nagle_algorithm = True

    def do_GET(self):
        name, _, number = self.path.partition("?")[0].lstrip("/").partition("/")
        if name != "product" or not number.isdigit():
            return self.reply(400, {"service": "storefront", "path": self.path, "calls": []})
        calls = []
        status = self.product(int(number), calls)
        self.reply(status, {"service": "storefront", "path": self.path, "status": status,
                            "pid": os.getpid(), "tid": threading.get_native_id(), "calls": calls})

    def product(self, number, calls):
        """Makes the calls of one product page, in this order, and gives the page's status."""
        self.redis(calls, "GET", f"session:{number}")
        stock = self.get(calls, INVENTORY, f"/stock/{number}")
        status = 200 if stock == 200 else 404
        if status == 200 and self.get(calls, PRICING, f"/price/{number}") != 200:
            status = 502
        if status == 200 and number % 2 == 0:
            self.get(calls, INVENTORY, f"/shipping/{number}")
        self.redis(calls, "INCR", f"views:{number}")
        return status

    def get(self, calls, pool, path):
        with pool as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            calls.append(json.loads(response.read()))
            return response.status

    def redis(self, calls, *words):
        with REDIS as connection:
            connection.call(*words)
        calls.append({"service": "redis", "operation": words[0], "key": words[1]})

    def reply(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        # A peer that goes away in the middle is no news.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    port, inventory_port, pricing_port, redis_port = map(int, sys.argv[1:5])
    INVENTORY = http_pool(inventory_port)
    PRICING = http_pool(pricing_port)
    REDIS = Pool(lambda: Redis(redis_port))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    Server((BIND, port), Storefront).serve_forever()
