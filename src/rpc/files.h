/*
 * files: .proto files as reflection hands them out. proto/embed.py writes one struct rpc_files for each library of
 * proto/ when building; `<booking/v1/booking.pb-c.h>` goes with `booking_files`.
 */
#ifndef RPC_FILES_H
#define RPC_FILES_H

#include <stddef.h>

struct rpc_file {
    const char *name;           /* "booking/v1/booking.proto" */
    const unsigned char *bytes; /* a serialized FileDescriptorProto */
    size_t n;
    const unsigned *deps; /* indexes of all files that it needs, its own first */
    unsigned n_deps;
};

struct rpc_symbol {
    const char *name; /* fully qualified: a message, field, enum, value, service or method */
    unsigned file;
};

struct rpc_files {
    const struct rpc_file *files;
    size_t n_files;
    const struct rpc_symbol *symbols; /* in the order of strcmp */
    size_t n_symbols;
};

#endif
