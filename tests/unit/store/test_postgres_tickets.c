/* Tickets on a server shared with others: two instances sell one event, and what others do to its rows is met by the
 * group's locks and the table's constraint. */
#include "contract/store_kit.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/uuid.h"
#include "store/postgres/postgres.h"
#include "support/pg_cluster.h"

static struct store *open_beside(const struct kit *k)
{
    char why[256];
    struct store *s = NULL;
    struct postgres_options o = {.url = pg_cluster_url(pg_cluster_shared()),
                                 .schema = pg_cluster_schema(pg_cluster_shared(), k->dir)};
    if (store_postgres_open(&o, &s, why) != PFE_OK)
        fail_msg("open: %s", why);
    return s;
}

static PGconn *outsider(const struct kit *k)
{
    char sql[128];
    PGconn *pg = PQconnectdb(pg_cluster_url(pg_cluster_shared()));
    snprintf(sql, sizeof sql, "SET search_path = \"%s\"; SET lock_timeout = '200ms'",
             pg_cluster_schema(pg_cluster_shared(), k->dir));
    PQclear(PQexec(pg, sql));
    assert_int_equal(PQstatus(pg), CONNECTION_OK);
    return pg;
}

/* The SQLSTATE of what the statement failed with; "" if it did not. */
static const char *state_of(PGconn *pg, const char *sql, char out[6])
{
    PGresult *r = PQexec(pg, sql);
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    snprintf(out, 6, "%s", state ? state : "");
    PQclear(r);
    return out;
}

static int64_t new_event(struct kit *k, int64_t capacity)
{
    struct ticket_event e = {.capacity = capacity, .currency = KIT_USD, .created_us = k->now};
    struct uuid id = uuid_v7(k->now);
    struct store_tx *tx;
    memcpy(e.uuid, id.b, 16);
    assert_int_equal(store_tx_begin(k->s, &tx), PFE_OK);
    assert_int_equal(store_event_insert(tx, &e), PFE_OK);
    assert_int_equal(store_tx_commit(tx), PFE_OK);
    return e.id;
}

struct group {
    struct store_event_slot e;
    struct ticket_booking made;
    struct store_message told;
    struct store_group g;
    struct store_group_ask ask;
};

/* A booking of one ticket, and its message, decided; to be committed. */
static enum pf_err decide(struct store *s, const int64_t *event, int64_t now, struct group *x)
{
    *x = (struct group){.ask = {.events = event, .n_events = 1}};
    x->g = (struct store_group){.events = &x->e, .now_us = now};
    enum pf_err e = store_group_begin(s, &x->ask, &x->g);
    if (e)
        return e;
    struct uuid id = uuid_v7(KIT_START);
    struct ticket_ask a = {
        .id = x->g.first_booking, .guest = STR("g"), .count = 1, .now_us = x->g.now_us, .hold_us = 1};
    memcpy(a.uuid, id.b, 16);
    e = ticket_hold(&x->e.e, &a, &x->made);
    if (e) {
        store_group_abort(s);
        return e;
    }
    x->e.used = true;
    x->told = (struct store_message){.type = STR("BookingCreated"), .payload = STR("{}")};
    memcpy(x->told.uuid, id.b, 16);
    return PFE_OK;
}

static enum pf_err commit(struct store *s, const struct group *x)
{
    return store_group_commit(s, &(struct store_commit){.ts = KIT_START,
                                                        .events = &x->e,
                                                        .n_events = 1,
                                                        .created = &x->made,
                                                        .n_created = 1,
                                                        .outbox = &x->told,
                                                        .n_outbox = 1});
}

/* ---- two instances ---- */

enum { CAPACITY = 300, TRIES = 400 };

struct seller {
    struct store *s;
    int64_t event;
    unsigned sold, sold_out, failed;
};

static void *sell(void *ctx)
{
    struct seller *x = ctx;
    struct group g;
    for (int i = 0; i < TRIES; i++) {
        enum pf_err e = decide(x->s, &x->event, KIT_START, &g);
        if (e == PFE_OK)
            e = commit(x->s, &g);
        x->sold += e == PFE_OK;
        x->sold_out += e == PFE_SOLD_OUT;
        x->failed += e != PFE_OK && e != PFE_SOLD_OUT;
    }
    return NULL;
}

static void two_instances_sell_one_event(void **state)
{
    (void)state;
    struct kit *k = kit_open(KIT_POSTGRES);
    int64_t event = new_event(k, CAPACITY);
    struct seller x[2] = {{.s = k->s, .event = event}, {.s = open_beside(k), .event = event}};
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, sell, &x[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(x[0].failed + x[1].failed, 0);
    assert_int_equal(x[0].sold + x[1].sold, CAPACITY);
    assert_int_equal(x[0].sold_out + x[1].sold_out, 2 * TRIES - CAPACITY);
    struct ticket_event e;
    struct ticket_booking last;
    assert_int_equal(store_event_get(k->s, &(struct store_ref){.id = event}, &e), PFE_OK);
    assert_int_equal(e.held, CAPACITY);
    assert_int_equal(store_booking_get(k->s, &(struct store_ref){.id = CAPACITY}, &last), PFE_OK);
    assert_int_equal(store_booking_get(k->s, &(struct store_ref){.id = CAPACITY + 1}, &last), PFE_NOT_FOUND);
    /* each had its message, numbered in the order of commits and without a gap */
    struct store_message m[CAPACITY + 1];
    unsigned n = 0;
    assert_int_equal(store_outbox_list(k->s, &k->arena, 0, CAPACITY + 1, m, &n), PFE_OK);
    assert_int_equal(n, CAPACITY);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(m[i].id, i + 1);
    kit_verify(k);
    store_close(x[1].s);
    kit_close(k);
}

/* ---- others ---- */

static void rows_are_locked_and_constrained(void **state)
{
    (void)state;
    char st[6];
    struct group x;
    struct kit *k = kit_open(KIT_POSTGRES);
    int64_t event = new_event(k, 2);
    PGconn *pg = outsider(k);
    assert_int_equal(decide(k->s, &event, KIT_START, &x), PFE_OK);
    assert_string_equal(state_of(pg, "UPDATE event SET sold = sold + 1", st), "55P03"); /* it waits for the group */
    assert_int_equal(commit(k->s, &x), PFE_OK);
    assert_string_equal(state_of(pg, "UPDATE event SET held = 3", st), "23514");
    assert_string_equal(state_of(pg, "UPDATE event SET sold = -1", st), "23514");
    assert_string_equal(state_of(pg, "UPDATE event SET sold = 2", st), "23514");

    /* whoever gets past the lock: the condition and the constraint remain */
    assert_int_equal(decide(k->s, &event, KIT_START, &x), PFE_OK);
    x.e.e.held += 5;
    assert_int_equal(commit(k->s, &x), PFE_SOLD_OUT);
    assert_string_equal(state_of(pg, "UPDATE event SET sold = 1", st), ""); /* no lock is left behind */
    assert_int_equal(decide(k->s, &event, KIT_START, &x), PFE_SOLD_OUT);
    struct store_verify v;
    assert_int_equal(store_verify(k->s, &v), PFE_OK);
    assert_false(v.ok);
    assert_non_null(strstr(v.what, "stock of event 1"));
    PQfinish(pg);
    kit_close(k);
}

/* By the server's clock, whatever a process believes. */
static void the_servers_clock(void **state)
{
    (void)state;
    struct group x;
    struct kit *k = kit_open(KIT_POSTGRES);
    int64_t event = new_event(k, 10), ids[4], now = 0;
    unsigned n = 99;
    assert_int_equal(decide(k->s, &event, KIT_START, &x), PFE_OK);
    now = x.g.now_us;
    assert_true(now > KIT_START + INT64_C(1000000) * 86400 * 365);
    x.made.expires_us = now + INT64_C(3600000000);
    assert_int_equal(commit(k->s, &x), PFE_OK);
    assert_int_equal(store_bookings_due(k->s, INT64_MAX, 4, ids, &n), PFE_OK);
    assert_int_equal(n, 0);
    assert_int_equal(decide(k->s, &event, INT64_MAX, &x), PFE_OK);
    assert_true(x.g.now_us >= now && x.g.now_us < now + INT64_C(3600000000));
    x.made.expires_us = x.g.now_us;
    assert_int_equal(commit(k->s, &x), PFE_OK);
    assert_int_equal(store_bookings_due(k->s, 0, 4, ids, &n), PFE_OK);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 2);
    kit_close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_instances_sell_one_event),
        cmocka_unit_test(rows_are_locked_and_constrained),
        cmocka_unit_test(the_servers_clock),
    };
    return cmocka_run_group_tests_name("postgres_tickets", tests, NULL, NULL);
}
