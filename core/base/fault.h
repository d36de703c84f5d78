/* fault.h - the error codes users see (CONTRACT "Errors"), and their names. */
#ifndef PGE_BASE_FAULT_H
#define PGE_BASE_FAULT_H

enum pge_fault {
    PGE_FAULT_NONE,
    PGE_TIMEOUT,
    PGE_CONNECT_FAILED,
    PGE_CONNECTION_CLOSED,
    PGE_REMOTE,
    PGE_NO_HANDLER,
    PGE_INVALID_MESSAGE,
    PGE_CANCELLED,
    PGE_BAD_FRAME,
    PGE_FRAME_TOO_LARGE,
    PGE_OVERLOADED,
    PGE_UNSUPPORTED,
    PGE_INVALID_OPTION,
    PGE_LISTEN_FAILED,
    PGE_FAULTS
};

/* "TIMEOUT", ...; static. */
const char *pge_fault_name(enum pge_fault fault);

#endif
