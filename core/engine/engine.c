/* engine.c - shared state of one loop's clients and servers. */
#include "engine/engine.h"

static void enter_plain(struct pge_engine *engine, void (*fn)(void *arg), void *arg) {
    (void)engine;
    fn(arg);
}

void pge_engine_init(struct pge_engine *engine, struct pge_loop *loop) {
    *engine = (struct pge_engine){.loop = loop, .enter = enter_plain};
    pge_list_init(&engine->pools);
    pge_list_init(&engine->servers);
    pge_json_scan_init(&engine->scan);
}

void pge_engine_deinit(struct pge_engine *engine) {
    pge_json_scan_deinit(&engine->scan);
    pge_buf_deinit(&engine->scratch);
    pge_buf_deinit(&engine->pattern);
    pge_buf_deinit(&engine->address);
}
