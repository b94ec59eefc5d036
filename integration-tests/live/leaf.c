/* Whom the servers of this folder call: answers every POST after up to 3 ms, one thread per
 * connection.
 *
 * usage: leaf LOG PORT...
 *
 * LOG gets a line `PORT PEER_PORT BODY` a request, in the order in which they came on their
 * connection: who called is known from the body, and only from there. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_LIMIT = 8192, STACK_BYTES = 128 * 1024, DELAY_LIMIT_US = 3000 };

static int log_fd;

struct connection {
    int fd, port, peer_port;
};

/* Reads one request into `text`; gives its body, or NULL at the end of the connection. `have` is
 * how many bytes are in `text`, `used` how many of them are the request's. */
static char *read_request(int fd, char *text, size_t *have, size_t *used) {
    for (;;) {
        text[*have] = 0;
        char *end = strstr(text, "\r\n\r\n");
        if (end) {
            char *field = strcasestr(text, "\r\ncontent-length:");
            size_t length = field && field < end ? strtoul(field + 17, NULL, 10) : 0;
            *used = (size_t)(end + 4 - text) + length;
            if (*have >= *used) return end + 4;
        }
        ssize_t n = recv(fd, text + *have, REQUEST_LIMIT - 1 - *have, 0);
        if (n <= 0) return NULL;
        *have += (size_t)n;
    }
}

static void *serve(void *argument) {
    struct connection connection = *(struct connection *)argument;
    free(argument);
    unsigned seed = (unsigned)connection.peer_port;
    char text[REQUEST_LIMIT];
    size_t have = 0, used = 0;
    char *body;
    while ((body = read_request(connection.fd, text, &have, &used))) {
        char line[64];
        int digits = (int)strspn(body, "0123456789");
        int len = snprintf(line, sizeof line, "%d %d %.*s\n", connection.port,
                           connection.peer_port, digits, body);
        if (write(log_fd, line, (size_t)len) != len) abort();
        usleep((unsigned)rand_r(&seed) % DELAY_LIMIT_US);
        static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                                    "Content-Length: 3\r\n\r\nok\n";
        if (send(connection.fd, reply, sizeof reply - 1, MSG_NOSIGNAL) < 0) break;
        memmove(text, text + used, have - used);
        have -= used;
    }
    close(connection.fd);
    return NULL;
}

static void *accept_on(void *argument) {
    int port = (int)(intptr_t)argument, on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 1024) < 0) {
        perror("listen");
        exit(1);
    }
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK_BYTES);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    for (;;) {
        struct sockaddr_in peer;
        socklen_t len = sizeof peer;
        int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *connection = malloc(sizeof *connection);
        *connection = (struct connection){fd, port, ntohs(peer.sin_port)};
        pthread_t thread;
        if (pthread_create(&thread, &small, serve, connection)) {
            close(fd);
            free(connection);
        }
    }
    return NULL;
}

static void end(int signal) {
    (void)signal;
    _exit(0);
}

int main(int count, char **words) {
    if (count < 3) return 2;
    signal(SIGTERM, end);
    log_fd = open(words[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log_fd < 0) return 1;
    for (int i = 2; i < count; i++) {
        pthread_t thread;
        intptr_t port = atoi(words[i]);
        if (pthread_create(&thread, NULL, accept_on, (void *)port)) return 1;
    }
    for (;;) pause();
}
