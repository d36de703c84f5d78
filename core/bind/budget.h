/*
 * budget.h - ends scripts that run too long without yielding, and the process when that cannot be
 * done. For the program: one state, on the thread that started the budget.
 *
 *   loop -> luv's cb_pcall -> entry n: [ slice | slice | slice ] -> loop
 *
 * A slice is what one piece of script runs until it yields: a callback of the core, a task resumed
 * at the bottom of the stack, an item of the scheduler's queue. Nothing but counters is kept for
 * it.
 *
 *   watch thread   ticks; the same entry at two ticks -> SIGPROF to the main thread
 *   SIGPROF        asks LuaJIT's profiler, whose checks are compiled into every trace, and sets a
 *                  hook: the VM calls it at its next line
 *   hook           another slice than before: notes it and goes. The same for longer than its
 *                  budget: raises, at each instruction of code that is not perigee's, until the
 *                  slice is over
 *   watch thread   no sign of the hook, or still the slice a second after: the process ends with
 *                  the stack and PGE_EXIT_SCRIPT. That is for what no hook can stop: a pattern that
 *                  backtracks for ever, a handler of xpcall that loops, a call that blocks
 *
 * Time is ticks of the thread: a process that was stopped, or starved, has not used it up. While no
 * Lua runs the thread sleeps.
 */
#ifndef PGE_BIND_BUDGET_H
#define PGE_BIND_BUDGET_H

#include "bind/bind.h"

/* Of a process whose scripts cannot be stopped or do not fit: EX_SOFTWARE. */
enum { PGE_EXIT_SCRIPT = 70 };

/* Adds core.budget and core.loading to the module table on top of the stack. */
void pge_lua_budget(lua_State *L, struct pge_bind *bind);

/* The first entry, in which the budget was started, is over. Nothing when there is none. */
void pge_budget_leave(void);

/* Ends the thread and the profiler; before the state is closed. Nothing when there is none. */
void pge_budget_stop(void);

#endif
