/*
 * held.c - opens connections and keeps them, doing nothing, until its standard input ends.
 *
 *   held COUNT PORT open|http|nest TIMES
 *
 * http and nest: each has asked so many times, and got its answers. Prints "open COUNT".
 */
#include "wire.h"

#include <stdint.h>

static const char http[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
static const char nest[] = "46#{\"pattern\":\"echo\",\"data\":\"hello\",\"id\":\"12345\"}";

static int dial_to(unsigned port) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0)
        die("connect");
    return fd;
}

/* The answers are short: they come in one piece. */
static void ask(int fd, const char *text, size_t size) {
    char answer[4096];
    if (write(fd, text, size) != (ssize_t)size)
        die("write");
    if (read(fd, answer, sizeof answer) <= 0)
        die("read");
}

int main(int argc, char **argv) {
    char byte;
    if (argc != 5)
        return 2;
    int count = atoi(argv[1]), times = atoi(argv[4]);
    for (int i = 0; i < count; i++) {
        int fd = dial_to((unsigned)atoi(argv[2]));
        for (int t = 0; t < times && argv[3][0] == 'h'; t++)
            ask(fd, http, sizeof http - 1);
        for (int t = 0; t < times && argv[3][0] == 'n'; t++)
            ask(fd, nest, sizeof nest - 1);
    }
    printf("open %d\n", count);
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
