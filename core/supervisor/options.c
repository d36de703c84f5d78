/* options.c - what the first worker read off the command line, told in its HELLO. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/internal.h"

void pge_options_default(struct pge_supervisor_options *options) {
    *options = (struct pge_supervisor_options){
        .workers = 1,
        .drain_timeout_ms = 30000,
        .budget_ms = 1000,
        .load_budget_ms = 5000,
    };
}

static bool is_named(struct pge_span line, const char *name, struct pge_span *value) {
    size_t n = strlen(name);
    if (line.n <= n || memcmp(line.p, name, n) != 0 || line.p[n] != ' ')
        return false;
    *value = (struct pge_span){line.p + n + 1, line.n - n - 1};
    return true;
}

/* Digits, checked where they come from. */
static unsigned number_of(struct pge_span value) {
    char text[16] = "";
    if (value.n < sizeof text)
        memcpy(text, value.p, value.n);
    return (unsigned)strtoul(text, NULL, 10);
}

static void read_line(struct pge_supervisor_options *o, struct pge_span line) {
    const struct {
        const char *name;
        unsigned *to;
    } numbers[] = {{"workers", &o->workers},
                   {"drain_timeout", &o->drain_timeout_ms},
                   {"budget", &o->budget_ms},
                   {"load_budget", &o->load_budget_ms}};
    struct pge_span value;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (is_named(line, numbers[i].name, &value))
            *numbers[i].to = number_of(value);
    if (is_named(line, "watch", &value))
        o->watch = number_of(value) != 0;
    if (is_named(line, "admin", &value) && value.n < sizeof o->admin) {
        memcpy(o->admin, value.p, value.n);
        o->admin[value.n] = '\0';
    }
}

void pge_options_read(struct pge_supervisor_options *options, struct pge_span lines) {
    while (lines.n) {
        const char *stop = memchr(lines.p, '\n', lines.n);
        size_t n = stop ? (size_t)(stop - lines.p) : lines.n;
        read_line(options, (struct pge_span){lines.p, n});
        size_t taken = stop ? n + 1 : n;
        lines = (struct pge_span){lines.p + taken, lines.n - taken};
    }
    if (options->workers < 1)
        options->workers = 1;
    if (options->workers > PGE_MAX_WORKERS)
        options->workers = PGE_MAX_WORKERS;
}
