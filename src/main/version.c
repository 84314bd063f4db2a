#include "main/main.h"

#include <microhttpd.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <stdio.h>
#include <yajl/yajl_version.h>
#include <zlib.h>

#include "main/version.h" /* made by the build: PAYFLOW_VERSION, PAYFLOW_COMMIT */

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

const char *main_version(void)
{
    return PAYFLOW_VERSION;
}

const char *main_build(void)
{
    return PAYFLOW_VERSION " " PAYFLOW_COMMIT;
}

void main_print_version(bool json)
{
    int y = yajl_version();
    if (json)
        printf("{\"version\":\"%s\",\"commit\":\"%s\",\"compiler\":\"%s\",\"libraries\":{\"sqlite\":\"%s\","
               "\"libmicrohttpd\":\"%s\","
               "\"openssl\":\"%s\",\"yajl\":\"%d.%d.%d\",\"zlib\":\"%s\"}}\n",
               PAYFLOW_VERSION, PAYFLOW_COMMIT, COMPILER, sqlite3_libversion(), MHD_get_version(),
               OpenSSL_version(OPENSSL_VERSION_STRING), y / 10000, y / 100 % 100, y % 100, zlibVersion());
    else
        printf("payflow %s (commit %s)\ncompiler: %s\nlibraries: SQLite %s, libmicrohttpd %s, OpenSSL %s, yajl "
               "%d.%d.%d, zlib %s\n",
               PAYFLOW_VERSION, PAYFLOW_COMMIT, COMPILER, sqlite3_libversion(), MHD_get_version(),
               OpenSSL_version(OPENSSL_VERSION_STRING), y / 10000, y / 100 % 100, y % 100, zlibVersion());
}
