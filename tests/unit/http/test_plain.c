/* An embedded file is inflated once, however many ask for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "http/internal.h"

enum { N = 300000 };
static uint8_t text[N], gz[N];

static struct str packed(void)
{
    z_stream z = {0};
    for (size_t i = 0; i < N; i++)
        text[i] = (uint8_t)(i * i >> 5);
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = text;
    z.avail_in = N;
    z.next_out = gz;
    z.avail_out = N;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    struct str s = {(const char *)gz, z.total_out};
    deflateEnd(&z);
    return s;
}

static void inflated_once(void **state)
{
    (void)state;
    struct http_server *s = aligned_alloc(_Alignof(struct http_server), sizeof *s); /* with no thread */
    assert_non_null(s);
    memset(s, 0, sizeof *s);
    struct str file = packed(), first = STR_NONE, again = STR_NONE;
    pthread_mutex_init(&s->plain_lock, NULL);
    assert_int_equal(server_plain(s, file, &first), PFE_OK);
    assert_int_equal(first.n, N);
    assert_memory_equal(first.p, text, N);
    assert_int_equal(server_plain(s, file, &again), PFE_OK);
    assert_ptr_equal(again.p, first.p);
    assert_int_equal(again.n, N);

    struct str cut = {file.p + 1, file.n - 1}, none = STR_NONE;
    assert_int_equal(server_plain(s, cut, &none), PFE_INTERNAL);
    assert_null(none.p);
    server_plain_free(s);
    pthread_mutex_destroy(&s->plain_lock);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(inflated_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
