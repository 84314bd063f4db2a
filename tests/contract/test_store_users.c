/* The store port's records, one half: users, API keys, sessions, refresh tokens. */
#include "contract/records.h"

static void user_is_found_every_way(void **state)
{
    (void)state;
    struct store_user a = add_user("Anna", "Anna@Example.org"), b = add_user("bob", "bob@example.org"), u;
    assert_int_equal(a.id, 1);
    assert_int_equal(b.id, 2);

    assert_ok(store_user_get(box.store, 1, &u));
    assert_user(&u, &a);
    assert_ok(store_user_by_uuid(box.store, b.uuid, &u));
    assert_user(&u, &b);
    assert_ok(store_user_by_name(box.store, STR("aNNA"), &u));
    assert_user(&u, &a);
    assert_ok(store_user_by_email(box.store, STR("ANNA@example.ORG"), &u));
    assert_user(&u, &a);
}

static void unknown_user_leaves_the_output_alone(void **state)
{
    (void)state;
    add_user("anna", "anna@example.org");
    struct store_user u = sample_user("mark", "mark@example.org"), before = u;
    char longer[IDENT_EMAIL_MAX + 100];
    memset(longer, 'a', sizeof longer);

    assert_int_equal(store_user_get(box.store, 2, &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_get(box.store, 0, &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_get(box.store, INT64_MIN, &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_uuid(box.store, before.uuid, &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_name(box.store, STR("ann"), &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_name(box.store, STR_NONE, &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_name(box.store, STR("anna@example.org"), &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_email(box.store, STR("anna"), &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_name(box.store, (struct str){longer, sizeof longer}, &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_email(box.store, (struct str){longer, sizeof longer}, &u), PFE_NOT_FOUND);
    assert_user(&u, &before);
}

static void names_and_emails_are_unique_by_fold(void **state)
{
    (void)state;
    add_user("anna", "anna@example.org");
    struct store_user same_name = sample_user("ANNA", "other@example.org");
    struct store_user same_email = sample_user("other", "ANNA@example.org");
    struct store_user both = sample_user("Anna", "Anna@example.org");

    assert_int_equal(IN_TX(store_user_insert(tx, &same_name)), PFE_DUP_USERNAME);
    assert_int_equal(same_name.id, 0);
    assert_int_equal(IN_TX(store_user_insert(tx, &same_email)), PFE_DUP_EMAIL);
    assert_int_equal(IN_TX(store_user_insert(tx, &both)), PFE_DUP_USERNAME);

    /* only ASCII folds, and a name is not an email */
    add_user("\xc3\x89va", "eva@example.org");
    struct store_user next = add_user("\xc3\xa9va", "eva2@example.org");
    add_user("anna@example.org", "anna.2@example.org");
    assert_int_equal(next.id, 3);
}

static void refused_insert_leaves_the_transaction_usable(void **state)
{
    (void)state;
    struct store_user a = sample_user("anna", "a@example.org"), dup = sample_user("ANNA", "b@example.org"),
                      b = sample_user("bob", "b@example.org"), u;
    struct store_tx *tx = tx_begin();
    assert_ok(store_user_insert(tx, &a));
    assert_int_equal(store_user_insert(tx, &dup), PFE_DUP_USERNAME);
    assert_ok(store_user_insert(tx, &b));
    dup = b;
    snprintf(dup.email, sizeof dup.email, "A@example.org");
    assert_int_equal(store_user_update(tx, &dup), PFE_DUP_EMAIL);
    assert_ok(store_tx_commit(tx));
    assert_ok(store_user_get(box.store, 2, &u));
    assert_user(&u, &b);
    assert_int_equal(store_user_get(box.store, 3, &u), PFE_NOT_FOUND);
}

static void update_keeps_id_uuid_and_creation(void **state)
{
    (void)state;
    struct store_user a = add_user("anna", "anna@example.org"), u;
    struct store_user want = a;
    snprintf(want.username, sizeof want.username, "ANNA");
    snprintf(want.email, sizeof want.email, "new@example.org");
    snprintf(want.password_hash, sizeof want.password_hash, "$2b$04$other");
    want.role = IDENT_ADMIN;
    want.status = STORE_USER_CLOSING;
    want.updated_us = 3000;
    struct store_user given = want;
    memset(given.uuid, 0xff, sizeof given.uuid);
    given.created_us = 999;

    assert_ok(IN_TX(store_user_update(tx, &given)));
    assert_ok(store_user_get(box.store, a.id, &u));
    assert_user(&u, &want);
    assert_ok(store_user_by_uuid(box.store, a.uuid, &u));
    assert_int_equal(store_user_by_uuid(box.store, given.uuid, &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_email(box.store, STR("anna@example.org"), &u), PFE_NOT_FOUND);
    assert_ok(store_user_by_email(box.store, STR("new@example.org"), &u));

    given.id = 44;
    snprintf(given.username, sizeof given.username, "carl");
    snprintf(given.email, sizeof given.email, "carl@example.org");
    assert_int_equal(IN_TX(store_user_update(tx, &given)), PFE_NOT_FOUND);
}

static void update_refuses_what_others_have(void **state)
{
    (void)state;
    add_user("anna", "anna@example.org");
    struct store_user b = add_user("bob", "bob@example.org"), want = b, u;
    snprintf(want.username, sizeof want.username, "Anna");
    assert_int_equal(IN_TX(store_user_update(tx, &want)), PFE_DUP_USERNAME);
    snprintf(want.email, sizeof want.email, "anna@EXAMPLE.org");
    assert_int_equal(IN_TX(store_user_update(tx, &want)), PFE_DUP_USERNAME);
    snprintf(want.username, sizeof want.username, "bobby");
    assert_int_equal(IN_TX(store_user_update(tx, &want)), PFE_DUP_EMAIL);
    assert_ok(store_user_get(box.store, b.id, &u));
    assert_user(&u, &b);
}

/* Never of a name that somebody has; where an engine can tell, of nearly all that nobody has. */
static void a_free_name_is_nobodys(void **state)
{
    (void)state;
    struct store_user a = add_user("anna", "anna@example.org");
    add_user("bob", "bob@example.org");
    snprintf(a.username, sizeof a.username, "Carla");
    assert_ok(IN_TX(store_user_update(tx, &a)));
    for (int again = 0; again < 2; again++) {
        assert_false(store_user_name_free(box.store, STR("cARLA")));
        assert_false(store_user_name_free(box.store, STR("bob")));
        unsigned n = 0;
        for (unsigned i = 0; i < 1000; i++) {
            char name[16];
            snprintf(name, sizeof name, "guest-%u", i);
            n += store_user_name_free(box.store, str_c(name));
        }
        if (strcmp(box.engine->name, "sqlite") == 0)
            assert_true(n >= 990);
        else
            assert_int_equal(n, 0);
        if (!box.engine->durable)
            break;
        assert_true(engine_reopen(&box));
    }
}

static void deleting_frees_name_and_email(void **state)
{
    (void)state;
    struct store_user a = add_user("anna", "anna@example.org"), u;
    a.status = STORE_USER_CLOSING;
    assert_ok(IN_TX(store_user_update(tx, &a)));
    struct store_user heir = sample_user("ANNA", "anna@example.org");
    assert_int_equal(IN_TX(store_user_insert(tx, &heir)), PFE_DUP_USERNAME);
    assert_ok(store_user_by_name(box.store, STR("anna"), &u));
    assert_int_equal(u.status, STORE_USER_CLOSING);

    a.status = STORE_USER_DELETED;
    assert_ok(IN_TX(store_user_update(tx, &a)));
    assert_int_equal(store_user_by_name(box.store, STR("anna"), &u), PFE_NOT_FOUND);
    assert_int_equal(store_user_by_email(box.store, STR("anna@example.org"), &u), PFE_NOT_FOUND);
    assert_ok(store_user_get(box.store, a.id, &u));
    assert_user(&u, &a);
    assert_ok(store_user_by_uuid(box.store, a.uuid, &u));
    assert_user(&u, &a);

    assert_ok(IN_TX(store_user_insert(tx, &heir)));
    assert_int_equal(heir.id, 2);
    assert_ok(store_user_by_name(box.store, STR("anna"), &u));
    assert_user(&u, &heir);
    a.updated_us = 5;
    assert_ok(IN_TX(store_user_update(tx, &a)));
    a.status = STORE_USER_ACTIVE;
    assert_int_equal(IN_TX(store_user_update(tx, &a)), PFE_DUP_USERNAME);
}

static void users_are_listed_newest_first(void **state)
{
    (void)state;
    struct store_user out[8];
    unsigned n = 99;
    assert_ok(store_user_list(box.store, 0, 0, 8, out, &n));
    assert_int_equal(n, 0);
    for (int i = 1; i <= 6; i++) {
        char name[32], email[48];
        snprintf(name, sizeof name, "u%d", i);
        snprintf(email, sizeof email, "u%d@example.org", i);
        struct store_user u = add_user(name, email);
        if (i == 4) {
            u.status = STORE_USER_DELETED;
            assert_ok(IN_TX(store_user_update(tx, &u)));
        }
    }
    assert_ok(store_user_list(box.store, 0, 0, 8, out, &n));
    assert_int_equal(n, 5);
    static const int64_t all[] = {6, 5, 3, 2, 1};
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(out[i].id, all[i]);
    assert_string_equal(out[4].username, "u1");

    assert_ok(store_user_list(box.store, 5, 1, 2, out, &n));
    assert_int_equal(n, 2);
    assert_int_equal(out[0].id, 2);
    assert_int_equal(out[1].id, 1);
    assert_ok(store_user_list(box.store, 1, 0, 8, out, &n));
    assert_int_equal(n, 0);
    assert_ok(store_user_list(box.store, 0, 5, 8, out, &n));
    assert_int_equal(n, 0);
    assert_ok(store_user_list(box.store, 0, 0, 0, out, &n));
    assert_int_equal(n, 0);
}

static void the_closing_are_found_by_how_long_they_are(void **state)
{
    (void)state;
    int64_t out[4] = {-1, -1, -1, -1};
    unsigned n = 9;
    struct store_user u[4];
    assert_ok(store_users_closing(box.store, INT64_MAX, 4, out, &n));
    assert_int_equal(n, 0);
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "leaving%d", i);
        u[i] = sample_user(name, name);
        assert_ok(IN_TX(store_user_insert(tx, &u[i])));
        u[i].status = i == 0 ? STORE_USER_DELETED : STORE_USER_CLOSING;
        u[i].updated_us = 1000 * (i + 1);
        assert_ok(IN_TX(store_user_update(tx, &u[i])));
    }
    assert_ok(store_users_closing(box.store, 4000, 4, out, &n));
    assert_int_equal(n, 2);
    assert_int_equal(out[0], u[1].id);
    assert_int_equal(out[1], u[2].id);
    assert_ok(store_users_closing(box.store, 4001, 2, out, &n));
    assert_int_equal(n, 2);
    assert_int_equal(out[1], u[2].id);
    assert_ok(store_users_closing(box.store, 4001, 4, out, &n));
    assert_int_equal(n, 3);
    assert_int_equal(out[2], u[3].id);
}

static void admins_are_counted_while_active(void **state)
{
    (void)state;
    int64_t n = -1;
    assert_ok(store_admin_count(box.store, &n));
    assert_int_equal(n, 0);
    struct store_user u[4];
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "admin%d", i);
        u[i] = sample_user(name, name);
        u[i].role = i < 3 ? IDENT_ADMIN : IDENT_USER;
        assert_ok(IN_TX(store_user_insert(tx, &u[i])));
    }
    assert_ok(store_admin_count(box.store, &n));
    assert_int_equal(n, 3);
    u[0].status = STORE_USER_CLOSING;
    u[1].status = STORE_USER_DELETED;
    assert_ok(IN_TX(store_user_update(tx, &u[0])));
    assert_ok(IN_TX(store_user_update(tx, &u[1])));
    assert_ok(store_admin_count(box.store, &n));
    assert_int_equal(n, 1);
    u[2].role = IDENT_USER;
    assert_ok(IN_TX(store_user_update(tx, &u[2])));
    assert_ok(store_admin_count(box.store, &n));
    assert_int_equal(n, 0);
}

static struct store_apikey add_key(int64_t user, uint8_t tag)
{
    struct store_apikey k = {.user = user, .prefix = "pf_abcdef", .created_us = 10};
    memset(k.hash, tag, sizeof k.hash);
    assert_ok(IN_TX(store_apikey_insert(tx, &k)));
    return k;
}

static void assert_key(const struct store_apikey *want)
{
    struct store_apikey k;
    assert_ok(store_apikey_by_hash(box.store, want->hash, &k));
    assert_int_equal(k.id, want->id);
    assert_int_equal(k.user, want->user);
    assert_memory_equal(k.hash, want->hash, sizeof k.hash);
    assert_string_equal(k.prefix, want->prefix);
    assert_int_equal(k.created_us, want->created_us);
    assert_int_equal(k.last_used_us, want->last_used_us);
    assert_int_equal(k.revoked_us, want->revoked_us);
}

static void api_keys_are_listed_newest_first(void **state)
{
    (void)state;
    struct store_apikey a = add_key(7, 1), b = add_key(7, 2), c = add_key(7, 3), out[4];
    add_key(8, 4);
    unsigned n = 99;
    assert_ok(IN_TX(store_apikey_touch(tx, c.id, 20)));
    assert_ok(IN_TX(store_apikey_revoke(tx, 7, b.id, 30, NULL)));
    assert_ok(store_apikey_list(box.store, 7, 0, 4, out, &n));
    assert_int_equal(n, 2);
    assert_int_equal(out[0].id, c.id);
    assert_int_equal(out[0].last_used_us, 20);
    assert_string_equal(out[0].prefix, c.prefix);
    assert_int_equal(out[0].created_us, c.created_us);
    assert_int_equal(out[1].id, a.id);
    assert_ok(store_apikey_list(box.store, 7, 0, 1, out, &n));
    assert_int_equal(n, 1);
    assert_int_equal(out[0].id, c.id);
    assert_ok(store_apikey_list(box.store, 7, c.id, 4, out, &n));
    assert_int_equal(n, 1);
    assert_int_equal(out[0].id, a.id);
    assert_ok(store_apikey_list(box.store, 9, 0, 4, out, &n));
    assert_int_equal(n, 0);
}

static void api_keys_live_until_revoked(void **state)
{
    (void)state;
    struct store_apikey a = add_key(7, 1), b = add_key(7, 2), c = add_key(8, 3), k = {.id = 55};
    uint8_t unknown[32] = {0};
    int64_t n = -1;
    assert_int_equal(a.id, 1);
    assert_int_equal(c.id, 3);
    assert_key(&a);
    assert_int_equal(store_apikey_by_hash(box.store, unknown, &k), PFE_NOT_FOUND);
    assert_int_equal(k.id, 55);

    assert_ok(IN_TX(store_apikey_touch(tx, b.id, 20)));
    b.last_used_us = 20;
    assert_key(&b);
    assert_int_equal(IN_TX(store_apikey_touch(tx, 99, 20)), PFE_NOT_FOUND);

    /* by another user, unknown: nothing was live */
    assert_ok(IN_TX(store_apikey_revoke(tx, 8, a.id, 30, &n)));
    assert_int_equal(n, 0);
    assert_ok(IN_TX(store_apikey_revoke(tx, 7, 99, 30, &n)));
    assert_int_equal(n, 0);
    assert_key(&a);

    assert_ok(IN_TX(store_apikey_revoke(tx, 7, a.id, 30, &n)));
    assert_int_equal(n, 1);
    a.revoked_us = 30;
    assert_key(&a);
    assert_ok(IN_TX(store_apikey_revoke(tx, 7, a.id, 31, &n)));
    assert_int_equal(n, 0);
    assert_key(&a);

    struct store_apikey d = add_key(7, 4);
    assert_ok(IN_TX(store_apikey_revoke(tx, 7, 0, 40, &n)));
    assert_int_equal(n, 2);
    b.revoked_us = d.revoked_us = 40;
    assert_key(&a);
    assert_key(&b);
    assert_key(&c);
    assert_key(&d);
    assert_ok(IN_TX(store_apikey_revoke(tx, 8, 0, 50, NULL)));
    c.revoked_us = 50;
    assert_key(&c);
}

static void a_key_hash_is_taken_once(void **state)
{
    (void)state;
    struct store_apikey a = add_key(7, 1), again = a;
    again.id = 0;
    assert_int_equal(IN_TX(store_apikey_insert(tx, &again)), PFE_WRONG_STATE);
    assert_int_equal(again.id, 0);
    assert_key(&a);
}

static struct store_session add_session(int64_t user, uint8_t tag)
{
    struct store_session f = {.user = user, .created_us = 10, .expires_us = 1000};
    memset(f.family, tag, sizeof f.family);
    assert_ok(IN_TX(store_session_insert(tx, &f)));
    return f;
}

static void assert_revoked(const struct store_session *f, int64_t revoked_us)
{
    struct store_session got;
    assert_ok(store_session_get(box.store, f->family, &got));
    assert_memory_equal(got.family, f->family, sizeof got.family);
    assert_int_equal(got.user, f->user);
    assert_int_equal(got.created_us, f->created_us);
    assert_int_equal(got.expires_us, f->expires_us);
    assert_int_equal(got.revoked_us, revoked_us);
}

static void sessions_are_revoked_one_or_all(void **state)
{
    (void)state;
    struct store_session a = add_session(7, 1), b = add_session(7, 2), c = add_session(8, 3), d = add_session(8, 4);
    struct store_session got = {.user = 55};
    uint8_t unknown[16] = {0};
    assert_int_equal(store_session_get(box.store, unknown, &got), PFE_NOT_FOUND);
    assert_int_equal(got.user, 55);
    assert_revoked(&a, 0);

    assert_ok(IN_TX(store_session_revoke(tx, 8, a.family, 20))); /* not theirs */
    assert_revoked(&a, 0);
    assert_ok(IN_TX(store_session_revoke(tx, 7, a.family, 20)));
    assert_revoked(&a, 20);
    assert_ok(IN_TX(store_session_revoke(tx, 7, a.family, 21)));
    assert_revoked(&a, 20);
    assert_ok(IN_TX(store_session_revoke(tx, 7, unknown, 21)));

    assert_ok(IN_TX(store_session_revoke(tx, 7, NULL, 30)));
    assert_revoked(&a, 20);
    assert_revoked(&b, 30);
    assert_revoked(&c, 0);

    assert_ok(IN_TX(store_session_revoke(tx, 0, c.family, 40)));
    assert_revoked(&c, 40);
    assert_revoked(&d, 0);
}

static void a_refresh_token_is_used_once(void **state)
{
    (void)state;
    struct store_refresh r = {.created_us = 10, .expires_us = 1000}, got = {.used_us = 55};
    memset(r.hash, 1, sizeof r.hash);
    memset(r.family, 2, sizeof r.family);
    assert_int_equal(store_refresh_get(box.store, r.hash, &got), PFE_NOT_FOUND);
    assert_int_equal(got.used_us, 55);
    assert_int_equal(IN_TX(store_refresh_use(tx, r.hash, 20)), PFE_NOT_FOUND);

    assert_ok(IN_TX(store_refresh_insert(tx, &r)));
    assert_ok(store_refresh_get(box.store, r.hash, &got));
    assert_memory_equal(got.hash, r.hash, sizeof got.hash);
    assert_memory_equal(got.family, r.family, sizeof got.family);
    assert_int_equal(got.created_us, 10);
    assert_int_equal(got.expires_us, 1000);
    assert_int_equal(got.used_us, 0);

    struct store_tx *both = tx_begin();
    assert_ok(store_refresh_use(both, r.hash, 20));
    assert_int_equal(store_refresh_use(both, r.hash, 21), PFE_WRONG_STATE);
    store_tx_rollback(both);
    assert_ok(IN_TX(store_refresh_use(tx, r.hash, 22)));
    assert_int_equal(IN_TX(store_refresh_use(tx, r.hash, 23)), PFE_WRONG_STATE);
    assert_ok(store_refresh_get(box.store, r.hash, &got));
    assert_int_equal(got.used_us, 22);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(user_is_found_every_way),
        CASE(unknown_user_leaves_the_output_alone),
        CASE(names_and_emails_are_unique_by_fold),
        CASE(refused_insert_leaves_the_transaction_usable),
        CASE(update_keeps_id_uuid_and_creation),
        CASE(update_refuses_what_others_have),
        CASE(a_free_name_is_nobodys),
        CASE(deleting_frees_name_and_email),
        CASE(users_are_listed_newest_first),
        CASE(the_closing_are_found_by_how_long_they_are),
        CASE(admins_are_counted_while_active),
        CASE(api_keys_are_listed_newest_first),
        CASE(api_keys_live_until_revoked),
        CASE(a_key_hash_is_taken_once),
        CASE(sessions_are_revoked_one_or_all),
        CASE(a_refresh_token_is_used_once),
    };
    return records_run(tests, COUNT(tests));
}
