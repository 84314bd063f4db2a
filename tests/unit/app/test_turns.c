/* Instances take turns at an event (app/writer_turn.c): the lock is held for a group, and nothing depends on it. */
#include "tickets.h"

enum { LOCK_US = 5000000 };

static struct {
    struct fix *f;
    struct cache_ops ops;
    enum cache_lock answer;
    unsigned asked, given;
    char key[CACHE_KEY_MAX], holder[CACHE_LOCK_LEN + 1];
    const struct ticket_event *e;
    int64_t held; /* of its tickets, when the lock was given back */
} lock;

static enum cache_lock take(struct cache *c, struct str key, int64_t ttl_us, char ret_holder[CACHE_LOCK_LEN + 1])
{
    (void)c;
    assert_int_equal(ttl_us, LOCK_US);
    assert_true(str_copy(lock.key, sizeof lock.key, key));
    snprintf(lock.holder, sizeof lock.holder, "%016u", ++lock.asked);
    memcpy(ret_holder, lock.holder, sizeof lock.holder);
    return lock.answer;
}

static void give(struct cache *c, struct str key, const char holder[CACHE_LOCK_LEN + 1])
{
    (void)c;
    assert_true(str_is(key, lock.key));
    assert_string_equal(holder, lock.holder);
    lock.held = tix_event_now(lock.f, lock.e).held;
    lock.given++;
}

static int start(void **state, int64_t lock_us)
{
    struct fix *f = fix_new(&engine_list[0]);
    fix_stop(f);
    memset(&lock, 0, sizeof lock);
    lock.f = f;
    lock.ops = *f->cache->ops;
    lock.ops.lock = take;
    lock.ops.unlock = give;
    f->cache->ops = &lock.ops;
    f->cfg.booking_lock_us = lock_us;
    fix_start(f);
    *state = f;
    return 0;
}

static int on(void **state)
{
    return start(state, LOCK_US);
}

static int off(void **state)
{
    return start(state, 0);
}

static void held_until_the_commit(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    char want[CACHE_KEY_MAX] = "lock:event:";
    struct uuid id;
    memcpy(id.b, e.uuid, sizeof id.b);
    uuid_format(&id, want + strlen(want));
    lock.e = &e;
    lock.answer = CACHE_LOCK_MINE;
    struct ticket_booking k = tix_hold(f, &e, 0, 3);
    assert_string_equal(lock.key, want);
    assert_int_equal(lock.asked, 1);
    assert_int_equal(lock.given, 1);
    assert_int_equal(lock.held, 3); /* it was committed by then */
    /* what makes no booking needs no turn */
    OK(tix_do(f, BOOKING_SETTLE, &k));
    fix_post(f, fix_deposit_of(fix_user(f, "ann"), 10));
    assert_int_equal(lock.asked, 1);
    /* nor is it kept by who is refused */
    struct booking b = tix_hold_of(&e, 0, "guest", 8);
    assert_int_equal(app_booking_do(f->app, &b), PFE_SOLD_OUT);
    assert_int_equal(lock.given, 2);
    f->fail = PFE_DISK_FULL;
    f->fail_n = 1;
    b = tix_hold_of(&e, 0, "guest", 1);
    assert_int_equal(app_booking_do(f->app, &b), PFE_DISK_FULL);
    assert_int_equal(lock.given, 3);
}

static void goes_on_without(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    lock.e = &e;
    lock.answer = CACHE_LOCK_TAKEN;
    (void)tix_hold(f, &e, 0, 1);
    assert_true(lock.asked > 1); /* waited a little */
    lock.asked = 0;
    lock.answer = CACHE_LOCK_NONE;
    (void)tix_hold(f, &e, 0, 1);
    assert_int_equal(lock.asked, 1);
    assert_int_equal(lock.given, 0); /* what was not had is not given back */
    assert_int_equal(tix_event_now(f, &e).held, 2);
}

static void is_not_asked_for_unless_told(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    (void)tix_hold(f, &e, 0, 1);
    assert_int_equal(lock.asked, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(held_until_the_commit, on, fix_end),
        cmocka_unit_test_setup_teardown(goes_on_without, on, fix_end),
        cmocka_unit_test_setup_teardown(is_not_asked_for_unless_told, off, fix_end),
    };
    return cmocka_run_group_tests_name("turns", tests, NULL, NULL);
}
