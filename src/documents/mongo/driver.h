/*
 * driver: libmongoc, loaded when the first MONGO_URL is opened rather than with the program.
 *
 * Linked, it would begin by itself before main() in every process, whatever the settings: a shared memory segment for
 * its counters, which a kill -9 leaves behind, and a warning on standard error from the process that gets the same
 * number later; and more libraries (ICU, SASL, …) for everybody who has no MongoDB. libbson is linked as usual.
 */
#ifndef DOCUMENTS_MONGO_DRIVER_H
#define DOCUMENTS_MONGO_DRIVER_H

#include <mongoc/mongoc.h>
#include <stdbool.h>

#define DRIVER_FUNCTIONS(X)                                                                                            \
    X(mongoc_init)                                                                                                     \
    X(mongoc_cleanup)                                                                                                  \
    X(mongoc_log_set_handler)                                                                                          \
    X(mongoc_uri_new_with_error)                                                                                       \
    X(mongoc_uri_get_database)                                                                                         \
    X(mongoc_uri_set_appname)                                                                                          \
    X(mongoc_uri_set_option_as_bool)                                                                                   \
    X(mongoc_uri_set_option_as_int32)                                                                                  \
    X(mongoc_uri_set_write_concern)                                                                                    \
    X(mongoc_uri_destroy)                                                                                              \
    X(mongoc_write_concern_new)                                                                                        \
    X(mongoc_write_concern_set_w)                                                                                      \
    X(mongoc_write_concern_set_journal)                                                                                \
    X(mongoc_write_concern_destroy)                                                                                    \
    X(mongoc_client_pool_new_with_error)                                                                               \
    X(mongoc_client_pool_set_error_api)                                                                                \
    X(mongoc_client_pool_pop)                                                                                          \
    X(mongoc_client_pool_push)                                                                                         \
    X(mongoc_client_pool_destroy)                                                                                      \
    X(mongoc_client_command_simple)                                                                                    \
    X(mongoc_client_get_collection)                                                                                    \
    X(mongoc_collection_insert_one)                                                                                    \
    X(mongoc_collection_delete_one)                                                                                    \
    X(mongoc_collection_find_with_opts)                                                                                \
    X(mongoc_collection_destroy)                                                                                       \
    X(mongoc_cursor_next)                                                                                              \
    X(mongoc_cursor_error)                                                                                             \
    X(mongoc_cursor_destroy)

/* driver.mongoc_init() and so on. */
struct driver {
#define DRIVER_MEMBER(f) __typeof__(f) *f;
    DRIVER_FUNCTIONS(DRIVER_MEMBER)
#undef DRIVER_MEMBER
};
extern struct driver driver;

/* Loads and begins the library, once for the process; it ends with it. Not before threads are over that read the
   environment: MONGOC_DISABLE_SHM is set here. false: ret_why says why, one line. Any thread, also several. */
bool driver_load(char *ret_why, unsigned long cap);

#endif
