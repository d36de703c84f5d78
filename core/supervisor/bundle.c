/* bundle.c - the files a generation was read from, as its lead has sent them (protocol.h). */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/internal.h"

/* Decimal digits at *at, and the one byte after them. False: they are not there. */
static bool read_size(struct pge_span bundle, size_t *at, char after, size_t *size) {
    size_t value = 0, i = *at;
    while (i < bundle.n && bundle.p[i] >= '0' && bundle.p[i] <= '9' && value <= PGE_MAX_BUNDLE)
        value = value * 10 + (size_t)(bundle.p[i++] - '0');
    if (i == *at || i >= bundle.n || bundle.p[i] != after)
        return false;
    *at = i + 1;
    *size = value;
    return true;
}

/* A record that starts at *at. */
static bool next_record(struct pge_span bundle, size_t *at, bool *is_file, struct pge_span *path,
                        struct pge_span *text) {
    size_t path_size, text_size;
    const char *stop = *at < bundle.n ? memchr(bundle.p + *at, ' ', bundle.n - *at) : NULL;
    if (!stop)
        return false;
    size_t kind_size = (size_t)(stop - bundle.p) - *at;
    *is_file = kind_size == 4 && memcmp(bundle.p + *at, "file", 4) == 0;
    *at = (size_t)(stop - bundle.p) + 1;
    if (!read_size(bundle, at, ' ', &path_size) || !read_size(bundle, at, '\n', &text_size))
        return false;
    size_t left = bundle.n - *at;
    if (path_size > left || text_size > left - path_size)
        return false;
    *path = (struct pge_span){bundle.p + *at, path_size};
    *text = (struct pge_span){bundle.p + *at + path_size, text_size};
    *at += path_size + text_size;
    return true;
}

bool pge_bundle_next(struct pge_span bundle, size_t *at, struct pge_span *path,
                     struct pge_span *text) {
    bool is_file = false;
    while (next_record(bundle, at, &is_file, path, text))
        if (is_file)
            return true;
    return false;
}

/* Whether the rest of fd is text. */
static bool reads_as(int fd, struct pge_span text) {
    char piece[16384];
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 && text.n == 0;
        if ((size_t)n > text.n || memcmp(piece, text.p, (size_t)n) != 0)
            return false;
        text = (struct pge_span){text.p + n, text.n - (size_t)n};
    }
}

/* Not opened when it is no plain file: a fifo would wait for its other end. */
static bool is_same_file(struct pge_span path, struct pge_span text) {
    char name[PATH_MAX];
    struct stat st;
    if (path.n >= sizeof name)
        return false;
    memcpy(name, path.p, path.n);
    name[path.n] = '\0';
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool is_same = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (size_t)st.st_size == text.n &&
                   reads_as(fd, text);
    close(fd);
    return is_same;
}

bool pge_bundle_is_on_disk(struct pge_span bundle) {
    struct pge_span path, text;
    size_t at = 0;
    while (pge_bundle_next(bundle, &at, &path, &text))
        if (!is_same_file(path, text))
            return false;
    return true;
}
