/* stack.h - where a Lua state stands, as text, for a process that ends: nothing is allocated. */
#ifndef PGE_BIND_STACK_H
#define PGE_BIND_STACK_H

#include <lua.h>
#include <stddef.h>

/*
 * Writes a line for each frame into text, innermost first, beginning with the coroutine that runs,
 * which is found from the main state L: a state that has resumed another stands in a C function
 * whose first argument or upvalue is the other. where: "file:line" of the first that is not
 * perigee's own; left as it is when there is none. Best effort: L may stand anywhere.
 */
void pge_stack_write(lua_State *L, const char *own_prefix, char *text, size_t size, char *where,
                     size_t where_size);

#endif
