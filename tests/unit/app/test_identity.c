/* Registration, logins, sessions, and the life of a user. */
#include "fixture.h"

#include <time.h>

static struct app_registration registration(const char *name, const char *email, enum ident_role role)
{
    return (struct app_registration){str_c(name), str_c(email), STR("correct horse"), role};
}

static void render(void *ctx, const struct store_user *u, struct app_idem *idem)
{
    (void)u;
    idem->status = 201;
    idem->body = str_c(ctx);
}

static enum pf_err enrol(struct fix *f, struct caller c, const char *name, const char *email, enum ident_role role,
                         struct store_user *ret)
{
    struct app_registration in = registration(name, email, role);
    struct app_idem none = {0};
    struct problem p = {0};
    enum pf_err e = app_register(f->app, &c, &in, &none, NULL, NULL, ret, &p);
    assert_int_equal(p.code, e);
    return e;
}

static void registration_knows_the_first_administrator(void **state)
{
    struct fix *f = *state;
    struct caller nobody = fix_caller(0, IDENT_USER);
    struct store_user u = {0}, root = {0};
    OK(enrol(f, nobody, "ann", "ann@example.com", IDENT_USER, &u));
    assert_int_equal(u.id, 1);
    assert_string_equal(u.password_hash, "");
    OK(enrol(f, nobody, "root", "root@example.com", IDENT_ADMIN, &root));
    assert_int_equal(root.role, IDENT_ADMIN);
    assert_int_equal(enrol(f, nobody, "eve", "eve@example.com", IDENT_ADMIN, &u), PFE_FORBIDDEN);
    assert_int_equal(enrol(f, fix_caller(1, IDENT_USER), "eve", "eve@example.com", IDENT_ADMIN, &u), PFE_FORBIDDEN);
    OK(enrol(f, fix_caller(root.id, IDENT_ADMIN), "ops", "ops@example.com", IDENT_ADMIN, &u));
    assert_int_equal(enrol(f, nobody, "ANN", "other@example.com", IDENT_USER, &u), PFE_DUP_USERNAME);
    assert_int_equal(enrol(f, nobody, "other", "Ann@Example.com", IDENT_USER, &u), PFE_DUP_EMAIL);
    assert_int_equal(enrol(f, nobody, "a b", "x@example.com", IDENT_USER, &u), PFE_INVALID);
    assert_int_equal(fix_audits(f, "user.create"), 5);
}

static void a_registration_is_made_once_by_its_key(void **state)
{
    struct fix *f = *state;
    struct caller nobody = fix_caller(0, IDENT_USER);
    struct app_registration in = registration("ann", "ann@example.com", IDENT_USER);
    struct app_idem i = {.key = STR("k")}, again = i;
    struct store_user u;
    struct problem p = {0};
    char answer[] = "the answer";
    OK(app_register(f->app, &nobody, &in, &i, render, answer, &u, &p));
    OK(app_idem_lookup(f->app, &f->arena, &again));
    assert_true(again.replayed);
    assert_true(str_eq(again.body, str_c(answer)));
    in = registration("bob", "bob@example.com", IDENT_USER); /* a second one with the key: all or nothing */
    assert_int_equal(app_register(f->app, &nobody, &in, &i, render, answer, &u, &p), PFE_IN_FLIGHT);
    assert_int_equal(store_user_by_name(f->box.store, STR("bob"), &u), PFE_NOT_FOUND);
}

/* ---- logins ---- */

static enum pf_err login(struct fix *f, const char *address, const char *name, const char *password, bool count_all,
                         struct problem *p)
{
    struct caller c = {.address = str_c(address)};
    struct store_user u;
    bool email = strchr(name, '@');
    *p = (struct problem){0};
    enum pf_err e = app_login(f->app, &c, email ? STR_NONE : str_c(name), email ? str_c(name) : STR_NONE,
                              str_c(password), count_all, &u, p);
    if (e == PFE_OK)
        assert_string_equal(u.password_hash, "");
    return e;
}

static void the_sixth_login_waits(void **state)
{
    struct fix *f = *state;
    struct problem p;
    fix_user_as(f, "ann", IDENT_USER, "correct horse");
    for (int i = 0; i < 5; i++)
        OK(login(f, "192.0.2.1", i % 2 ? "ann@example.com" : "ANN", "correct horse", true, &p)); /* one account */
    assert_int_equal(login(f, "192.0.2.1", "ann", "correct horse", true, &p), PFE_RATE_LIMITED);
    assert_in_range(p.retry_after_s, 1, 60);
    OK(login(f, "192.0.2.2", "ann", "correct horse", true, &p));
    fix_advance(f, 30 * SECOND);
    assert_int_equal(login(f, "192.0.2.1", "ann", "wrong", true, &p), PFE_RATE_LIMITED);
    assert_in_range(p.retry_after_s, 1, 30);
    assert_int_equal(fix_audits(f, "login.refused"), 1); /* one row a window */
    fix_advance(f, 30 * SECOND);
    OK(login(f, "192.0.2.1", "ann", "correct horse", true, &p));
}

static void only_failures_count_where_the_surface_says_so(void **state)
{
    struct fix *f = *state;
    struct problem p;
    fix_user_as(f, "ann", IDENT_USER, "correct horse");
    for (int i = 0; i < 20; i++)
        OK(login(f, "192.0.2.1", "ann@example.com", "correct horse", false, &p));
    for (int i = 0; i < 5; i++)
        assert_int_equal(login(f, "192.0.2.1", "ann", "wrong", false, &p), PFE_BAD_CREDENTIALS);
    assert_int_equal(login(f, "192.0.2.1", "ann", "correct horse", false, &p), PFE_RATE_LIMITED);
    for (int i = 0; i < 5; i++) /* unknown names alike */
        assert_int_equal(login(f, "192.0.2.1", "nobody", "wrong", false, &p), PFE_BAD_CREDENTIALS);
    assert_int_equal(login(f, "192.0.2.1", "nobody", "wrong", false, &p), PFE_RATE_LIMITED);
    fix_advance(f, 60 * SECOND);
    OK(login(f, "192.0.2.1", "ann", "correct horse", false, &p));
    assert_int_equal(fix_audits(f, "login.refused"), 12);
}

static int64_t cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec / 1000;
}

static void an_unknown_name_takes_as_long(void **state)
{
    struct fix *f = *state;
    struct problem p;
    int64_t took[2] = {INT64_MAX, INT64_MAX};
    fix_stop(f);
    f->cfg.bcrypt_cost = 9;
    fix_start(f);
    struct store_user u;
    OK(enrol(f, fix_caller(0, IDENT_USER), "ann", "ann@example.com", IDENT_USER, &u));
    for (int i = 0; i < 6; i++) { /* the least of three each */
        char address[16];
        snprintf(address, sizeof address, "192.0.2.%d", i);
        int64_t t = cpu_us();
        assert_int_equal(login(f, address, i % 2 ? "ann" : "nobody", "wrong", true, &p), PFE_BAD_CREDENTIALS);
        t = cpu_us() - t;
        took[i % 2] = t < took[i % 2] ? t : took[i % 2];
    }
    assert_true(took[0] > took[1] / 2 && took[0] < took[1] * 2);
}

/* ---- sessions ---- */

static struct caller of_token(struct fix *f, const struct app_tokens *t)
{
    char bearer[APP_TOKEN_MAX + 16];
    struct caller c = fix_caller(0, IDENT_USER);
    struct problem p = {0};
    snprintf(bearer, sizeof bearer, "Bearer %s", t->access);
    if (app_authenticate(f->app, STR_NONE, str_c(bearer), true, &c.who, &p) != APP_AUTH_OK)
        c.who = (struct principal){0};
    return c;
}

static struct app_tokens start(struct fix *f, int64_t user)
{
    struct caller c = fix_caller(user, IDENT_USER);
    struct store_user u;
    struct app_tokens t;
    OK(store_user_get(f->box.store, user, &u));
    OK(app_session_start(f->app, &c, &u, &t));
    assert_int_equal(t.expires_in_s, APP_ACCESS_TTL_S);
    return t;
}

static enum pf_err refresh(struct fix *f, const struct app_tokens *old, struct app_tokens *ret)
{
    struct caller c = fix_caller(0, IDENT_USER);
    struct store_user u;
    struct problem p = {0};
    enum pf_err e = app_session_refresh(f->app, &c, str_c(old->refresh), &u, ret, &p);
    assert_int_equal(p.code, e);
    if (e == PFE_OK)
        assert_string_equal(u.password_hash, "");
    return e;
}

static void a_refresh_token_is_used_once(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user_as(f, "ann", IDENT_USER, "correct horse");
    struct app_tokens first = start(f, ann), other = start(f, ann), second, third, none;
    OK(refresh(f, &first, &second));
    assert_string_not_equal(first.refresh, second.refresh);
    OK(refresh(f, &second, &third));
    assert_int_equal(of_token(f, &first).who.user, ann);
    assert_int_equal(of_token(f, &third).who.user, ann);
    assert_int_equal(refresh(f, &first, &none), PFE_BAD_CREDENTIALS); /* somebody has a copy */
    assert_int_equal(of_token(f, &third).who.user, 0);
    assert_int_equal(refresh(f, &third, &none), PFE_BAD_CREDENTIALS);
    assert_int_equal(fix_audits(f, "session.reuse"), 1);
    assert_int_equal(of_token(f, &other).who.user, ann); /* another session of the same user */
    OK(refresh(f, &other, &second));

    fix_advance(f, APP_REFRESH_TTL_S * SECOND);
    assert_int_equal(refresh(f, &second, &none), PFE_BAD_CREDENTIALS);
    snprintf(second.refresh, sizeof second.refresh, "rt_nonsense");
    assert_int_equal(refresh(f, &second, &none), PFE_BAD_CREDENTIALS);
}

static void logging_out_ends_one_session(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    struct app_tokens a = start(f, ann), b = start(f, ann), c = start(f, bob), none;
    struct problem p = {0};
    struct caller who = of_token(f, &a);
    OK(app_session_end(f->app, &who, STR_NONE, &p));
    assert_int_equal(of_token(f, &a).who.user, 0);
    assert_int_equal(refresh(f, &a, &none), PFE_BAD_CREDENTIALS);
    assert_int_equal(of_token(f, &b).who.user, ann);
    who = of_token(f, &b);
    assert_int_equal(app_session_end(f->app, &who, str_c(c.refresh), &p), PFE_BAD_CREDENTIALS);
    assert_int_equal(of_token(f, &c).who.user, bob);
    who.who.by = CRED_APIKEY;
    p = (struct problem){0};
    assert_int_equal(app_session_end(f->app, &who, STR_NONE, &p), PFE_INVALID);
    OK(app_session_end(f->app, &who, str_c(b.refresh), &p));
    assert_int_equal(of_token(f, &b).who.user, 0);
}

/* ---- users ---- */

static void a_user_changes_what_is_theirs(void **state)
{
    struct fix *f = *state;
    int64_t root = fix_user_as(f, "root", IDENT_ADMIN, NULL), ann = fix_user_as(f, "ann", IDENT_USER, "correct horse");
    struct caller self = fix_caller(ann, IDENT_USER), admin = fix_caller(root, IDENT_ADMIN);
    struct app_tokens t = start(f, ann);
    struct store_user u;
    struct problem p = {0};
    OK(app_user(f->app, ann, true, &u));
    struct app_user_change name = {.username = STR("anna")}, taken = {.username = STR("ROOT")},
                           role = {.set_role = true, .role = IDENT_ADMIN}, same = {.set_role = true},
                           secret = {.password = STR("new password")}, bad = {.email = STR("no address")};
    OK(app_user_change(f->app, &self, ann, &name, &u, &p));
    OK(app_user(f->app, ann, true, &u)); /* not what was cached */
    assert_string_equal(u.username, "anna");
    assert_string_equal(u.password_hash, "");
    assert_int_equal(app_user_change(f->app, &self, ann, &taken, &u, &p), PFE_DUP_USERNAME);
    assert_int_equal(app_user_change(f->app, &self, ann, &role, &u, &p), PFE_FORBIDDEN);
    assert_int_equal(app_user_change(f->app, &self, ann, &bad, &u, &p), PFE_INVALID);
    OK(app_user_change(f->app, &self, ann, &same, &u, &p)); /* the role that it has anyway */
    assert_int_equal(app_user_change(f->app, &admin, 99, &name, &u, &p), PFE_NOT_FOUND);
    assert_int_equal(of_token(f, &t).who.user, ann);
    OK(app_user_change(f->app, &self, ann, &secret, &u, &p));
    assert_int_equal(of_token(f, &t).who.user, 0); /* a new password ends all sessions */
    OK(login(f, "192.0.2.1", "anna", "new password", true, &p));
    assert_int_equal(login(f, "192.0.2.1", "anna", "correct horse", true, &p), PFE_BAD_CREDENTIALS);
}

/* The cache may still say what the row no longer does: the row decides. */
static void a_cached_role_grants_nothing(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user_as(f, "ann", IDENT_ADMIN, NULL);
    fix_user_as(f, "root", IDENT_ADMIN, NULL);
    struct store_user u;
    struct store_tx *tx;
    struct problem p = {0};
    OK(app_user(f->app, ann, true, &u));
    OK(store_user_get(f->box.store, ann, &u));
    u.role = IDENT_USER; /* committed, not yet announced */
    OK(store_tx_begin(f->box.store, &tx));
    OK(store_user_update(tx, &u));
    OK(store_tx_commit(tx));
    struct caller self = fix_caller(ann, IDENT_USER);
    struct app_user_change role = {.set_role = true, .role = IDENT_ADMIN};
    assert_int_equal(app_user_change(f->app, &self, ann, &role, &u, &p), PFE_FORBIDDEN);
    OK(store_user_get(f->box.store, ann, &u));
    assert_int_equal(u.role, IDENT_USER);
}

static void there_is_always_an_administrator(void **state)
{
    struct fix *f = *state;
    int64_t root = fix_user_as(f, "root", IDENT_ADMIN, NULL), ops = fix_user_as(f, "ops", IDENT_ADMIN, NULL);
    struct caller admin = fix_caller(root, IDENT_ADMIN);
    struct app_user_change down = {.set_role = true, .role = IDENT_USER};
    struct store_user u;
    struct problem p = {0};
    OK(app_user_change(f->app, &admin, ops, &down, &u, &p));
    assert_int_equal(app_user_change(f->app, &admin, root, &down, &u, &p), PFE_LAST_ADMIN);
    assert_int_equal(app_user_delete(f->app, &admin, root, &p), PFE_LAST_ADMIN);
    OK(store_user_get(f->box.store, root, &u));
    assert_int_equal(u.status, STORE_USER_ACTIVE);
    struct app_user_change up = {.set_role = true, .role = IDENT_ADMIN};
    OK(app_user_change(f->app, &admin, ops, &up, &u, &p));
    OK(app_user_delete(f->app, &admin, root, &p));
}

static void deleting_frees_the_name_and_keeps_the_history(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    struct store_user u;
    uint8_t uuid[16];
    int64_t seq = fix_post(f, fix_deposit_of(ann, 100));
    OK(app_user(f->app, ann, true, &u));
    assert_int_equal(app_user_delete(f->app, &admin, ann, &p), PFE_HOLDS_MONEY);
    assert_int_equal(err_info(p.code)->http, 409);
    fix_post(f, fix_transfer(ann, bob, 100)); /* still there, still able to pay */
    OK(app_user_delete(f->app, &admin, ann, &p));
    assert_int_equal(app_user(f->app, ann, true, &u), PFE_NOT_FOUND);
    assert_int_equal(app_user_delete(f->app, &admin, ann, &p), PFE_NOT_FOUND);
    OK(app_user_uuid(f->app, ann, true, uuid));
    struct movement m = fix_transfer(bob, ann, 1);
    assert_int_equal(fix_move(f, &m), PFE_ACCOUNT_CLOSED);
    m.currency = EUR;
    assert_int_equal(fix_move(f, &m), PFE_NOT_FOUND);
    struct app_tx t;
    OK(app_transaction(f->app, &(struct principal){.role = IDENT_ADMIN}, &f->arena, seq, true, &t));
    assert_int_equal(t.credit_owner, ann);
    int64_t second = fix_user(f, "ann");
    assert_true(second > ann);
    fix_post(f, fix_deposit_of(second, 1));
    fix_verify(f);
}

/* A crash between the steps leaves the user closing: nothing opens meanwhile, and a second DELETE goes on. */
static void a_deletion_goes_on_after_a_crash(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    struct store_user u;
    struct store_tx *tx;
    struct job open = {.kind = JOB_OPEN, .user = ann, .currency = USD};
    OK(app_submit_wait(f->app, &open));
    OK(store_user_get(f->box.store, ann, &u));
    u.status = STORE_USER_CLOSING;
    OK(store_tx_begin(f->box.store, &tx));
    OK(store_user_update(tx, &u));
    OK(store_tx_commit(tx));
    fix_restart(f);
    open = (struct job){.kind = JOB_OPEN, .user = ann, .currency = EUR};
    assert_int_equal(app_submit_wait(f->app, &open), PFE_NOT_FOUND);
    OK(app_user_delete(f->app, &admin, ann, &p));
    OK(store_user_get(f->box.store, ann, &u));
    assert_int_equal(u.status, STORE_USER_DELETED);
    assert_int_equal(fix_account(f, ann, USD).flags, LEDGER_CLOSED);
}

static void leave_closing(struct fix *f, int64_t user)
{
    struct store_user u;
    struct store_tx *tx;
    OK(store_user_get(f->box.store, user, &u));
    u.status = STORE_USER_CLOSING;
    u.updated_us = fix_wall(f);
    OK(store_tx_begin(f->box.store, &tx));
    OK(store_user_update(tx, &u));
    OK(store_tx_commit(tx));
}

static enum store_user_status status_of(struct fix *f, int64_t user)
{
    struct store_user u;
    OK(store_user_get(f->box.store, user, &u));
    return u.status;
}

/* Nobody who is CLOSING can sign in and ask again: one with money would be locked out for good. */
static void a_deletion_left_half_way_is_ended(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), cat = fix_user(f, "cat");
    fix_post(f, fix_deposit_of(bob, 100));
    leave_closing(f, ann);
    leave_closing(f, bob);
    app_users_close_due(f->app); /* perhaps somebody is at it */
    assert_int_equal(status_of(f, ann), STORE_USER_CLOSING);
    fix_advance(f, APP_CLOSING_US + SECOND);
    leave_closing(f, cat);
    app_users_close_due(f->app);
    assert_int_equal(status_of(f, ann), STORE_USER_DELETED);
    assert_int_equal(status_of(f, bob), STORE_USER_ACTIVE);
    assert_int_equal(status_of(f, cat), STORE_USER_CLOSING);
    fix_advance(f, APP_CLOSING_US + SECOND);
    app_users_close_due(f->app);
    assert_int_equal(status_of(f, cat), STORE_USER_DELETED);
    assert_int_equal(fix_balance(f, bob), 100);
}

static unsigned untold; /* so many more times the other instances are out of reach */

static bool del_many(struct cache *c, const struct str *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        c->ops->del(c, keys[i]);
    return untold == 0 || untold-- == 0;
}

static void a_deletion_does_not_stop_where_others_cannot_be_told(void **state)
{
    struct fix *f = *state;
    struct caller admin = fix_caller(0, IDENT_ADMIN);
    struct cache_ops ops = *f->cache->ops;
    const struct cache_ops *was = f->cache->ops;
    struct problem p = {0};
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), cat = fix_user(f, "cat");
    fix_post(f, fix_deposit_of(cat, 100));
    ops.del_many = del_many;
    f->cache->ops = &ops;
    untold = 1;
    OK(app_user_delete(f->app, &admin, ann, &p));
    assert_int_equal(status_of(f, ann), STORE_USER_DELETED);
    untold = 2; /* then it is said, and it is done */
    assert_int_equal(app_user_delete(f->app, &admin, bob, &p), PFE_INTERNAL);
    assert_int_equal(status_of(f, bob), STORE_USER_DELETED);
    untold = 1;
    assert_int_equal(app_user_delete(f->app, &admin, cat, &p), PFE_HOLDS_MONEY);
    assert_int_equal(status_of(f, cat), STORE_USER_ACTIVE);
    f->cache->ops = was;
}

static void users_are_named_by_number_or_uuid(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), id = 0;
    struct store_user u, page[2];
    unsigned n;
    char text[UUID_TEXT_LEN + 1];
    fix_user(f, "bob");
    fix_user(f, "cat");
    assert_int_equal(app_user(f->app, ann, false, &u), PFE_BUSY);
    OK(app_user(f->app, ann, true, &u));
    OK(app_user(f->app, ann, false, &u));
    struct uuid uuid;
    memcpy(uuid.b, u.uuid, 16);
    uuid_format(&uuid, text);
    assert_int_equal(app_user_ref(f->app, str_c(text), false, &id), PFE_BUSY);
    OK(app_user_ref(f->app, str_c(text), true, &id));
    assert_int_equal(id, ann);
    OK(app_user_ref(f->app, STR("17"), false, &id));
    assert_int_equal(id, 17);
    assert_int_equal(app_user_ref(f->app, STR("0"), true, &id), PFE_NOT_FOUND);
    assert_int_equal(app_user_ref(f->app, STR("-1"), true, &id), PFE_NOT_FOUND);
    assert_int_equal(app_user_ref(f->app, STR("1x"), true, &id), PFE_INVALID);
    assert_int_equal(app_user_ref(f->app, STR("00000000-0000-7000-8000-000000000000"), true, &id), PFE_NOT_FOUND);
    OK(app_users(f->app, 0, 0, 2, page, &n));
    assert_int_equal(n, 2);
    assert_string_equal(page[0].username, "cat");
    OK(app_users(f->app, page[1].id, 0, 2, page, &n));
    assert_int_equal(n, 1);
    assert_int_equal(page[0].id, ann);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(registration_knows_the_first_administrator),
        ON_BOTH(a_registration_is_made_once_by_its_key),
        ON_MEMORY(the_sixth_login_waits),
        ON_MEMORY(an_unknown_name_takes_as_long),
        ON_MEMORY(only_failures_count_where_the_surface_says_so),
        ON_BOTH(a_refresh_token_is_used_once),
        ON_MEMORY(logging_out_ends_one_session),
        ON_BOTH(a_user_changes_what_is_theirs),
        ON_MEMORY(a_cached_role_grants_nothing),
        ON_MEMORY(there_is_always_an_administrator),
        ON_BOTH(deleting_frees_the_name_and_keeps_the_history),
        ON_BOTH(a_deletion_goes_on_after_a_crash),
        ON_BOTH(a_deletion_left_half_way_is_ended),
        ON_MEMORY(a_deletion_does_not_stop_where_others_cannot_be_told),
        ON_MEMORY(users_are_named_by_number_or_uuid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
