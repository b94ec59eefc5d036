"""Answers /STATUS/... with that status on connections that stay open; /exit ends it at once."""

import os
import socket
import sys
import threading


def serve(connection):
    waiting = b""
    while True:
        while b"\r\n\r\n" not in waiting:
            piece = connection.recv(65536)
            if not piece:
                return
            waiting += piece
        head, waiting = waiting.split(b"\r\n\r\n", 1)
        path = head.split(b" ", 2)[1]
        if path == b"/exit":
            os._exit(0)
        status = path.split(b"/")[1]
        answer = b"HTTP/1.1 %s Said\r\nContent-Length: %d\r\n\r\n%s"
        connection.sendall(answer % (status, len(path), path))


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
