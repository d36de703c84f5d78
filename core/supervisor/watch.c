/*
 * watch.c - --watch: reloads when a file of the committed bundle changes on disk.
 *
 * Folders are watched, not files: editors save to another file and rename it. So are the folders
 * of symbolic links on the way, since a link that is swapped changes what is behind it. What an
 * event says is only a hint; whether something has changed is read from the files, once they have
 * been quiet for a moment.
 */
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "supervisor/internal.h"

enum {
    QUIET_MS = 50,
    MAX_DELAY_MS = 1000, /* of files that are never quiet */
    AGAIN_MS = 1000,     /* while a folder that should be watched is not there */
    MAX_LINKS = 40,
    MAX_FOLDERS = 256,
};

struct folder {
    struct pge_list node;
    struct pge_watch *watch;
    uv_fs_event_t event;
    struct pge_buf names; /* of entries that matter, each with a NUL */
    char path[];
};

struct pge_watch {
    struct pge_supervisor *supervisor;
    struct pge_list folders;
    unsigned folder_count;
    struct pge_timer quiet;
    uint64_t since_ms; /* of the first event not yet looked at; 0: none */
    bool is_blind;     /* a folder could not be watched */
};

/* ---- folders ---- */

static void on_folder_closed(uv_handle_t *handle) {
    struct folder *f = container_of((uv_fs_event_t *)handle, struct folder, event);
    pge_buf_deinit(&f->names);
    pge_free(f);
}

static void close_folders(struct pge_watch *watch) {
    while (!pge_list_is_empty(&watch->folders)) {
        struct folder *f = container_of(watch->folders.next, struct folder, node);
        pge_list_remove(&f->node);
        uv_close((uv_handle_t *)&f->event, on_folder_closed);
    }
    watch->folder_count = 0;
}

static bool has_name(const struct folder *f, const char *name) {
    const char *at = pge_buf_head(&f->names), *end = at + pge_buf_len(&f->names);
    for (; at < end; at += strlen(at) + 1)
        if (strcmp(at, name) == 0)
            return true;
    return false;
}

static bool ends_in_lua(const char *name) {
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".lua") == 0;
}

/* A file we know; or the folder itself, which has no name here; or, after a refusal, a module that
 * may have been what was missing. */
static bool matters(const struct folder *f, const char *name) {
    const struct pge_supervisor *s = f->watch->supervisor;
    const char *own = strrchr(f->path, '/');
    if (!name || has_name(f, name) || strcmp(name, own ? own + 1 : f->path) == 0)
        return true;
    return s->outcome.is_known && !s->outcome.is_good && ends_in_lua(name);
}

static void on_event(uv_fs_event_t *event, const char *name, int events, int status) {
    struct folder *f = container_of(event, struct folder, event);
    struct pge_watch *watch = f->watch;
    uint64_t now = pge_supervisor_now(watch->supervisor);
    (void)events;
    if (status < 0 || !matters(f, name))
        return;
    if (!watch->since_ms)
        watch->since_ms = now;
    if (now - watch->since_ms < MAX_DELAY_MS)
        pge_loop_timer(&watch->supervisor->loop, &watch->quiet, QUIET_MS);
}

static struct folder *open_folder(struct pge_watch *watch, const char *path) {
    size_t size = strlen(path) + 1;
    struct folder *f = watch->folder_count < MAX_FOLDERS ? pge_calloc(1, sizeof *f + size) : NULL;
    if (!f)
        return NULL;
    f->watch = watch;
    memcpy(f->path, path, size);
    pge_list_push(&watch->folders, &f->node);
    watch->folder_count++;
    uv_fs_event_init(&watch->supervisor->uv, &f->event);
    if (uv_fs_event_start(&f->event, on_event, path, 0) < 0)
        watch->is_blind = true;
    return f;
}

/* name of that folder is of interest from now on. */
static void add(struct pge_watch *watch, const char *path, const char *name) {
    struct folder *f = NULL;
    for (struct pge_list *at = watch->folders.next; at != &watch->folders && !f; at = at->next) {
        struct folder *known = container_of(at, struct folder, node);
        f = strcmp(known->path, path) == 0 ? known : NULL;
    }
    if (!f)
        f = open_folder(watch, path);
    if (!f)
        watch->is_blind = true;
    else if (!has_name(f, name))
        pge_buf_append(&f->names, name, strlen(name) + 1);
}

/* ---- the way to a file ---- */

/* Puts the target of a link in front of what is left of the path. False: there is no room. */
static bool follow_link(const char *link, char *left, size_t room) {
    char target[PATH_MAX];
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n < 0 || (size_t)n + strlen(left) + 2 > room)
        return false;
    memmove(left + n + 1, left, strlen(left) + 1);
    memcpy(left, target, (size_t)n);
    left[n] = '/';
    return true;
}

/* Takes the next name off left, and the slashes around it. */
static void next_name(char *left, char *name) {
    size_t from = strspn(left, "/");
    size_t n = strcspn(left + from, "/");
    memcpy(name, left + from, n);
    name[n] = '\0';
    size_t taken = from + n + strspn(left + from + n, "/");
    memmove(left, left + taken, strlen(left + taken) + 1);
}

/* Walks a path as the kernel would; adds the file and each link on the way. */
static void add_path(struct pge_watch *watch, struct pge_span path) {
    char folder[PATH_MAX] = ".", left[PATH_MAX], name[PATH_MAX], here[2 * PATH_MAX + 1];
    struct stat st;
    if (path.n >= sizeof left)
        return;
    memcpy(left, path.p, path.n);
    left[path.n] = '\0';
    for (int links = 0; left[0];) {
        if (left[0] == '/')
            memcpy(folder, "/", 2);
        next_name(left, name);
        if (!name[0])
            return;
        snprintf(here, sizeof here, "%s/%s", folder, name);
        bool is_link = lstat(here, &st) == 0 && S_ISLNK(st.st_mode);
        if (is_link || !left[0])
            add(watch, folder, name);
        if (is_link && (++links > MAX_LINKS || !follow_link(here, left, sizeof left)))
            return;
        if (!is_link && strlen(here) < sizeof folder)
            memcpy(folder, here, strlen(here) + 1);
    }
}

/* ---- looking ---- */

static struct pge_span committed(const struct pge_watch *watch) {
    const struct pge_buf *b = &watch->supervisor->committed.bundle;
    return (struct pge_span){pge_buf_head(b), pge_buf_len(b)};
}

/* Events that have not been told yet are lost by this: the caller looks at the files next. */
static void follow(struct pge_watch *watch) {
    struct pge_span path, text;
    size_t at = 0;
    close_folders(watch);
    watch->is_blind = false;
    while (pge_bundle_next(committed(watch), &at, &path, &text))
        add_path(watch, path);
    if (watch->is_blind && !pge_timer_is_armed(&watch->quiet))
        pge_loop_timer(&watch->supervisor->loop, &watch->quiet, AGAIN_MS);
}

static void on_quiet(struct pge_timer *timer) {
    struct pge_watch *watch = container_of(timer, struct pge_watch, quiet);
    bool was_told = watch->since_ms != 0, was_blind = watch->is_blind;
    watch->since_ms = 0;
    follow(watch);
    if ((was_told || (was_blind && !watch->is_blind)) && !pge_bundle_is_on_disk(committed(watch)))
        pge_reload_ask(watch->supervisor, PGE_BY_WATCH, NULL);
}

void pge_watch_follow(struct pge_watch *watch) {
    watch->since_ms = pge_supervisor_now(watch->supervisor);
    pge_loop_timer(&watch->supervisor->loop, &watch->quiet, 0);
}

struct pge_watch *pge_watch_new(struct pge_supervisor *s) {
    struct pge_watch *watch = pge_calloc(1, sizeof *watch);
    if (!watch) {
        pge_say("error", "there is no memory to watch files");
        return NULL;
    }
    watch->supervisor = s;
    pge_list_init(&watch->folders);
    pge_timer_init(&watch->quiet, on_quiet);
    return watch; /* what it follows is told when a generation is committed */
}

void pge_watch_free(struct pge_watch *watch) {
    close_folders(watch);
    pge_loop_timer_stop(&watch->supervisor->loop, &watch->quiet);
    pge_free(watch);
}
