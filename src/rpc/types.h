/* types: what server and client share: status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html),
 * metadata. */
#ifndef RPC_TYPES_H
#define RPC_TYPES_H

#include "base/str.h"

enum rpc_code {
    RPC_OK = 0,
    RPC_CANCELLED = 1,
    RPC_UNKNOWN = 2,
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_ALREADY_EXISTS = 6,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_FAILED_PRECONDITION = 9,
    RPC_ABORTED = 10,
    RPC_OUT_OF_RANGE = 11,
    RPC_UNIMPLEMENTED = 12,
    RPC_INTERNAL = 13,
    RPC_UNAVAILABLE = 14,
    RPC_DATA_LOSS = 15,
    RPC_UNAUTHENTICATED = 16,
    RPC_CODES
};

/* "OK", "CANCELLED" …; "UNKNOWN" for any other number. */
const char *rpc_code_name(enum rpc_code code);

/* One entry of metadata; names in lower case. */
struct rpc_pair {
    struct str name, value;
};

#endif
