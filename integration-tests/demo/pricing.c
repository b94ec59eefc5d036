/* Pricing: one thread per connection, each with its own connection to Redis, blocking calls only.
 *
 * usage: pricing PORT REDIS_PORT
 *
 * GET /base/N and GET /price/N each ask Redis once; every 11th /price is a 500. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_LIMIT = 8192, PATH_LIMIT = 256, STACK_BYTES = 256 * 1024 };

static int redis_port;

/* The address that a variable of the environment names, else that of this host. */
static struct sockaddr_in address_of(const char *variable, int port) {
    const char *host = getenv(variable);
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = inet_addr(host ? host : "127.0.0.1")};
}

static int send_all(int fd, const char *bytes, size_t len) {
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0) return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Sends one command and reads its whole reply: `$-1`, `$len data` or a single line. */
static int redis_get(int *redis, const char *key) {
    char text[REQUEST_LIMIT];
    if (*redis < 0) {
        struct sockaddr_in address = address_of("DEMO_OTHERS", redis_port);
        *redis = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(*redis, (struct sockaddr *)&address, sizeof address) < 0) return -1;
    }
    int len = snprintf(text, sizeof text, "*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\n", strlen(key), key);
    if (send_all(*redis, text, (size_t)len) < 0) return -1;
    size_t have = 0, want = 0;
    while (want == 0 || have < want) {
        ssize_t n = recv(*redis, text + have, sizeof text - 1 - have, 0);
        if (n <= 0) return -1;
        have += (size_t)n;
        text[have] = 0;
        char *end = strstr(text, "\r\n");
        if (want == 0 && end) {
            want = (size_t)(end + 2 - text);
            if (text[0] == '$' && text[1] != '-') want += (size_t)atoi(text + 1) + 2;
        }
    }
    return 0;
}

static int answer(int fd, int *redis, const char *path) {
    char name[16], key[PATH_LIMIT], calls[PATH_LIMIT + 64] = "", body[1024], head[256];
    long number;
    int status = 400;
    if (sscanf(path, "/%15[a-z]/%ld", name, &number) == 2 &&
        (strcmp(name, "base") == 0 || strcmp(name, "price") == 0)) {
        snprintf(key, sizeof key, "%s:%ld", name, number);
        status = redis_get(redis, key) < 0                              ? 503
                 : strcmp(name, "price") == 0 && number % 11 == 0 ? 500
                                                                        : 200;
        snprintf(calls, sizeof calls,
                 "{\"service\": \"redis\", \"operation\": \"GET\", \"key\": \"%s\"}", key);
    }
    int len = snprintf(body, sizeof body,
                       "{\"service\": \"pricing\", \"path\": \"%s\", \"status\": %d, \"pid\": %d, "
                       "\"tid\": %ld, \"calls\": [%s]}",
                       path, status, getpid(), syscall(SYS_gettid), calls);
    int head_len = snprintf(head, sizeof head,
                            "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
                            "Content-Length: %d\r\n\r\n",
                            status, status == 200 ? "OK" : "Failed", len);
    char reply[sizeof head + sizeof body];
    memcpy(reply, head, (size_t)head_len);
    memcpy(reply + head_len, body, (size_t)len);
    return send_all(fd, reply, (size_t)(head_len + len));
}

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument, redis = -1;
    char request[REQUEST_LIMIT + 1];
    size_t have = 0;
    for (;;) {
        request[have] = 0;
        char *end = strstr(request, "\r\n\r\n");
        if (!end) {
            ssize_t n = have < REQUEST_LIMIT ? recv(fd, request + have, REQUEST_LIMIT - have, 0) : 0;
            if (n <= 0) break;
            have += (size_t)n;
            continue;
        }
        char path[PATH_LIMIT];
        if (sscanf(request, "GET %255[-/a-z0-9?=&] ", path) != 1) break;
        if (answer(fd, &redis, path) < 0) break;
        size_t used = (size_t)(end + 4 - request);
        have -= used;
        memmove(request, request + used, have);
    }
    if (redis >= 0) close(redis);
    close(fd);
    return NULL;
}

static void leave(int signal_number) {
    (void)signal_number;
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: pricing PORT REDIS_PORT\n");
        return 2;
    }
    redis_port = atoi(argv[2]);
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    struct sockaddr_in address = address_of("DEMO_BIND", atoi(argv[1]));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 128) < 0) {
        perror("pricing");
        return 1;
    }
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, STACK_BYTES);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        pthread_t thread;
        if (pthread_create(&thread, &detached, serve, (void *)(intptr_t)fd) != 0) close(fd);
    }
}
