/* Who is calling, and what they may. */
#include "fixture.h"

#include "app/internal.h"

struct who {
    struct principal is;
    struct problem p;
};

static enum app_auth by(struct fix *f, const char *key, const char *authorization, bool may_block, struct who *ret)
{
    *ret = (struct who){0};
    return app_authenticate(f->app, key ? str_c(key) : STR_NONE, authorization ? str_c(authorization) : STR_NONE,
                            may_block, &ret->is, &ret->p);
}

static void issue(struct fix *f, int64_t user, char key[APP_APIKEY_LEN + 1])
{
    struct caller c = fix_caller(user, IDENT_USER);
    OK(app_apikey_issue(f->app, &c, user, key));
}

static void start(struct fix *f, int64_t user, struct app_tokens *t, char bearer[APP_TOKEN_MAX + 16])
{
    struct caller c = fix_caller(user, IDENT_USER);
    struct store_user u;
    OK(store_user_get(f->box.store, user, &u));
    OK(app_session_start(f->app, &c, &u, t));
    snprintf(bearer, APP_TOKEN_MAX + 16, "Bearer %s", t->access);
}

static void refused(struct fix *f, const char *key, const char *authorization)
{
    struct who w;
    assert_int_equal(by(f, key, authorization, true, &w), APP_AUTH_REFUSED);
    assert_int_equal(w.p.code, PFE_BAD_CREDENTIALS);
    assert_int_equal(w.is.user, 0);
}

static void a_key_is_known_from_memory_after_the_first_time(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    char key[APP_APIKEY_LEN + 1], spaced[APP_APIKEY_LEN + 8];
    struct who w;
    issue(f, ann, key);
    assert_int_equal(by(f, key, NULL, false, &w), APP_AUTH_WOULD_BLOCK);
    assert_int_equal(by(f, key, NULL, true, &w), APP_AUTH_OK);
    assert_int_equal(by(f, key, NULL, false, &w), APP_AUTH_OK);
    assert_int_equal(w.is.user, ann);
    assert_int_equal(w.is.role, IDENT_USER);
    assert_int_equal(w.is.by, CRED_APIKEY);
    snprintf(spaced, sizeof spaced, " %s\t", key);
    assert_int_equal(by(f, spaced, NULL, false, &w), APP_AUTH_OK);
    fix_advance(f, 61 * SECOND);
    assert_int_equal(by(f, key, NULL, false, &w), APP_AUTH_WOULD_BLOCK);
    assert_int_equal(by(f, key, NULL, true, &w), APP_AUTH_OK);
    struct store_apikey k;
    uint8_t hash[32];
    sha256_of(str_c(key), hash);
    OK(store_apikey_by_hash(f->box.store, hash, &k));
    assert_int_equal(k.last_used_us, fix_wall(f));
    assert_memory_equal(k.prefix, key, 11);
}

/* Which set of those remembered a key belongs to. */
static uint64_t set_of(const char *key)
{
    uint8_t hash[32];
    uint64_t h;
    sha256_of(str_c(key), hash);
    memcpy(&h, hash, sizeof h);
    return h % (AUTH_SLOTS / AUTH_WAYS);
}

static void a_key_that_shares_a_slot_is_another(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    char key[APP_APIKEY_LEN + 1], other[APP_APIKEY_LEN + 1];
    struct who w;
    issue(f, ann, key);
    assert_int_equal(by(f, key, NULL, true, &w), APP_AUTH_OK);
    unsigned n = 0;
    do
        snprintf(other, sizeof other, "pf_%0*u", APP_APIKEY_LEN - 3, n++);
    while (set_of(other) != set_of(key));
    assert_int_equal(by(f, other, NULL, false, &w), APP_AUTH_WOULD_BLOCK);
    refused(f, other, NULL);
    assert_int_equal(by(f, key, NULL, false, &w), APP_AUTH_OK);
    assert_int_equal(w.is.user, ann);
}

static void insert(struct fix *f, int64_t user, const char *text)
{
    struct store_apikey k = {.user = user, .created_us = fix_wall(f)};
    struct store_tx *tx;
    sha256_of(str_c(text), k.hash);
    memcpy(k.prefix, text, sizeof k.prefix - 1);
    OK(store_tx_begin(f->box.store, &tx));
    OK(store_apikey_insert(tx, &k));
    OK(store_tx_commit(tx));
}

/* More keys than a set takes drive one another out: that costs reads, and not a durable write for each request. */
static void keys_that_compete_for_a_set_are_not_written_each_time(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), begin = fix_wall(f);
    char keys[AUTH_WAYS + 1][APP_APIKEY_LEN + 1];
    struct who w;
    unsigned n = 0;
    for (unsigned i = 0; i < AUTH_WAYS + 1; i++) {
        do
            snprintf(keys[i], sizeof keys[i], "pf_%0*u", APP_APIKEY_LEN - 3, n++);
        while (set_of(keys[i]) != set_of(keys[0]));
        insert(f, ann, keys[i]);
    }
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < AUTH_WAYS; i++)
            assert_int_equal(by(f, keys[i], NULL, true, &w), APP_AUTH_OK);
        for (unsigned i = 0; round == 0 && i < AUTH_WAYS; i++)
            assert_int_equal(by(f, keys[i], NULL, false, &w), APP_AUTH_OK); /* so many live side by side */
        assert_int_equal(by(f, keys[AUTH_WAYS], NULL, true, &w), APP_AUTH_OK);
        fix_advance(f, SECOND);
    }
    for (unsigned i = 0; i < AUTH_WAYS + 1; i++) {
        struct store_apikey k;
        uint8_t hash[32];
        sha256_of(str_c(keys[i]), hash);
        OK(store_apikey_by_hash(f->box.store, hash, &k));
        assert_int_equal(k.last_used_us, begin);
    }
}

static void a_refusal_by_form_is_the_one_that_would_come(void **state)
{
    struct fix *f = *state;
    static const struct app_rule everybody = {.right = RIGHT_PUBLIC}, any = {.right = RIGHT_PUBLIC, .any = true},
                                 users = {.right = RIGHT_USER}, open = {.right = RIGHT_ADMIN, .open = true};
    char key[APP_APIKEY_LEN + 1];
    const char *why = NULL;
    issue(f, fix_user(f, "ann"), key);
    OK(app_presents(f->app, &everybody, STR_NONE, STR_NONE, &why));
    OK(app_presents(f->app, &open, STR_NONE, STR_NONE, &why)); /* in dev */
    OK(app_presents(f->app, &users, str_c(key), STR_NONE, &why));
    OK(app_presents(f->app, &users, STR_NONE, STR(" bearer x"), &why));
    assert_int_equal(app_presents(f->app, &users, STR_NONE, STR_NONE, &why), PFE_UNAUTHENTICATED);
    assert_non_null(why);
    static const char *const bad[][2] = {{"", NULL},      {"pf_", NULL},        {"x", "Bearer x"},
                                         {NULL, "Basic"}, {NULL, "Basic eDp5"}, {NULL, ""}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct str k = bad[i][0] ? str_c(bad[i][0]) : STR_NONE, t = bad[i][1] ? str_c(bad[i][1]) : STR_NONE;
        assert_int_equal(app_presents(f->app, &users, k, t, &why), PFE_BAD_CREDENTIALS);
        assert_int_equal(app_presents(f->app, &everybody, k, t, &why), PFE_BAD_CREDENTIALS);
        OK(app_presents(f->app, &any, k, t, &why));
        refused(f, bad[i][0], bad[i][1]);
    }
}

static void bad_credentials_are_refused(void **state)
{
    struct fix *f = *state;
    char key[APP_APIKEY_LEN + 1], bearer[APP_TOKEN_MAX + 16], bad[APP_TOKEN_MAX + 32];
    struct app_tokens t;
    struct who w;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    issue(f, ann, key);
    start(f, ann, &t, bearer);
    assert_int_equal(by(f, NULL, NULL, false, &w), APP_AUTH_OK);
    assert_int_equal(w.is.user, 0);
    assert_int_equal(w.is.role, IDENT_USER);

    refused(f, "", NULL);
    refused(f, "pf_", NULL);
    snprintf(bad, sizeof bad, "%s", key);
    bad[20] = bad[20] == 'a' ? 'b' : 'a';
    refused(f, bad, NULL);
    bad[0] = 'x';
    refused(f, bad, NULL);
    refused(f, NULL, "");
    refused(f, NULL, "Bearer");
    refused(f, NULL, "Bearer ");
    refused(f, NULL, "Basic dXNlcjpwYXNz");
    snprintf(bad, sizeof bad, "Bearer %s", t.refresh);
    refused(f, NULL, bad);
    snprintf(bad, sizeof bad, "%sx", bearer);
    refused(f, NULL, bad);
    /* each that is sent is checked */
    assert_int_equal(by(f, key, bearer, true, &w), APP_AUTH_OK);
    refused(f, key, "Bearer x.y.z");
    refused(f, "pf_x", bearer);
    char of_bob[APP_APIKEY_LEN + 1];
    issue(f, bob, of_bob);
    refused(f, of_bob, bearer);
}

static void a_token_ends_with_its_time(void **state)
{
    struct fix *f = *state;
    char bearer[APP_TOKEN_MAX + 16];
    struct app_tokens t;
    struct who w;
    start(f, fix_user(f, "ann"), &t, bearer);
    assert_int_equal(by(f, NULL, bearer, false, &w), APP_AUTH_WOULD_BLOCK);
    assert_int_equal(by(f, NULL, bearer, true, &w), APP_AUTH_OK);
    assert_int_equal(w.is.by, CRED_TOKEN);
    fix_advance(f, (APP_ACCESS_TTL_S - 30) * SECOND);
    assert_int_equal(by(f, NULL, bearer, true, &w), APP_AUTH_OK);
    fix_advance(f, 30 * SECOND); /* still remembered, and over all the same */
    refused(f, NULL, bearer);
}

static void revocation_takes_effect_at_once(void **state)
{
    struct fix *f = *state;
    char a[APP_APIKEY_LEN + 1], b[APP_APIKEY_LEN + 1], c[APP_APIKEY_LEN + 1], bearer[APP_TOKEN_MAX + 16];
    struct app_tokens t;
    struct who w, w2;
    struct problem p = {0};
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    issue(f, ann, a);
    issue(f, ann, b);
    start(f, ann, &t, bearer);
    assert_int_equal(by(f, a, NULL, true, &w), APP_AUTH_OK);
    assert_int_equal(by(f, b, NULL, true, &w2), APP_AUTH_OK);
    struct caller who = {.who = w.is};
    assert_int_equal(app_apikey_revoke(f->app, &who, bob, w.is.key_id), PFE_NOT_FOUND);
    OK(app_apikey_revoke(f->app, &who, ann, w.is.key_id));
    refused(f, a, NULL);
    assert_int_equal(app_apikey_revoke(f->app, &who, ann, w.is.key_id), PFE_NOT_FOUND);

    /* replaced: the old one is gone, others stay; only once */
    who.who = w2.is;
    OK(app_apikey_replace(f->app, &who, c, &p));
    refused(f, b, NULL);
    assert_int_equal(by(f, c, NULL, true, &w), APP_AUTH_OK);
    assert_int_equal(app_apikey_replace(f->app, &who, b, &p), PFE_BAD_CREDENTIALS);
    struct caller nobody = {0};
    assert_int_equal(app_apikey_replace(f->app, &nobody, b, &p), PFE_UNAUTHENTICATED);

    /* with a token: one more */
    assert_int_equal(by(f, NULL, bearer, true, &w), APP_AUTH_OK);
    who.who = w.is;
    OK(app_apikey_replace(f->app, &who, a, &p));
    assert_int_equal(by(f, a, NULL, true, &w), APP_AUTH_OK);
    assert_int_equal(by(f, c, NULL, true, &w), APP_AUTH_OK);

    OK(app_session_end(f->app, &who, STR_NONE, &p));
    refused(f, NULL, bearer);
    assert_int_equal(by(f, a, NULL, true, &w), APP_AUTH_OK);
}

static void a_new_role_counts_at_once(void **state)
{
    struct fix *f = *state;
    char key[APP_APIKEY_LEN + 1], bearer[APP_TOKEN_MAX + 16];
    struct app_tokens t;
    struct who w;
    struct store_user u;
    struct problem p = {0};
    int64_t root = fix_user_as(f, "root", IDENT_ADMIN, NULL), ann = fix_user(f, "ann");
    struct caller admin = fix_caller(root, IDENT_ADMIN);
    struct app_rule rule = {RIGHT_ADMIN, false};
    issue(f, ann, key);
    start(f, ann, &t, bearer);
    assert_int_equal(by(f, key, bearer, true, &w), APP_AUTH_OK);
    assert_int_equal(app_admit(f->app, &rule, &w.is, &p), PFE_FORBIDDEN);
    struct app_user_change up = {.set_role = true, .role = IDENT_ADMIN}, down = {.set_role = true, .role = IDENT_USER};
    OK(app_user_change(f->app, &admin, ann, &up, &u, &p));
    for (int i = 0; i < 2; i++) { /* by key, and by the token that was signed for a mere user */
        assert_int_equal(by(f, i ? NULL : key, i ? bearer : NULL, true, &w), APP_AUTH_OK);
        assert_int_equal(w.is.role, IDENT_ADMIN);
        OK(app_admit(f->app, &rule, &w.is, &p));
    }
    OK(app_user_change(f->app, &admin, ann, &down, &u, &p));
    assert_int_equal(by(f, NULL, bearer, true, &w), APP_AUTH_OK);
    assert_int_equal(w.is.role, IDENT_USER);

    OK(app_user_delete(f->app, &admin, ann, &p));
    refused(f, key, NULL);
    refused(f, NULL, bearer);
}

static void rules_are_what_they_say(void **state)
{
    static const struct {
        enum app_right right;
        bool open;
        enum pf_err nobody_dev, nobody_prod, user, admin;
    } rows[] = {
        {RIGHT_NONE, false, PFE_FORBIDDEN, PFE_FORBIDDEN, PFE_FORBIDDEN, PFE_FORBIDDEN},
        {RIGHT_NONE, true, PFE_FORBIDDEN, PFE_FORBIDDEN, PFE_FORBIDDEN, PFE_FORBIDDEN},
        {RIGHT_PUBLIC, false, PFE_OK, PFE_OK, PFE_OK, PFE_OK},
        {RIGHT_USER, false, PFE_UNAUTHENTICATED, PFE_UNAUTHENTICATED, PFE_OK, PFE_OK},
        {RIGHT_OWNER, false, PFE_UNAUTHENTICATED, PFE_UNAUTHENTICATED, PFE_OK, PFE_OK},
        {RIGHT_OWNER, true, PFE_OK, PFE_UNAUTHENTICATED, PFE_OK, PFE_OK},
        {RIGHT_ADMIN, false, PFE_UNAUTHENTICATED, PFE_UNAUTHENTICATED, PFE_FORBIDDEN, PFE_OK},
        {RIGHT_ADMIN, true, PFE_OK, PFE_UNAUTHENTICATED, PFE_FORBIDDEN, PFE_OK},
    };
    struct fix *f = *state;
    struct problem p = {0};
    for (int dev = 0; dev < 2; dev++) {
        fix_stop(f);
        f->cfg.dev = dev;
        fix_start(f);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            struct app_rule rule = {rows[i].right, rows[i].open};
            struct principal nobody = {0}, user = {.user = 7}, admin = {.user = 8, .role = IDENT_ADMIN};
            enum pf_err e = app_admit(f->app, &rule, &nobody, &p);
            assert_int_equal(e, dev ? rows[i].nobody_dev : rows[i].nobody_prod);
            /* an anonymous administrator only on open routes */
            assert_int_equal(nobody.role, e == PFE_OK && rule.open ? IDENT_ADMIN : IDENT_USER);
            assert_int_equal(app_admit(f->app, &rule, &user, &p), rows[i].user);
            assert_int_equal(user.role, IDENT_USER);
            assert_int_equal(app_admit(f->app, &rule, &admin, &p), rows[i].admin);
        }
    }
    struct principal nobody = {0}, user = {.user = 7}, admin = {.user = 8, .role = IDENT_ADMIN};
    OK(app_require_owner(&user, 7, &p));
    OK(app_require_owner(&admin, 7, &p));
    assert_int_equal(app_require_owner(&user, 8, &p), PFE_FORBIDDEN);
    assert_int_equal(app_require_owner(&nobody, 0, &p), PFE_FORBIDDEN);
    assert_int_equal(app_require_owner(&user, 0, &p), PFE_FORBIDDEN);
}

static void requests_are_counted_by_principal(void **state)
{
    struct fix *f = *state;
    struct caller ann = fix_caller(1, IDENT_USER), bob = fix_caller(2, IDENT_USER), nobody = fix_caller(0, IDENT_USER);
    struct app_limit l;
    app_rate_check(f->app, &ann, &l);
    assert_false(l.limited);
    assert_true(l.allowed);
    app_set_rate_limit(f->app, 2);
    for (int i = 0; i < 3; i++) {
        app_rate_check(f->app, &ann, &l);
        assert_true(l.limited);
        assert_int_equal(l.allowed, i < 2);
        assert_int_equal(l.remaining, i < 2 ? 1 - i : 0);
        assert_int_equal(l.reset_s, 60);
    }
    app_rate_check(f->app, &bob, &l);
    assert_true(l.allowed);
    app_rate_check(f->app, &nobody, &l);
    assert_int_equal(l.remaining, 1);
    fix_advance(f, 60 * SECOND);
    app_rate_check(f->app, &ann, &l);
    assert_true(l.allowed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_key_is_known_from_memory_after_the_first_time),
        ON_MEMORY(a_key_that_shares_a_slot_is_another),
        ON_BOTH(keys_that_compete_for_a_set_are_not_written_each_time),
        ON_MEMORY(a_refusal_by_form_is_the_one_that_would_come),
        ON_MEMORY(bad_credentials_are_refused),
        ON_MEMORY(a_token_ends_with_its_time),
        ON_BOTH(revocation_takes_effect_at_once),
        ON_BOTH(a_new_role_counts_at_once),
        ON_MEMORY(rules_are_what_they_say),
        ON_MEMORY(requests_are_counted_by_principal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
