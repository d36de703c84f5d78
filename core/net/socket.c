/* socket.c - listening sockets. */
#include "net/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

socklen_t pge_sockaddr_size(const struct sockaddr *at) {
    if (at->sa_family == AF_UNIX)
        return sizeof(struct sockaddr_un);
    return at->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* A socket file nobody listens on is left from a crash: replace it. Anything else stays. */
static bool remove_stale(const struct sockaddr *at) {
    const char *path = ((const struct sockaddr_un *)(const void *)at)->sun_path;
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false; /* connect says ECONNREFUSED of a plain file too */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool is_stale = connect(fd, at, pge_sockaddr_size(at)) < 0 && errno == ECONNREFUSED;
    close(fd);
    return is_stale && unlink(path) == 0;
}

static int bind_unix(int fd, const struct sockaddr *at) {
    int status = bind(fd, at, pge_sockaddr_size(at));
    if (status < 0 && errno == EADDRINUSE) {
        status = remove_stale(at) ? bind(fd, at, pge_sockaddr_size(at)) : -1;
        if (status < 0)
            return UV_EADDRINUSE;
    }
    return status < 0 ? uv_translate_sys_error(errno) : 0;
}

static int bind_inet(int fd, const struct sockaddr *at) {
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, at, pge_sockaddr_size(at)) < 0)
        return uv_translate_sys_error(errno);
    return 0;
}

int pge_socket_listen(const struct sockaddr *at, int backlog) {
    int fd = socket(at->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return uv_translate_sys_error(errno);
    int status = at->sa_family == AF_UNIX ? bind_unix(fd, at) : bind_inet(fd, at);
    bool is_bound = status == 0;
    if (is_bound && listen(fd, backlog) < 0)
        status = uv_translate_sys_error(errno);
    if (status == 0)
        return fd;
    if (is_bound && at->sa_family == AF_UNIX)
        unlink(((const struct sockaddr_un *)(const void *)at)->sun_path);
    close(fd);
    return status;
}
