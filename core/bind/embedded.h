/* embedded.h - perigee's Lua modules inside the program; the array is made by core/embed.lua. */
#ifndef PGE_BIND_EMBEDDED_H
#define PGE_BIND_EMBEDDED_H

struct pge_embedded {
    const char *module, *chunk; /* "perigee.reply", "@lua/perigee/reply.lua"; NULL ends the array */
    unsigned size;
    const char *source; /* or bytecode */
};

extern const struct pge_embedded pge_embedded[];

#endif
