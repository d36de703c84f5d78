/* socket.h - listening sockets: made, bound, and unix paths cleaned up. No loop, no callbacks. */
#ifndef PGE_NET_SOCKET_H
#define PGE_NET_SOCKET_H

#include <sys/socket.h>

/*
 * A listening socket, non-blocking and closed by exec, at a TCP or unix address. A unix socket that
 * nobody listens on is left from a crash and is replaced; its file is the caller's to unlink. The
 * descriptor, or a negative code (UV_EADDRINUSE, ...).
 */
int pge_socket_listen(const struct sockaddr *at, int backlog);

/* Bytes of an address of its family. */
socklen_t pge_sockaddr_size(const struct sockaddr *at);

#endif
