/*
 * admin_address.c - where the admin door is: as asked, or a unix socket named after the process, in
 * a folder that is this user's alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/dial.h"
#include "supervisor/internal.h"

/* The folder, there and ours. 0 or a negative code. */
static int make_folder(const char *path) {
    struct stat st;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return uv_translate_sys_error(errno);
    if (lstat(path, &st) < 0)
        return uv_translate_sys_error(errno);
    /* In /tmp somebody else may have been there first. */
    bool is_ours = S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 077) == 0;
    return is_ours ? 0 : UV_EPERM;
}

/* BASE/perigee-UID/PID.sock. lua/perigee/cli/door.lua looks for it there. */
static int by_process(const char *base, char *path, size_t size) {
    int n = snprintf(path, size, "%s/perigee-%u", base, (unsigned)getuid());
    if (n < 0 || (size_t)n + 32 > size)
        return UV_ENAMETOOLONG;
    int status = make_folder(path);
    snprintf(path + n, size - (size_t)n, "/%d.sock", (int)getpid());
    return status;
}

/* A service manager or a login names a folder for such things; else /tmp is everywhere. Who names
 * one for perigee alone means that one. */
static int by_default(char *path, size_t size) {
    const char *base = getenv("PERIGEE_RUNTIME_DIR");
    if (base && *base)
        return by_process(base, path, size);
    base = getenv("XDG_RUNTIME_DIR");
    int status = base && *base ? by_process(base, path, size) : UV_ENOENT;
    return status < 0 ? by_process("/tmp", path, size) : status;
}

/* "tcp HOST PORT" */
static int resolve_tcp(const char *text, struct pge_endpoint *at) {
    char host[128];
    unsigned port;
    if (sscanf(text, "tcp %127s %u", host, &port) != 2 || port > 65535)
        return UV_EINVAL;
    return pge_endpoint_resolve(host, (uint16_t)port, NULL, at);
}

int pge_admin_address(const char *asked, struct pge_endpoint *at, char *path, size_t size) {
    path[0] = '\0';
    if (strncmp(asked, "tcp ", 4) == 0)
        return resolve_tcp(asked, at);
    int status = 0;
    if (strncmp(asked, "unix ", 5) == 0)
        snprintf(path, size, "%s", asked + 5);
    else
        status = by_default(path, size);
    return status < 0 ? status : pge_endpoint_resolve(NULL, 0, path, at);
}
