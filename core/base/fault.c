/* fault.c - names of the error codes. */
#include "base/fault.h"

const char *pge_fault_name(enum pge_fault fault) {
    static const char *const names[PGE_FAULTS] = {
        [PGE_FAULT_NONE] = "OK",
        [PGE_TIMEOUT] = "TIMEOUT",
        [PGE_CONNECT_FAILED] = "CONNECT_FAILED",
        [PGE_CONNECTION_CLOSED] = "CONNECTION_CLOSED",
        [PGE_REMOTE] = "REMOTE",
        [PGE_NO_HANDLER] = "NO_HANDLER",
        [PGE_INVALID_MESSAGE] = "INVALID_MESSAGE",
        [PGE_CANCELLED] = "CANCELLED",
        [PGE_BAD_FRAME] = "BAD_FRAME",
        [PGE_FRAME_TOO_LARGE] = "FRAME_TOO_LARGE",
        [PGE_OVERLOADED] = "OVERLOADED",
        [PGE_UNSUPPORTED] = "UNSUPPORTED",
        [PGE_INVALID_OPTION] = "INVALID_OPTION",
        [PGE_LISTEN_FAILED] = "LISTEN_FAILED",
    };
    return names[fault];
}
