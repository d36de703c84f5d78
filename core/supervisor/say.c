/* say.c - the supervisor's lines on stderr, worded and shaped as the log's (lua/perigee/log.lua).
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "supervisor/internal.h"

void pge_say(const char *level, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    size_t head = level ? strlen("perigee: : ") + strlen(level) : strlen("perigee: ");
    size_t n = head + (size_t)(size > 0 ? size : 0);
    char *line = pge_malloc(n + 2); /* the end of line, and vsnprintf's NUL */
    if (!line)
        return;
    snprintf(line, head + 1, level ? "perigee: %s: " : "perigee: ", level);
    va_start(args, format);
    vsnprintf(line + head, n - head + 1, format, args);
    va_end(args);
    line[n] = '\n';
    /* One write, so that lines of several processes do not mix. A full disk ends nothing. */
    ssize_t written = write(STDERR_FILENO, line, n + 1);
    (void)written;
    pge_free(line);
}
