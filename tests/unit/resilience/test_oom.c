/* The nth allocation fails, for every n: each part says so, stays whole and loses nothing. */
#include "fixture.h"

#include "resilience/balancer.h"
#include "resilience/breaker.h"
#include "resilience/fallback.h"
#include "resilience/health.h"

static long fail_at = -1; /* counts down to the allocation that fails; < 0: none */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static bool fails(void)
{
    return fail_at >= 0 && fail_at-- == 0;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

static void making_them(void **state)
{
    const struct breaker_config breaker = breaker_defaults();
    const struct balancer_config balancer = balancer_defaults();
    const struct fallback_config fallback = fallback_defaults();
    int n;

    (void)state;
#define MAKE(type, made)                                                                                               \
    do {                                                                                                               \
        struct type *x = NULL;                                                                                         \
        for (n = 0; !x; n++) {                                                                                         \
            assert_true(n < 10);                                                                                       \
            fail_at = n;                                                                                               \
            x = made;                                                                                                  \
        }                                                                                                              \
        fail_at = -1;                                                                                                  \
        assert_true(n > 1);                                                                                            \
        type##_free(x);                                                                                                \
    } while (0)
    MAKE(breaker, breaker_new(&breaker, 0));
    MAKE(balancer, balancer_new(&balancer, 0));
    MAKE(fallback, fallback_new(&fallback));
    MAKE(health, health_new());
}

static void keeping_a_value(void **state)
{
    const struct fallback_config c = fallback_defaults();
    struct fallback *f = fallback_new(&c);
    struct fallback_figures n;

    (void)state;
    assert_true(fallback_keep(f, FALLBACK_READ, STR("p"), STR("r"), STR("1"), 0));
    fail_at = 0;
    assert_false(fallback_keep(f, FALLBACK_READ, STR("p"), STR("r"), STR("2"), 0));
    fallback_read(f, &n);
    assert_int_equal(n.refused, 1);
    assert_int_equal(n.entries, 0);
    fallback_free(f);
}

static void adding_and_picking(void **state)
{
    const struct balancer_config c = balancer_defaults();
    struct balancer *b = balancer_new(&c, 0);
    struct balancer_lease l[200];
    struct balancer_figures f;
    unsigned refused = 0, n = 0;
    char name[8];

    (void)state;
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "n%d", i);
        const struct balancer_backend backend = {.name = str_c(name), .weight = 1};
        for (fail_at = 0; !balancer_add(b, &backend, 0); fail_at = (long)refused++ % 2 + 1)
            assert_true(refused < 100);
        fail_at = -1;
    }
    assert_true(refused >= 20);
    for (refused = 0; n < 200;) {
        fail_at = refused % 2 ? -1 : 0;
        if (balancer_pick(b, STR_NONE, NULL, 0, 0, &l[n]) == BALANCER_PICKED) {
            n++;
        } else {
            assert_int_equal(l[n].serial, 0);
            refused++;
        }
    }
    fail_at = -1;
    assert_int_equal(refused, 1);
    balancer_read(b, 0, &f, NULL, 0);
    assert_int_equal(f.backends, 20);
    assert_int_equal(f.active, 200);
    assert_int_equal(f.full, refused);
    for (unsigned i = 0; i < n; i++)
        balancer_release(b, &l[i], BALANCER_SUCCESS, 0);
    balancer_read(b, 0, &f, NULL, 0);
    assert_int_equal(f.active, 0);
    balancer_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(making_them),
        cmocka_unit_test(keeping_a_value),
        cmocka_unit_test(adding_and_picking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
