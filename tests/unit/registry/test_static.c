/* The embedded registry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
/* cmocka.h wants those four first */
#include <cmocka.h>
#include <string.h>

#include "registry/static/static.h"

struct heard {
    unsigned times;
    uint64_t generation;
    char text[512]; /* "id=address:port*weight[tag]" … */
};

static void note(void *ctx, const struct registry_list *list)
{
    struct heard *h = ctx;
    size_t n = 0;
    assert_true(list->generation > h->generation);
    h->generation = list->generation;
    h->times++;
    h->text[0] = '\0';
    for (size_t i = 0; i < list->n; i++) {
        const struct registry_instance *one = &list->instances[i];
        n += (size_t)snprintf(h->text + n, sizeof h->text - n, "%s=%s:%u*%u%s%s ", one->id, one->address, one->port,
                              one->weight, one->n_tags ? "#" : "", one->n_tags ? one->tags[0] : "");
    }
}

static struct registry_static_entry entry(const char *service, const char *id, uint16_t port)
{
    return (struct registry_static_entry){service, {.id = id, .address = "10.0.0.1", .port = port, .weight = 1}};
}

static void watchers_hear_of_their_service(void **state)
{
    (void)state;
    char why[256];
    const char *tags[] = {"v1"};
    struct registry_static_entry e[] = {entry("shop", "s2", 2), entry("other", "o1", 9), entry("shop", "s1", 1)};
    struct registry *r;
    struct heard shop = {0}, none = {0};
    e[0].instance.tags = tags;
    e[0].instance.n_tags = 1;
    assert_int_equal(registry_static_open(e, 3, &r, why), PFE_OK);
    assert_int_equal(registry_watch(r, "shop", note, &shop), PFE_OK);
    assert_int_equal(registry_watch(r, "none", note, &none), PFE_OK);
    assert_string_equal(shop.text, "s1=10.0.0.1:1*1 s2=10.0.0.1:2*1#v1 ");
    assert_string_equal(none.text, "");

    e[1].instance.port = 10; /* not ours: nobody of shop hears of it */
    assert_int_equal(registry_static_replace(r, e, 3, why), PFE_OK);
    assert_int_equal(shop.times, 1);
    e[2].instance.weight = 5;
    assert_int_equal(registry_static_replace(r, e, 3, why), PFE_OK);
    assert_string_equal(shop.text, "s1=10.0.0.1:1*5 s2=10.0.0.1:2*1#v1 ");

    struct registry_registration mine = {.service = "shop", .id = "me", .address = "::1", .port = 7, .weight = 3};
    assert_int_equal(registry_add(r, &mine, why), PFE_OK);
    assert_string_equal(shop.text, "me=::1:7*3 s1=10.0.0.1:1*5 s2=10.0.0.1:2*1#v1 ");
    mine.port = 8;
    assert_int_equal(registry_add(r, &mine, why), PFE_OK);
    assert_int_equal(registry_static_replace(r, NULL, 0, why), PFE_OK);
    assert_string_equal(shop.text, "me=::1:8*3 "); /* what was added stays */
    assert_int_equal(registry_remove(r, "shop", "me", why), PFE_OK);
    assert_string_equal(shop.text, "");
    assert_int_equal(registry_remove(r, "shop", "me", why), PFE_NOT_FOUND);
    assert_int_equal(none.times, 1);

    struct registry_figures f;
    registry_figures(r, &f);
    assert_string_equal(f.engine, "static");
    assert_true(f.reachable);
    registry_close(r);
}

static void bad_entries_change_nothing(void **state)
{
    (void)state;
    char why[256];
    char longer[REGISTRY_NAME_MAX + 1];
    struct registry_static_entry e[] = {entry("shop", "s1", 1), entry("shop", "s2", 2)};
    struct registry *r = NULL;
    struct heard h = {0};
    memset(longer, 'x', sizeof longer);
    longer[REGISTRY_NAME_MAX] = '\0';
    assert_int_equal(registry_static_open(e, 2, &r, why), PFE_OK);
    assert_int_equal(registry_watch(r, "shop", note, &h), PFE_OK);
    const struct registry_static_entry bad[] = {
        entry("shop", "s1", 3),
        entry("shop", longer, 3),
        entry(longer, "s3", 3),
        entry("shop", "s3", 0),
        {"shop", {.id = "s3", .port = 3}},
        entry("", "s3", 3),
        entry("shop", "", 3),
        {"shop", {.id = "s3", .address = "x", .port = 3, .weight = 1001}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct registry_static_entry all[] = {e[0], e[1], bad[i]};
        why[0] = '\0';
        assert_int_equal(registry_static_replace(r, all, 3, why), PFE_INVALID);
        assert_true(why[0] != '\0');
    }
    assert_int_equal(h.times, 1);
    registry_close(r);
    registry_close(NULL);
}

static void watches_are_bounded(void **state)
{
    (void)state;
    char why[256];
    struct registry *r;
    static struct heard h[REGISTRY_WATCHES_MAX + 1];
    assert_int_equal(registry_static_open(NULL, 0, &r, why), PFE_OK);
    for (unsigned i = 0; i < REGISTRY_WATCHES_MAX; i++)
        assert_int_equal(registry_watch(r, "shop", note, &h[i]), PFE_OK);
    assert_int_equal(registry_watch(r, "shop", note, &h[REGISTRY_WATCHES_MAX]), PFE_BUSY);
    registry_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(watchers_hear_of_their_service),
                                       cmocka_unit_test(bad_entries_change_nothing),
                                       cmocka_unit_test(watches_are_bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
