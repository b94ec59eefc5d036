#!/usr/bin/env python3
"""Records the fixtures of http1 and redis from real servers, through a proxy that
notes every read. Needs nginx, redis-server, redis-cli and curl; loopback only.

A fixture is one connection. Each line is one read: `>` from client to server, `<`
back, bytes escaped as in a Python or Rust byte string."""
import http.server, os, shutil, socket, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))


def escape(data):
    names = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}
    return "".join(names.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in data)


class Proxy:
    """One connection to `port`, written down."""

    def __init__(self, port):
        self.reads, self.lock, self.target = [], threading.Lock(), port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        client, _ = self.listener.accept()
        server = socket.create_connection(("127.0.0.1", self.target))
        back = threading.Thread(target=self.pump, args=(server, client, "<"), daemon=True)
        back.start()
        self.pump(client, server, ">")
        back.join()

    def pump(self, source, sink, mark):
        try:
            while data := source.recv(65536):
                with self.lock:
                    self.reads.append((mark, data))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def save(protocol, name, reads, note):
    os.makedirs(f"{HERE}/{protocol}", exist_ok=True)
    with open(f"{HERE}/{protocol}/{name}.txt", "w") as out:
        out.write(f"# {note}\n")
        for mark, data in reads:
            out.write(f'{mark} "{escape(data)}"\n')


def send(port, pieces, wait=0.15):
    """Sends each piece, reads what comes back, and gives the notes."""
    proxy = Proxy(port)
    sock = socket.create_connection(("127.0.0.1", proxy.port))
    for piece in pieces:
        if callable(piece):
            piece()
        else:
            sock.sendall(piece)
        time.sleep(wait)
    sock.close()
    time.sleep(wait)
    return proxy.reads


def later(reads, skip):
    """The same connection, seen from byte `skip` of each direction on."""
    left, kept = {">": skip, "<": skip}, []
    for mark, data in reads:
        cut = min(left[mark], len(data))
        left[mark] -= cut
        if data[cut:]:
            kept.append((mark, data[cut:]))
    return kept


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, *headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(201, b"got " + body)

    def do_GET(self):
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Trailer", "X-Sum")
            self.end_headers()
            for chunk in (b"hello ", b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 300):
                self.wfile.write(b"%x;ext=1\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\nX-Sum: 42\r\n\r\n")
        elif self.path == "/until-close":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"no length\n" * 20)
            self.close_connection = True
        elif self.path == "/upgrade":
            self.send_response(101)
            self.send_header("Upgrade", "echo")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.write(b"\x81\x05hello")
            self.close_connection = True
        elif self.path == "/fail":
            self.answer(503, b"later", ("Retry-After", "1"))
        else:
            self.answer(200, b"ok")

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"\x16\x03\x01tunnel")
        self.close_connection = True


def record_http():
    root = tempfile.mkdtemp()
    os.makedirs(f"{root}/www")
    os.chmod(root, 0o755)
    with open(f"{root}/www/hello.txt", "w") as page:
        page.write("hello, world\n")
    with open(f"{root}/www/big.txt", "w") as page:
        page.write("GET is a word, HTTP/1.1 is another\n" * 300)
    conf = f"""daemon off; pid {root}/pid; error_log {root}/err; events {{}}
http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; server {{ listen 127.0.0.1:18080; root {root}/www; }} }}"""
    with open(f"{root}/conf", "w") as out:
        out.write(conf)
    nginx = subprocess.Popen(["nginx", "-c", f"{root}/conf", "-e", f"{root}/err"])
    python = http.server.ThreadingHTTPServer(("127.0.0.1", 18081), Handler)
    threading.Thread(target=python.serve_forever, daemon=True).start()
    time.sleep(1)
    try:
        http_nginx()
        http_python()
    finally:
        nginx.terminate()
        nginx.wait()
        python.shutdown()
        shutil.rmtree(root)


def http_nginx():
    proxy = Proxy(18080)
    subprocess.run(["curl", "-s", "-o", "/dev/null", "-H", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                    "-H", "X-Request-Id: 7f1c0f0e-52f7-4f9b", f"http://127.0.0.1:{proxy.port}/hello.txt?q=1&sig=secret"], check=True)
    time.sleep(0.2)
    save("http1", "one_exchange", proxy.reads, "curl to nginx 1.22.1")
    host = b"Host: shop.example\r\n"
    batch = [b"GET /hello.txt HTTP/1.1\r\n" + host + b"\r\n"
             b"HEAD /big.txt HTTP/1.1\r\n" + host + b"\r\n"
             b"GET /big.txt HTTP/1.1\r\n" + host + b"Range: bytes=0-99\r\n\r\n"
             b"GET /hello.txt HTTP/1.1\r\n" + host + b"If-None-Match: *\r\n\r\n"
             b"GET /hello.txt HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"]
    reads = send(18080, batch)
    save("http1", "pipelined", reads, "five requests in one write, HEAD and 304 among them; nginx 1.22.1")
    error = [b"GET /nothing HTTP/1.1\r\n" + host + b"\r\n", b"POST /hello.txt HTTP/1.1\r\n" + host + b"Content-Length: 3\r\n\r\nabc",
             b"BREW /pot HTTP/1.1\r\n" + host + b"\r\n"]
    save("http1", "error_reply", send(18080, error), "404, 405 and a method that nginx 1.22.1 does not know")
    long = [b"GET /big.txt HTTP/1.1\r\n" + host + b"\r\n", b"GET /hello.txt HTTP/1.1\r\n" + host + b"\r\n",
            b"HEAD /hello.txt HTTP/1.1\r\n" + host + b"\r\n", b"GET /nothing HTTP/1.1\r\n" + host + b"\r\n"]
    save("http1", "mid_stream", later(send(18080, long), 20), "nginx 1.22.1, the first 20 bytes of each direction missed")
    old = [b"GET /hello.txt HTTP/1.0\r\n\r\n"]
    save("http1", "http_1_0", send(18080, old), "HTTP/1.0 without a Host; nginx 1.22.1")
    bare = [b"GET /hello.txt HTTP/1.1\nHost: shop.example\nX-Long: one\n two\n\n"]
    save("http1", "bare_lf", send(18080, bare), "bare LF and a folded header; nginx 1.22.1")


def http_python():
    host = b"Host: 127.0.0.1:18081\r\n"
    post = b"POST /orders HTTP/1.1\r\n" + host + b"Content-Length: 11\r\n\r\nhello world"
    save("http1", "split", send(18081, [post[:9], post[9:30], post[30:70], post[70:]] + [b"GET / HTTP/1.1\r\n" + host + b"\r\n"]),
         "a request split over writes; Python's http.server")
    get = [b"GET /chunked HTTP/1.1\r\n" + host + b"\r\n", b"GET / HTTP/1.1\r\n" + host + b"\r\n"]
    save("http1", "chunked", send(18081, get), "chunks with extensions and a trailer, then a plain answer; Python's http.server")
    for name in ("until-close", "upgrade"):
        get = [b"GET /%s HTTP/1.1\r\n" % name.encode() + host + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"]
        save("http1", name.replace("-", "_"), send(18081, get), "Python's http.server")
    save("http1", "connect", send(18081, [b"CONNECT db.example:443 HTTP/1.1\r\nHost: db.example:443\r\n\r\n", b"\x16\x03\x01tls"]),
         "a tunnel; Python's http.server")
    save("http1", "server_error", send(18081, [b"GET /fail HTTP/1.1\r\n" + host + b"\r\n"]), "503; Python's http.server")
    expect = [b"POST /orders HTTP/1.1\r\n" + host + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", b"hello", b"GET / HTTP/1.1\r\n" + host + b"\r\n"]
    save("http1", "expect_continue", send(18081, expect), "100 before 201; Python's http.server")


def words(*parts):
    parts = [part if isinstance(part, bytes) else part.encode() for part in parts]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def record_redis():
    root = tempfile.mkdtemp()
    server = subprocess.Popen(["redis-server", "--port", "16399", "--bind", "127.0.0.1", "--save", "", "--dir", root,
                               "--enable-debug-command", "local"],
                              stdout=subprocess.DEVNULL)
    time.sleep(1)
    try:
        redis_plain()
        redis_modes()
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(root)


def redis_plain():
    note = "redis-server 7.0.15"
    proxy = Proxy(16399)
    subprocess.run(["redis-cli", "-p", str(proxy.port), "SET", "password", "hunter2"], check=True, stdout=subprocess.DEVNULL)
    time.sleep(0.2)
    save("redis", "one_exchange", proxy.reads, "redis-cli to " + note)
    batch = b"".join([words("SELECT", "3"), words("SET", "k", "v"), words("get", "k"), words("INCR", "n"), words("DEL", "k", "n"),
                      words("RPUSH", "l", "a", "b", "get"), words("LRANGE", "l", "0", "-1"), words("CONFIG", "GET", "maxmemory"),
                      words("GET", "missing")])
    save("redis", "pipelined", send(16399, [batch]), "nine commands in one write; " + note)
    errors = [words("SET", "s", "v"), words("LPUSH", "s", "x"), words("NOSUCH", "x"), words("EVAL", "return redis.error_reply('my own')", "0"),
              words("SELECT", "9999"), words("GET", "s")]
    save("redis", "error_reply", send(16399, errors), note)
    like_resp = b"x\r\n$3\r\nfoo\r\n*1\r\n$4\r\nPING\r\n+OK\r\n"
    whole = words("SET", "bin", like_resp) + words("GET", "bin") + words("SET", "big", b"y" * 3000) + words("GET", "big")
    save("redis", "split", send(16399, [whole[:3], whole[3:17], whole[17:40], whole[40:120], whole[120:2000], whole[2000:]]),
         "commands split over writes, with values that look like RESP; " + note)
    inline = [b"PING\r\n", b"set inline value\r\n", b"exists inline\r\n"]
    save("redis", "inline", send(16399, inline), "inline commands; " + note)
    many = [words("RPUSH", "many", *[f"item-{n}" for n in range(40)]), words("LRANGE", "many", "0", "-1"), words("STRLEN", "s"),
            words("GET", "s"), words("HSET", "h", "f", "v"), words("HGETALL", "h")]
    save("redis", "mid_stream", later(send(16399, many), 30), note + ", the first 30 bytes of each direction missed")


def redis_modes():
    note = "redis-server 7.0.15"

    def publish(channel):
        return lambda: subprocess.run(["redis-cli", "-p", "16399", "PUBLISH", channel, "news"], check=True, stdout=subprocess.DEVNULL)

    pubsub = [words("SUBSCRIBE", "a", "b", "c"), publish("b"), words("PSUBSCRIBE", "x*"), publish("xy"), words("PING"),
              words("UNSUBSCRIBE", "a", "b", "c"), words("PUNSUBSCRIBE"), words("GET", "s")]
    save("redis", "pubsub", send(16399, pubsub), "RESP2 subscriptions; " + note)
    tracked = lambda: subprocess.run(["redis-cli", "-p", "16399", "SET", "s", "w"], check=True, stdout=subprocess.DEVNULL)
    resp3 = [words("HELLO", "3"), words("CLIENT", "TRACKING", "ON"), words("GET", "s"), tracked, words("HSET", "h3", "f", "1", "g", "2"),
             words("HGETALL", "h3"), words("SADD", "set", "m"), words("SMEMBERS", "set"), words("ZADD", "z", "1.5", "m"),
             words("ZSCORE", "z", "m"), words("GET", "missing"), words("DEBUG", "PROTOCOL", "attrib"), words("SUBSCRIBE", "a", "b"),
             publish("a"), words("GET", "s")]
    save("redis", "resp3", send(16399, resp3), "RESP3: maps, sets, doubles, nulls, pushes; " + note)
    multi = [words("MULTI"), words("SET", "t", "1"), words("SET", "u", "2"), words("EXEC"),
             words("MULTI") + words("INCR", "t") + words("GET", "u") + words("EXEC"), words("MULTI"), words("LPUSH"), words("EXEC"),
             words("MULTI"), words("DISCARD")]
    save("redis", "transaction", send(16399, multi), note)
    reply = [words("CLIENT", "REPLY", "OFF"), words("SET", "q", "1"), words("SET", "q", "2"), words("CLIENT", "REPLY", "ON"), words("GET", "q"),
             words("CLIENT", "REPLY", "SKIP") + words("SET", "q", "3") + words("GET", "q")]
    save("redis", "client_reply", send(16399, reply), note)
    busy = lambda: subprocess.run(["redis-cli", "-p", "16399", "GET", "s"], check=True, stdout=subprocess.DEVNULL)
    save("redis", "monitor", send(16399, [words("PING"), words("MONITOR"), busy]), note)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["http", "redis"]
    if "http" in wanted:
        record_http()
    if "redis" in wanted:
        record_redis()
