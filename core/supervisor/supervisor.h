/*
 * supervisor.h - `perigee serve`: a parent without Lua that holds the listening sockets and keeps
 * its workers alive and of one generation.
 */
#ifndef PGE_SUPERVISOR_SUPERVISOR_H
#define PGE_SUPERVISOR_SUPERVISOR_H

/* Starts workers, which are this program with the same arguments, and runs until they have ended.
 * Returns the exit status. */
int pge_supervise(char **argv);

#endif
