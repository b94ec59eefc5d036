"""Blocking threads: a WSGI application for gunicorn's gthread workers, with urllib3's pools.

Ports come in the environment: STOCK, PRICE, SHIP, REDIS. What it calls for a request is in
README.md; a thread makes all calls itself, one after the other.
"""

import os
import queue
import socket

import urllib3

STOCK, PRICE, SHIP, REDIS = (int(os.environ[name]) for name in ("STOCK", "PRICE", "SHIP", "REDIS"))
http = urllib3.PoolManager(num_pools=4, maxsize=64)
idle = queue.LifoQueue()


def post(port, path, body):
    http.request("POST", f"http://127.0.0.1:{port}{path}", body=body)


def redis_get(key):
    try:
        connection = idle.get_nowait()
    except queue.Empty:
        connection = socket.create_connection(("127.0.0.1", REDIS))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
    if connection.recv(64) != b"$-1\r\n":
        raise ConnectionError("redis says something else than nil")
    idle.put(connection)


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    post(STOCK, "/stock", body)
    redis_get(b"key:" + body)
    post(PRICE, "/price", body)
    if int(body) % 2 == 0:
        post(SHIP, "/ship", body)
    start_response("200 OK", [("Content-Length", "3"), ("Content-Type", "text/plain")])
    return [b"ok\n"]
