/* Makes one kind of system call on one kind of socket and says exactly what happened.
 *
 * usage: calls CALL FAMILY PROTO CASE       calls list
 *
 * `list` prints every combination that makes sense, one a line. The other form talks to a peer (a
 * process it forks; the two agree over pipes, which no tracer of sockets sees) and prints JSON
 * lines: {"state": "ready"}, one line per message moved or call failed, {"state": "done"}. After
 * "ready" it waits for a line on stdin, so that a tracer can attach, and after "done" for another,
 * so that its sockets still exist while the tracer looks. "ready" comes before the connection is
 * made; in the case `old` after, with bytes moved in both directions already.
 *
 * Exit status: 0 fine, 2 wrong arguments, 77 not possible here (no IPv6), else something is broken. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LIMIT_SECONDS = 30,
    SHOWN_BYTES = 64,
    LARGE = 100 * 1000, /* more than the tracer's 64 KiB */
    LARGE_UDP = 65000,
    MANY_PARTS = 40,   /* more than the tracer follows */
    MANY_ENTRIES = 20, /* likewise */
    MAX_PARTS = 64,
    MAX_BYTES = 1 << 20,
    NOT_POSSIBLE = 77,
};

enum kind { READ, READV, RECVFROM, RECVMSG, RECVMMSG, WRITE, WRITEV, SENDTO, SENDMSG, SENDMMSG, SENDFILE, SPLICE };
static const char *const kinds[] = {"read",  "readv",  "recvfrom", "recvmsg", "recvmmsg", "write",
                                    "writev", "sendto", "sendmsg",  "sendmmsg", "sendfile", "splice"};
static const char *const families[] = {"inet", "inet6", "v4mapped", "unix"};
static const char *const protos[] = {"tcp", "udp"};
static const char *const cases[] = {"plain", "accepted", "iovecs", "iovecs_many", "partial",     "eagain",
                                    "error", "zero",     "peek",   "trunc",       "unmapped",    "large",
                                    "mmsg",  "mmsg_many", "dup",   "fork",        "threads",     "old",
                                    "unconnected", "last",  "half",   "urgent",     "elsewhere"};
#define COUNT(list) (sizeof(list) / sizeof *(list))

/* What the arguments say. */
static enum kind kind;
static const char *family, *scenario;
static bool stream, is_unix;

/* The connection: offsets are those of the next byte in each direction. */
static int sock = -1;
static bool unseen; /* the tracer is not there yet */
static bool explicit_name; /* peer_name is not who the socket is connected to */
static struct {
    uint64_t sent, received;
} *offsets; /* shared with forked children */

static void die(const char *what) {
    fprintf(stderr, "calls: %s: %s\n", what, strerror(errno));
    exit(1);
}

static bool is(const char *name) { return strcmp(scenario, name) == 0; }
static bool writes(enum kind k) { return k >= WRITE; }
static bool takes_vectors(enum kind k) {
    return k == READV || k == RECVMSG || k == RECVMMSG || k == WRITEV || k == SENDMSG || k == SENDMMSG;
}
static bool takes_flags(enum kind k) {
    return k == RECVFROM || k == RECVMSG || k == RECVMMSG || k == SENDTO || k == SENDMSG || k == SENDMMSG;
}
static bool takes_many(enum kind k) { return k == RECVMMSG || k == SENDMMSG; }

/* ---- The peer: does what single letters on a pipe tell it. ---- */

struct order {
    char what; /* 's'end n bytes, 'u'rgent byte, 'r'eceive n bytes, 'c'lose, reset ('x') */
    uint32_t n;
};
struct name {
    socklen_t len;
    struct sockaddr_storage address;
};

static int orders[2], answers[2];
static pid_t peer;

static void must_read(int fd, void *to, size_t len) {
    for (size_t have = 0; have < len;) {
        ssize_t n = read(fd, (char *)to + have, len - have);
        if (n == 0) exit(fd == orders[0] ? 0 : 1);
        if (n < 0) die("pipe");
        have += (size_t)n;
    }
}

static void must_write(int fd, const void *from, size_t len) {
    if (write(fd, from, len) != (ssize_t)len) die("pipe");
}

/* The bytes of both directions, by offset; 251 is prime, so that no shift goes unnoticed. */
static unsigned char byte_at(uint64_t offset, bool from_peer) {
    return (unsigned char)((offset % 251) ^ (from_peer ? 0x80 : 0));
}

static int new_socket(bool for_peer) {
    bool v4 = strcmp(family, for_peer ? "v4mapped" : "inet") == 0 || strcmp(family, "inet") == 0;
    int domain = is_unix ? AF_UNIX : v4 ? AF_INET : AF_INET6;
    int fd = socket(domain, (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    return fd;
}

/* Binds to the loopback address of the family and gives the name. */
static struct name bind_here(int fd) {
    struct name name = {.len = sizeof name.address};
    int domain;
    socklen_t len = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0) die("SO_DOMAIN");
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (strcmp(family, "v4mapped") == 0) inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6.sin6_addr);
    int result = domain == AF_INET    ? bind(fd, (struct sockaddr *)&v4, sizeof v4)
                 : domain == AF_INET6 ? bind(fd, (struct sockaddr *)&v6, sizeof v6)
                                      : bind(fd, (struct sockaddr *)&un, sizeof un.sun_family);
    if (result < 0 && errno == EADDRNOTAVAIL) _exit(NOT_POSSIBLE);
    if (result < 0) die("bind");
    if (getsockname(fd, (struct sockaddr *)&name.address, &name.len) < 0) die("getsockname");
    return name;
}

/* Gives the name as a socket of the other family must write it. */
static struct name translate(struct name name, bool to_mapped) {
    if (strcmp(family, "v4mapped") != 0) return name;
    struct name other = {0};
    if (to_mapped) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&other.address;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = ((struct sockaddr_in *)&name.address)->sin_port;
        inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6->sin6_addr);
        other.len = sizeof *v6;
    } else {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&other.address;
        v4->sin_family = AF_INET;
        v4->sin_port = ((struct sockaddr_in6 *)&name.address)->sin6_port;
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        other.len = sizeof *v4;
    }
    return other;
}

static void peer_obeys(int fd) {
    static unsigned char bytes[MAX_BYTES];
    uint64_t sent = 0;
    for (;;) {
        struct order order;
        must_read(orders[0], &order, sizeof order);
        if (order.what == 's') {
            for (uint32_t i = 0; i < order.n; i++) bytes[i] = byte_at(sent + i, true);
            for (uint32_t done = 0; done < order.n || order.n == 0;) {
                ssize_t n = send(fd, bytes + done, order.n - done, MSG_NOSIGNAL);
                if (n < 0) die("peer sends");
                done += (uint32_t)n;
                if (!stream) break;
            }
            sent += order.n;
        } else if (order.what == 'u') {
            if (send(fd, "!", 1, MSG_OOB) != 1) die("peer sends urgent byte");
            sent += 1;
        } else if (order.what == 'r') {
            for (uint32_t have = 0; have < order.n;) {
                ssize_t n = recv(fd, bytes, sizeof bytes, stream ? 0 : MSG_DONTWAIT);
                if (n <= 0) break;
                have += (uint32_t)n;
            }
        } else {
            struct linger now = {.l_onoff = 1};
            if (order.what == 'x') setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            close(fd);
        }
        must_write(answers[1], &order.what, 1);
    }
}

static void peer_lives(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(orders[1]);
    close(answers[0]);
    struct name theirs;
    int fd = new_socket(true);
    if (is("accepted")) {
        must_read(orders[0], &theirs, sizeof theirs);
        theirs = translate(theirs, false);
        if (connect(fd, (struct sockaddr *)&theirs.address, theirs.len) < 0) die("peer connects");
    } else {
        struct name own = bind_here(fd);
        if (stream && listen(fd, 1) < 0) die("peer listens");
        must_write(answers[1], &own, sizeof own);
        must_read(orders[0], &theirs, sizeof theirs);
        if (stream) {
            fd = accept(fd, NULL, NULL);
        } else {
            theirs = translate(theirs, false);
            connect(fd, (struct sockaddr *)&theirs.address, theirs.len);
        }
        if (fd < 0) die("peer accepts");
    }
    int on = 1;
    if (stream && !is_unix) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    must_write(answers[1], "+", 1);
    peer_obeys(fd);
}

static void tell(char what, uint32_t n) {
    struct order order;
    memset(&order, 0, sizeof order);
    order.what = what;
    order.n = n;
    must_write(orders[1], &order, sizeof order);
}

static void told(void) {
    char answer;
    must_read(answers[0], &answer, 1);
}

static void tell_and_wait(char what, uint32_t n) {
    tell(what, n);
    told();
}

/* ---- The connection. ---- */

static struct name peer_name;

static void prepare_connection(void) {
    if (pipe2(orders, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0) die("pipe");
    peer = fork();
    if (peer < 0) die("fork");
    if (peer == 0) peer_lives();
    close(orders[0]);
    close(answers[1]);
    orders[0] = -1;
}

static void open_connection(void) {
    sock = new_socket(false);
    int bytes = LARGE * 4;
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    struct name own;
    memset(&own, 0, sizeof own);
    if (is("accepted")) {
        own = bind_here(sock);
        if (listen(sock, 1) < 0) die("listen");
        must_write(orders[1], &own, sizeof own);
        int listener = sock;
        sock = accept(listener, NULL, NULL);
        if (sock < 0) die("accept");
        close(listener);
    } else {
        must_read(answers[0], &peer_name, sizeof peer_name);
        peer_name = translate(peer_name, true);
        if (!stream) own = bind_here(sock);
        if (!is("unconnected") && connect(sock, (struct sockaddr *)&peer_name.address, peer_name.len) < 0)
            die("connect");
        must_write(orders[1], &own, sizeof own);
    }
    told();
}

/* Waits until the peer's bytes have arrived: n of a stream, or any datagram. */
static void wait_for_bytes(int n) {
    for (int tries = 0; tries < 5000; tries++) {
        struct pollfd ready = {.fd = sock, .events = POLLIN};
        int have = 0;
        if (poll(&ready, 1, 1) == 1 && (!stream || (ioctl(sock, FIONREAD, &have) == 0 && have >= n))) return;
        usleep(1000);
    }
    errno = ETIMEDOUT;
    die("waiting for the peer's bytes");
}

/* ---- One call, and what it says of it. ---- */

struct attempt {
    int fd, flags;
    struct iovec iov[MAX_PARTS]; /* `parts` of them for each entry */
    unsigned parts, entries;
    struct name *to;     /* address for sends and receives without a connection */
    const char *unmapped; /* bytes from here on cannot be touched */
};

static size_t part_len(const struct iovec *part) { return part->iov_len; }

static size_t asked(const struct attempt *a, unsigned entry) {
    size_t sum = 0;
    for (unsigned i = 0; i < a->parts; i++) sum += part_len(&a->iov[entry * a->parts + i]);
    return sum;
}

/* How much of a part can be touched. */
static size_t touchable(const struct attempt *a, const struct iovec *part) {
    const char *start = part->iov_base;
    if (!a->unmapped || start >= a->unmapped + 4096 || start + part->iov_len <= a->unmapped) return part->iov_len;
    return start >= a->unmapped ? 0 : (size_t)(a->unmapped - start);
}

static void fill(struct attempt *a) {
    uint64_t offset = offsets->sent;
    for (unsigned i = 0; i < a->entries * a->parts; i++) {
        size_t len = touchable(a, &a->iov[i]);
        for (size_t at = 0; at < len; at++)
            ((unsigned char *)a->iov[i].iov_base)[at] = byte_at(offset + at, false);
        offset += a->iov[i].iov_len;
    }
}

static void print_name(const char *key, bool local) {
    struct name name = {.len = sizeof name.address};
    struct sockaddr *address = (struct sockaddr *)&name.address;
    char text[INET6_ADDRSTRLEN] = "";
    int port = 0;
    int result = local ? getsockname(sock, address, &name.len) : getpeername(sock, address, &name.len);
    if (explicit_name && !local) name = peer_name;
    if (result < 0 && !local) name = peer_name; /* not connected, or not any more */
    if (address->sa_family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)address;
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        port = ntohs(v4->sin_port);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        port = ntohs(v6->sin6_port);
    }
    printf(", \"%s\": \"%s\", \"%s_port\": %d", key, text, key, port);
}

/* Prints the first bytes and a hash (FNV-1a, 64 bits) of all that the message has in the buffers. */
static void print_payload(const struct attempt *a, unsigned entry, ssize_t moved) {
    size_t left = moved > 0 ? (size_t)moved : 0, shown = 0, have = 0;
    uint64_t hash = 0xcbf29ce484222325u;
    /* TCP throws away what MSG_TRUNC reads. */
    if (stream && !is_unix && (a->flags & MSG_TRUNC)) left = 0;
    printf(", \"payload\": \"");
    for (unsigned i = 0; i < a->parts && left > 0; i++) {
        const struct iovec *part = &a->iov[entry * a->parts + i];
        size_t len = touchable(a, part) < left ? touchable(a, part) : left;
        for (size_t at = 0; at < len; at++, shown++) {
            unsigned char byte = ((unsigned char *)part->iov_base)[at];
            if (shown < SHOWN_BYTES) printf("%02x", byte);
            hash = (hash ^ byte) * 0x100000001b3u;
        }
        have += len;
        left -= len;
        if (len < part->iov_len) break;
    }
    printf("\", \"payload_len\": %zu, \"hash\": \"%016lx\"", have, hash);
}

static void say(const struct attempt *a, unsigned entry, ssize_t ret, int error, int msg_flags, bool written) {
    uint64_t *offset = written ? &offsets->sent : &offsets->received;
    struct stat file = {0};
    fstat(sock, &file);
    printf("{\"pid\": %d, \"tid\": %ld, \"call\": \"%s\", \"dir\": \"%s\", \"fd\": %d, \"entry\": %u, "
           "\"ret\": %zd, \"errno\": %d, \"asked\": %zu, \"flags\": %d, \"msg_flags\": %d, \"seen\": %s, "
           "\"inode\": %lu, \"offset\": ",
           getpid(), syscall(SYS_gettid), kinds[kind], written ? "write" : "read", a->fd, entry, ret, error,
           asked(a, entry), a->flags, msg_flags, unseen ? "false" : "true", file.st_ino);
    stream ? (void)printf("%lu", *offset) : (void)printf("null");
    print_name("local", true);
    print_name("peer", false);
    print_payload(a, entry, ret);
    printf("}\n");
    fflush(stdout);
    if (ret > 0 && !(a->flags & MSG_PEEK)) *offset += (uint64_t)ret;
}

static ssize_t many(struct attempt *a, struct mmsghdr *messages) {
    unsigned len = a->entries;
    return kind == RECVMMSG ? recvmmsg(a->fd, messages, len, a->flags, NULL)
                            : sendmmsg(a->fd, messages, len, a->flags);
}

static ssize_t one(struct attempt *a, struct msghdr *message) {
    void *base = a->iov[0].iov_base;
    size_t len = a->iov[0].iov_len;
    socklen_t name_len = message->msg_namelen;
    switch (kind) {
    case READ: return read(a->fd, base, len);
    case READV: return readv(a->fd, a->iov, (int)a->parts);
    case RECVFROM: return recvfrom(a->fd, base, len, a->flags, message->msg_name, a->to ? &name_len : NULL);
    case RECVMSG: return recvmsg(a->fd, message, a->flags);
    case WRITE: return write(a->fd, base, len);
    case WRITEV: return writev(a->fd, a->iov, (int)a->parts);
    case SENDTO: return sendto(a->fd, base, len, a->flags, message->msg_name, name_len);
    case SENDMSG: return sendmsg(a->fd, message, a->flags);
    default: abort();
    }
}

/* Makes the call and says what came of it; gives what it returned. */
static ssize_t transfer(struct attempt *a) {
    struct mmsghdr messages[MANY_ENTRIES];
    memset(messages, 0, sizeof messages);
    for (unsigned i = 0; i < a->entries; i++) {
        struct msghdr *message = &messages[i].msg_hdr;
        message->msg_iov = a->iov + i * a->parts;
        message->msg_iovlen = a->parts;
        message->msg_name = a->to ? &a->to->address : NULL;
        message->msg_namelen = a->to ? a->to->len : 0;
    }
    if (writes(kind)) fill(a);
    ssize_t ret = takes_many(kind) ? many(a, messages) : one(a, &messages[0].msg_hdr);
    int error = ret < 0 ? errno : 0;
    if (ret < 0 || !takes_many(kind)) {
        say(a, 0, ret, error, messages[0].msg_hdr.msg_flags, writes(kind));
    } else {
        for (unsigned i = 0; i < (unsigned)ret; i++)
            say(a, i, messages[i].msg_len, 0, messages[i].msg_hdr.msg_flags, writes(kind));
    }
    errno = error;
    return ret;
}

static char buffer[MAX_BYTES];

static struct attempt whole(size_t len) {
    struct attempt a = {.fd = sock, .parts = 1, .entries = 1};
    a.iov[0] = (struct iovec){.iov_base = buffer, .iov_len = len};
    if (is("unconnected")) a.to = &peer_name;
    return a;
}

static struct attempt in_parts(const size_t *lens, unsigned parts, unsigned entries) {
    struct attempt a = whole(0);
    char *base = buffer;
    a.parts = parts;
    a.entries = entries;
    for (unsigned i = 0; i < parts * entries; i++) {
        a.iov[i] = (struct iovec){.iov_base = base, .iov_len = lens[i % parts]};
        base += lens[i % parts] + 1; /* never side by side */
    }
    return a;
}

/* Makes the call once, the peer's bytes being there for reads. `there` may differ from `len`. */
static ssize_t round_trip(struct attempt a, uint32_t there) {
    if (!writes(kind)) {
        tell_and_wait('s', there);
        wait_for_bytes((int)there);
    }
    return transfer(&a);
}

static ssize_t once(uint32_t len) { return round_trip(whole(len), len); }

/* Reads the peer's end. */
static void once_nothing(void) {
    struct pollfd ended = {.fd = sock, .events = POLLIN};
    struct attempt a = whole(10);
    if (poll(&ended, 1, 5000) != 1) die("waiting for the end");
    transfer(&a);
}

/* Makes one call of another kind. */
static void once_as(enum kind other, uint32_t len) {
    enum kind usual = kind;
    kind = other;
    once(len);
    kind = usual;
}

/* ---- The cases. ---- */

static void plain(void) {
    once(100);
    once(1);
    once(1000);
}

static void iovecs(void) {
    size_t lens[] = {0, 10, 0, 3, 100, 0, 1, 0};
    round_trip(in_parts(lens, COUNT(lens), 1), 114);
    /* The last parts stay empty when less is there. */
    size_t more[] = {20, 0, 30, 50};
    round_trip(in_parts(more, COUNT(more), 1), writes(kind) ? 100 : 35);
}

static void iovecs_many(void) {
    size_t lens[MANY_PARTS];
    for (unsigned i = 0; i < MANY_PARTS; i++) lens[i] = 10 + i % 3;
    struct attempt a = in_parts(lens, MANY_PARTS, 1);
    round_trip(a, (uint32_t)asked(&a, 0));
}

static void not_blocking(void) {
    int few = 4096;
    if (fcntl(sock, F_SETFL, O_NONBLOCK) < 0) die("O_NONBLOCK");
    if (writes(kind)) setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &few, sizeof few);
}

static void partial(void) {
    if (!writes(kind)) {
        round_trip(whole(1000), 100);
        round_trip(whole(1000), 999);
        if (stream) {
            /* And a message in several reads. */
            round_trip(whole(10), 100);
            struct attempt rest = whole(1000);
            transfer(&rest);
        }
        return;
    }
    not_blocking();
    uint64_t end = offsets->sent + MAX_BYTES / 2;
    while (offsets->sent < end) {
        uint64_t before = offsets->sent;
        struct attempt a = whole(end - offsets->sent);
        if (transfer(&a) < 0) {
            struct pollfd room = {.fd = sock, .events = POLLOUT};
            if (errno != EAGAIN || poll(&room, 1, 5000) != 1) die("partial");
        }
        tell_and_wait('r', (uint32_t)(offsets->sent - before));
    }
}

static void eagain(void) {
    not_blocking();
    struct attempt a = whole(writes(kind) ? 50000 : 100);
    if (!writes(kind)) {
        transfer(&a);
        once(100);
        transfer(&a);
        return;
    }
    if (!stream) a.iov[0].iov_len = 500;
    for (int tries = 0; tries < 2000 && transfer(&a) >= 0; tries++) {}
    if (errno != EAGAIN) die("eagain");
}

static void error(void) {
    struct attempt a = whole(100);
    a.fd = 999;
    transfer(&a);
    once(100);
    a.fd = sock;
    /* Bytes that it did not read make a unix socket's peer end with a reset. */
    if (stream && is_unix) once_as(WRITE, 1);
    if (stream && writes(kind)) {
        tell_and_wait('x', 0);
    } else if (stream) {
        struct pollfd closed = {.fd = sock, .events = POLLIN};
        tell_and_wait('x', 0);
        poll(&closed, 1, 5000);
    } else {
        tell_and_wait('c', 0);
        /* Its refusal is what the next call on the socket gets. A unix socket's peer is just gone. */
        if (!writes(kind)) once_as(SENDTO, 1);
        if (!writes(kind)) fcntl(sock, F_SETFL, O_NONBLOCK);
    }
    transfer(&a);
    if (writes(kind)) transfer(&a);
}

static void zero(void) {
    struct attempt nothing = whole(0);
    if (writes(kind)) {
        transfer(&nothing);
        once(10);
        transfer(&nothing);
        return;
    }
    if (!stream) {
        /* An empty datagram is a message, not an end. */
        once(10);
        round_trip(whole(10), 0);
        once(10);
        return;
    }
    tell_and_wait('s', 10);
    wait_for_bytes(10);
    transfer(&nothing); /* returns 0 too, and is no end either */
    struct attempt a = whole(10);
    transfer(&a);
    tell_and_wait('c', 0);
    transfer(&a);
    transfer(&a);
}

static void peek(void) {
    struct attempt a = whole(100);
    tell_and_wait('s', 50);
    wait_for_bytes(50);
    a.flags = MSG_PEEK;
    transfer(&a);
    transfer(&a);
    a.flags = 0;
    transfer(&a);
}

static void truncated(void) {
    struct attempt a = whole(100);
    a.flags = MSG_TRUNC;
    round_trip(a, 500);
    if (stream && !is_unix) {
        a.iov[0].iov_len = 1000;
        transfer(&a);
    }
    a.flags = 0;
    a.iov[0].iov_len = stream ? 1000 : 100;
    round_trip(a, 500);
    once(10);
}

/* Buffers that reach into a page that is not there. Some calls fail, some move what they can. */
static void unmapped(void) {
    enum { MAPPED = 32 * 4096 };
    char *pages = mmap(NULL, MAPPED + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || munmap(pages + MAPPED, 4096) < 0) die("mmap");
    struct attempt a = whole(300);
    a.unmapped = pages + MAPPED;
    a.iov[0].iov_base = pages + MAPPED - 100;
    /* What is there fits into the part that can be touched. */
    if (!writes(kind)) round_trip(a, 50);
    round_trip(a, 300);
    if (takes_vectors(kind)) {
        struct attempt b = in_parts((size_t[]){50, 300}, 2, 1);
        b.unmapped = a.unmapped;
        b.iov[1].iov_base = a.iov[0].iov_base;
        round_trip(b, 350);
    }
    if (writes(kind) && stream) {
        /* The kernel copies in pieces: those before the missing page are sent. */
        a.iov[0] = (struct iovec){.iov_base = pages, .iov_len = MAPPED + 300};
        fcntl(sock, F_SETFL, O_NONBLOCK);
        transfer(&a);
        tell_and_wait('r', (uint32_t)offsets->sent);
    }
    /* What the calls above left of the stream. */
    int left = 0;
    if (!writes(kind) && stream && ioctl(sock, FIONREAD, &left) == 0 && left > 0) {
        struct attempt rest = whole(2000);
        transfer(&rest);
    }
    once(10);
}

static void large(void) {
    uint32_t len = stream || is_unix ? LARGE : LARGE_UDP;
    if (!writes(kind)) {
        once(len);
    } else {
        if (stream) tell('r', len);
        once(len);
        if (stream) told();
    }
    once(10);
}

static void mmsg(unsigned entries) {
    size_t lens[] = {20, 30};
    struct attempt a = in_parts(lens, 2, entries);
    a.flags = MSG_DONTWAIT;
    if (!writes(kind)) {
        /* One less than it could take. */
        for (unsigned i = 1; i + 1 < entries; i++) tell_and_wait('s', stream ? 50 : 50 - i);
        if (stream) wait_for_bytes((int)(50 * (entries - 2)));
        tell_and_wait('s', 50);
        wait_for_bytes((int)(50 * (entries - 1)));
    }
    transfer(&a);
    once(10);
}

static void on_dup(void) {
    once(100);
    int other = fcntl(sock, F_DUPFD_CLOEXEC, 100), old = sock;
    if (other < 0) die("dup");
    sock = other;
    once(100);
    close(old);
    once(100);
}

static void after_fork(void) {
    once(100);
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        once(100);
        exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) die("child");
    once(100);
}

static void *thread_calls(void *nothing) {
    prctl(PR_SET_NAME, "calls-thread");
    once(100);
    return nothing;
}

static void in_threads(void) {
    once(100);
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, thread_calls, NULL) != 0) die("thread");
        pthread_join(thread, NULL);
    }
    once(100);
}

/* The peer's last bytes and its end are there before the first read. */
static void last_bytes(void) {
    struct attempt a = whole(100);
    tell_and_wait('s', 50);
    tell_and_wait('c', 0);
    wait_for_bytes(50);
    a.iov[0].iov_len = 20;
    transfer(&a);
    a.iov[0].iov_len = 100;
    transfer(&a);
    transfer(&a);
}

/* Reads after its own end. */
static void half_closed(void) {
    once_as(WRITE, 10);
    if (shutdown(sock, SHUT_WR) < 0) die("shutdown");
    once(20);
    tell_and_wait('c', 0);
    once_nothing();
}

/* An urgent byte is not part of the stream. */
static void urgent(void) {
    once(20);
    tell_and_wait('u', 1);
    struct pollfd there = {.fd = sock, .events = POLLPRI};
    if (poll(&there, 1, 5000) != 1) die("urgent");
    struct attempt a = whole(1);
    a.flags = MSG_OOB;
    transfer(&a);
    /* The stream goes on behind the byte, which has a sequence number. */
    a = whole(30);
    tell_and_wait('s', 30);
    there.events = POLLIN;
    if (poll(&there, 1, 5000) != 1) die("behind the urgent byte");
    transfer(&a);
}

/* A connected socket that sends to somebody else. */
static void elsewhere(void) {
    struct name connected = peer_name, other;
    int fd = new_socket(false);
    other = bind_here(fd);
    once(10);
    struct attempt a = whole(20);
    a.to = &other;
    peer_name = other;
    explicit_name = true;
    transfer(&a);
    peer_name = connected;
    explicit_name = false;
    once(30);
    close(fd);
}

static void move_files(void) {
    /* Each is said with the buffers that hold what moved, which the call itself never showed. */
    enum { LEN = 5000 };
    struct attempt a = whole(LEN);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) die("pipe");
    fill(&a);
    if (kind == SENDFILE) {
        int file = memfd_create("calls", MFD_CLOEXEC);
        if (file < 0 || write(file, buffer, LEN) != LEN) die("memfd");
        off_t from = 0;
        ssize_t ret = sendfile(sock, file, &from, LEN);
        say(&a, 0, ret, ret < 0 ? errno : 0, 0, true);
        return;
    }
    must_write(ends[1], buffer, LEN);
    ssize_t ret = splice(ends[0], NULL, sock, NULL, LEN, 0);
    say(&a, 0, ret, ret < 0 ? errno : 0, 0, true);
    tell_and_wait('s', LEN);
    wait_for_bytes(LEN);
    for (size_t i = 0; i < LEN; i++) buffer[i] = (char)byte_at(offsets->received + i, true);
    ret = splice(sock, NULL, ends[1], NULL, LEN, 0);
    say(&a, 0, ret, ret < 0 ? errno : 0, 0, false);
}

/* Moves bytes that nobody watches: both directions start above 0 afterwards. */
static void unwatched(void) {
    unseen = true;
    once_as(READ, 33);
    once_as(WRITE, 44);
    unseen = false;
}

static void run_case(void) {
    if (kind == SENDFILE || kind == SPLICE) move_files();
    else if (is("iovecs")) iovecs();
    else if (is("iovecs_many")) iovecs_many();
    else if (is("partial")) partial();
    else if (is("eagain")) eagain();
    else if (is("error")) error();
    else if (is("zero")) zero();
    else if (is("peek")) peek();
    else if (is("trunc")) truncated();
    else if (is("unmapped")) unmapped();
    else if (is("large")) large();
    else if (is("mmsg")) mmsg(4);
    else if (is("mmsg_many")) mmsg(MANY_ENTRIES);
    else if (is("dup")) on_dup();
    else if (is("fork")) after_fork();
    else if (is("threads")) in_threads();
    else if (is("last")) last_bytes();
    else if (is("half")) half_closed();
    else if (is("urgent")) urgent();
    else if (is("elsewhere")) elsewhere();
    else plain();
}

/* Whether a combination makes sense. */
static bool possible(void) {
    if (kind == SENDFILE || kind == SPLICE) return stream && is("plain");
    if (is("accepted")) return stream;
    if (is("iovecs") || is("iovecs_many")) return takes_vectors(kind);
    if (is("partial")) return !writes(kind) || stream;
    /* The loopback device takes any number of UDP datagrams. */
    if (is("eagain")) return !writes(kind) || stream || is_unix;
    if (is("peek") || is("trunc")) return takes_flags(kind) && !writes(kind);
    if (is("mmsg") || is("mmsg_many")) return takes_many(kind);
    if (is("last") || is("half")) return stream && !writes(kind);
    if (is("urgent")) return stream && !is_unix && takes_flags(kind) && !writes(kind);
    if (is("elsewhere")) return !stream && !is_unix && takes_flags(kind) && writes(kind);
    if (is("unconnected")) return takes_flags(kind) && !stream && !is_unix;
    return true;
}

static void list(void) {
    for (size_t k = 0; k < COUNT(kinds); k++)
        for (size_t f = 0; f < COUNT(families); f++)
            for (size_t p = 0; p < COUNT(protos); p++)
                for (size_t c = 0; c < COUNT(cases); c++) {
                    kind = (enum kind)k;
                    is_unix = strcmp(families[f], "unix") == 0;
                    stream = p == 0;
                    scenario = cases[c];
                    if (possible()) printf("%s %s %s %s\n", kinds[k], families[f], protos[p], cases[c]);
                }
}

static size_t find(const char *word, const char *const *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(word, words[i]) == 0) return i;
    fprintf(stderr, "calls: what is %s?\n", word);
    exit(2);
}

static void wait_for_line(const char *state) {
    printf("{\"state\": \"%s\", \"subject\": %d, \"peer\": %d}\n", state, getpid(), peer);
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') {}
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        list();
        return 0;
    }
    if (argc != 5) {
        fprintf(stderr, "usage: calls CALL FAMILY PROTO CASE | calls list\n");
        return 2;
    }
    kind = (enum kind)find(argv[1], kinds, COUNT(kinds));
    family = families[find(argv[2], families, COUNT(families))];
    stream = find(argv[3], protos, COUNT(protos)) == 0;
    scenario = cases[find(argv[4], cases, COUNT(cases))];
    is_unix = strcmp(family, "unix") == 0;
    if (!possible()) {
        fprintf(stderr, "calls: that combination makes no sense\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    offsets = mmap(NULL, sizeof *offsets, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (offsets == MAP_FAILED) die("mmap");
    prepare_connection();
    if (is("old")) {
        open_connection();
        unwatched();
    }
    wait_for_line("ready");
    alarm(LIMIT_SECONDS);
    if (!is("old")) open_connection();
    run_case();
    alarm(0);
    wait_for_line("done");
    close(orders[1]);
    int status;
    if (waitpid(peer, &status, 0) != peer) die("peer");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
