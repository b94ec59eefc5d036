/* Makes one system call many times and prints what one costs: ns, the best of five rounds.
 *
 *   cost getppid|tcp_write|tcp_read|futex_wake|epoll_wait CALLS
 *
 * Waits for a line on stdin before it starts, so that a tracer can be attached to it, and
 * prints its process id first. tcp_write and tcp_read time one side of 128 bytes sent over a
 * loopback connection whose both ends are here. futex_wake lets two threads wake each other in turn:
 * one of its calls is a wake-up, the wait that it ends, and the switch between them. epoll_wait finds
 * nothing and does not wait.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 5, BYTES = 128, BATCH = 64 };

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void connect_pair(int *client, int *server) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, len) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&address, &len))
        fail("listen");
    *client = socket(AF_INET, SOCK_STREAM, 0);
    if (*client < 0 || connect(*client, (struct sockaddr *)&address, len))
        fail("connect");
    *server = accept(listener, NULL, NULL);
    if (*server < 0 || setsockopt(*client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
        fail("accept");
    close(listener);
}

static double getppid_ns(long calls) {
    uint64_t start = now_ns();
    for (long i = 0; i < calls; i++)
        syscall(SYS_getppid);
    return (double)(now_ns() - start) / (double)calls;
}

static double epoll_ns(long calls) {
    int set = epoll_create1(EPOLL_CLOEXEC);
    if (set < 0)
        fail("epoll_create1");
    struct epoll_event event;
    uint64_t start = now_ns();
    for (long i = 0; i < calls; i++)
        if (epoll_wait(set, &event, 1, 0) != 0)
            fail("epoll_wait");
    uint64_t spent = now_ns() - start;
    close(set);
    return (double)spent / (double)calls;
}

/* Writes a batch, then reads it, and counts the time of one of the two. */
static double tcp_ns(int client, int server, long calls, int time_writes) {
    static char bytes[BYTES];
    uint64_t spent = 0;
    for (long done = 0; done < calls; done += BATCH) {
        uint64_t start = now_ns();
        for (int i = 0; i < BATCH; i++)
            if (write(client, bytes, BYTES) != BYTES)
                fail("write");
        uint64_t between = now_ns();
        for (int i = 0; i < BATCH; i++)
            if (read(server, bytes, BYTES) != BYTES)
                fail("read");
        spent += time_writes ? between - start : now_ns() - between;
    }
    return (double)spent / (double)calls;
}

static atomic_uint turn;

static void pass_turn(unsigned to) {
    atomic_store(&turn, to);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* As a condition variable of glibc waits. */
static void await_turn(unsigned wanted) {
    unsigned now;
    while ((now = atomic_load(&turn)) != wanted)
        syscall(SYS_futex, &turn, FUTEX_WAIT_BITSET_PRIVATE, now, NULL, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void *second(void *calls) {
    for (long i = 0; i < *(long *)calls / 2; i++) {
        await_turn(1);
        pass_turn(0);
    }
    return NULL;
}

/* On one processor: to wake a sleeping one takes many times as long as all else, and varies. */
static double futex_ns(long calls) {
    pthread_t thread;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one))
        fail("sched_setaffinity");
    turn = 0;
    if (pthread_create(&thread, NULL, second, &calls))
        fail("pthread_create");
    uint64_t start = now_ns();
    for (long i = 0; i < calls / 2; i++) {
        pass_turn(1);
        await_turn(0);
    }
    uint64_t spent = now_ns() - start;
    pthread_join(thread, NULL);
    return (double)spent / (double)calls;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return fprintf(stderr, "usage: cost getppid|tcp_write|tcp_read|futex_wake|epoll_wait CALLS\n"), 2;
    long calls = atol(argv[2]) / BATCH * BATCH;
    int client = -1, server = -1;
    int tcp = strncmp(argv[1], "tcp_", 4) == 0;
    if (tcp)
        connect_pair(&client, &server);
    printf("%d\n", (int)getpid());
    fflush(stdout);
    char line[8];
    if (!fgets(line, sizeof line, stdin))
        return 1;
    double best = 1e18;
    for (int round = 0; round < ROUNDS; round++) {
        double ns = tcp                               ? tcp_ns(client, server, calls, !strcmp(argv[1], "tcp_write"))
                    : !strcmp(argv[1], "futex_wake") ? futex_ns(calls)
                    : !strcmp(argv[1], "epoll_wait") ? epoll_ns(calls)
                                                     : getppid_ns(calls);
        if (ns < best)
            best = ns;
    }
    printf("%.1f\n", best);
    return 0;
}
