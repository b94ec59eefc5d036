"""Both ends of connections on which each request asks for a number of its own.

`numbers.py answer ADDRESS PORT` answers each request with its path. `numbers.py ask ADDRESS PORT`
reads a line of standard input at a time, `MANNER FIRST COUNT FILLING`: asks for COUNT numbers from
FIRST on, over connections that it keeps, with FILLING bytes of header in each request; once each
answer has come, and is the right one, it writes how many there were.
"""

import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

CONNECTIONS = 8
# Numbers that are asked for before the first answer is read.
TOGETHER = 8
# No divisor of a request's length, so that writes end anywhere.
PIECE = 37
FASTOPEN_QUEUE = 64
# Seconds after which an answer will not come any more.
LIMIT = 60


class Connection:
    def __init__(self, sock):
        self.sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = sock.makefile("rb")

    def ask(self, numbers):
        self.sock.sendall(requests(numbers))
        self.await_answers(numbers)

    def await_answers(self, numbers):
        for number in numbers:
            length = 0
            while (line := self.answers.readline().lower()) != b"\r\n":
                if not line:
                    raise EOFError(f"no answer to {number}")
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = self.answers.read(length)
            if body != path(number):
                raise ValueError(f"{number} was answered {body}")


def path(number):
    return b"/n/%d" % number


def requests(numbers):
    return b"".join(
        b"GET %s HTTP/1.1\r\nHost: numbers\r\nFilling: %s\r\n\r\n" % (path(number), filling)
        for number in numbers
    )


def one_by_one(index, numbers):
    for number in numbers:
        kept[index].ask([number])


def together(index, numbers):
    for first in range(0, len(numbers), TOGETHER):
        kept[index].ask(numbers[first : first + TOGETHER])


def in_pieces(index, numbers):
    for first in range(0, len(numbers), TOGETHER):
        several = numbers[first : first + TOGETHER]
        text = requests(several)
        for start in range(0, len(text), PIECE):
            kept[index].sock.sendall(text[start : start + PIECE])
        kept[index].await_answers(several)


def with_the_first_packet(_index, numbers, flags=socket.MSG_FASTOPEN):
    """A connection for each three numbers; its first packet carries the first of them."""
    for first in range(0, len(numbers), 3):
        sock = socket.socket()
        sock.sendto(requests(numbers[first : first + 1]), flags, address)
        sock.setblocking(True)
        connection = Connection(sock)
        connection.await_answers(numbers[first : first + 1])
        for number in numbers[first + 1 : first + 3]:
            connection.ask([number])
        connection.answers.close()
        sock.close()


def with_the_first_packet_at_once(index, numbers):
    """The same; the call that sends it does not wait for the connection."""
    with_the_first_packet(index, numbers, socket.MSG_FASTOPEN | socket.MSG_DONTWAIT)


def ask():
    global filling
    pool = ThreadPoolExecutor(CONNECTIONS)
    for line in sys.stdin:
        signal.alarm(LIMIT)
        manner, first, count, filled = line.split()
        first, count, filling = int(first), int(count), b"f" * int(filled)
        if not manner.startswith("with_the_first") and not kept:
            kept.extend(Connection(socket.create_connection(address)) for _ in range(CONNECTIONS))

        def part(index):
            globals()[manner](index, range(first + index, first + count, CONNECTIONS))

        list(pool.map(part, range(CONNECTIONS)))
        signal.alarm(0)
        print(count, flush=True)


def answer():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, FASTOPEN_QUEUE)
    listener.bind(address)
    listener.listen(FASTOPEN_QUEUE)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def serve(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = b""
    while piece := sock.recv(65536):
        waiting += piece
        while b"\r\n\r\n" in waiting:
            head, waiting = waiting.split(b"\r\n\r\n", 1)
            asked = head.split(b" ", 2)[1]
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(asked), asked))
    sock.close()


kept = []
filling = b""
address = (sys.argv[2], int(sys.argv[3]))
{"ask": ask, "answer": answer}[sys.argv[1]]()
