/* Makes system calls through the 32-bit entry (int 0x80), as a program of either size.
 *
 * Waits for a byte on stdin, sends one byte over a unix socket pair and receives it, asks for its
 * process id (whose number is that of writev in the 64-bit table), says 'd' (done), waits again.
 * No libc, so that it builds without the 32-bit one: -nostdlib -static -no-pie. */

enum { EXIT = 1, READ = 3, WRITE = 4, GETPID = 20, SOCKETPAIR = 360 };
enum { AF_UNIX_NUMBER = 1, SOCK_STREAM_NUMBER = 1 };

/* Below 4 GiB, where the 32-bit entry can see them. */
static int pair[2];
static char byte;

static long call(long number, long first, const volatile void *second, long third, const volatile void *fourth) {
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(second), "d"(third), "S"(fourth)
                     : "memory");
    return result;
}

void _start(void) {
    long status = 1;
    call(READ, 0, &byte, 1, 0);
    if (call(SOCKETPAIR, AF_UNIX_NUMBER, (void *)(long)SOCK_STREAM_NUMBER, 0, pair) == 0 &&
        call(WRITE, pair[0], "x", 1, 0) == 1 && call(READ, pair[1], &byte, 1, 0) == 1 &&
        call(GETPID, pair[0], 0, 0, 0) > 0) {
        call(WRITE, 1, "d", 1, 0);
        call(READ, 0, &byte, 1, 0);
        status = 0;
    }
    for (;;) call(EXIT, status, 0, 0, 0);
}
