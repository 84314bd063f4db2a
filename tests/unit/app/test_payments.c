/* Payments of bookings over the bus in the process: relay, worker and ledger together; and events with their documents.
 */
#include "tickets.h"

#include "app/events.h"
#include "app/payments.h"
#include "base/rand.h"
#include "bus/local/local.h"
#include "codec/json_in.h"
#include "documents/memory/memory.h"
#include "worker/relay.h"

enum { WAIT_US = 20 * SECOND, NAP_NS = 2000000 };

struct paying {
    struct bus *bus;
    struct payments *payments;
    struct relay *relay;
};

static struct paying now;

static void start_on(struct fix *f, struct bus *bus)
{
    now.bus = bus;
    now.payments = payments_start(f->app, now.bus);
    assert_non_null(now.payments);
    now.relay = relay_start(f->app, now.bus);
    assert_non_null(now.relay);
}

static void start(struct fix *f)
{
    struct bus *bus = bus_local_open(0);
    assert_non_null(bus);
    start_on(f, bus);
}

/* As main does it; the app ends in between. Returns what was not settled by then. */
static uint64_t stop(struct fix *f)
{
    struct bus_stats s;
    bus_quiesce(now.bus);
    payments_stop(now.payments);
    relay_stop(now.relay);
    fix_stop(f);
    bus_stats(now.bus, &s);
    relay_free(now.relay);
    bus_close(now.bus);
    payments_free(now.payments);
    now = (struct paying){0};
    return s.unsettled;
}

/* A test that failed must not leave threads behind. */
static int end(void **state)
{
    struct fix *f = *state;
    if (now.bus) {
        f->fail_n = 0;
        (void)stop(f);
    }
    fix_free(f);
    return 0;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
}

static struct ticket_booking decided(struct fix *f, const struct ticket_booking *k)
{
    int64_t until = clock_mono(clock_system()) + WAIT_US;
    struct ticket_booking b = tix_now(f, k);
    for (; ticket_pending(b.state) && clock_mono(clock_system()) < until; b = tix_now(f, k))
        nap();
    assert_false(ticket_pending(b.state));
    return b;
}

static void until_empty(struct fix *f)
{
    struct store_message m;
    unsigned n = 1;
    for (int64_t until = clock_mono(clock_system()) + WAIT_US; n && clock_mono(clock_system()) < until; nap())
        OK(app_outbox_next(f->app, &f->arena, 0, 1, &m, &n));
    assert_int_equal(n, 0);
}

static void bookings_are_paid(void **state)
{
    struct fix *f = *state;
    start(f);
    struct ticket_event e = tix_event(f, 0, 1000, 0);
    struct ticket_booking k[100];
    int64_t sold = 0;
    for (int i = 0; i < 100; i++)
        k[i] = tix_hold(f, &e, 0, 1 + i % 8);
    for (int i = 0; i < 100; i++) {
        enum ticket_state want = k[i].count <= TICKET_MOCK_MAX ? TICKET_CONFIRMED : TICKET_CANCELLED;
        assert_int_equal(decided(f, &k[i]).state, want);
        sold += want == TICKET_CONFIRMED ? k[i].count : 0;
    }
    until_empty(f);
    struct ticket_event after = tix_event_now(f, &e);
    assert_int_equal(after.held, 0);
    assert_int_equal(after.sold, sold);
    fix_verify(f);
    assert_int_equal(stop(f), 0);
}

/* Each commit wakes the relay: looking by itself it would take a second for each of these. */
static void one_after_the_other(void **state)
{
    enum { N = 15 };
    struct fix *f = *state;
    start(f);
    struct ticket_event e = tix_event(f, 0, 1000, 0);
    int64_t begin = clock_mono(clock_system());
    for (int i = 0; i < N; i++) {
        struct ticket_booking k = tix_hold(f, &e, 0, 1);
        assert_int_equal(decided(f, &k).state, TICKET_CONFIRMED);
    }
    assert_int_equal(stop(f), 0);
    assert_true(clock_mono(clock_system()) - begin < N * SECOND / 2);
}

/* For longer than deliveries are tried: the message waits at the worker, and does not die. */
static void a_store_that_takes_nothing_for_long(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    struct ticket_booking k = tix_hold(f, &e, 0, 2);
    pthread_mutex_lock(&f->lock);
    f->fail = PFE_DISK_FULL;
    f->fail_n = BUS_TRIES_MAX + 2;
    pthread_mutex_unlock(&f->lock);
    start(f);
    assert_int_equal(decided(f, &k).state, TICKET_CONFIRMED);
    until_empty(f);
    struct bus_stats s;
    bus_stats(now.bus, &s);
    assert_int_equal(s.dead, 0);
    assert_int_equal(s.again, 0);
    assert_int_equal(tix_event_now(f, &e).sold, 2);
    assert_int_equal(stop(f), 0);
}

static void what_waits_when_it_stops_comes_again(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    struct ticket_booking k = tix_hold(f, &e, 0, 2);
    pthread_mutex_lock(&f->lock);
    f->fail = PFE_DISK_FULL;
    f->fail_n = 1000000;
    pthread_mutex_unlock(&f->lock);
    start(f);
    struct metric_counter *retried = metric_counter(f->metrics, "payflow_payments_total", "", "outcome=\"retried\"");
    for (int64_t until = clock_mono(clock_system()) + WAIT_US; clock_mono(clock_system()) < until; nap())
        if (metric_counter_value(retried))
            break;
    assert_true(metric_counter_value(retried) > 0);
    assert_int_equal(stop(f), 0);
    f->fail_n = 0;
    fix_start(f);
    assert_int_equal(tix_now(f, &k).state, TICKET_HELD);
    start(f);
    assert_int_equal(decided(f, &k).state, TICKET_CONFIRMED);
    assert_int_equal(stop(f), 0);
}

/* ---- a bus that does its worst ---- */

enum { TIMES_MAX = 5, COPIES = 64 };

/* Delivers each message one to five times, in any order, and keeps a tenth of its confirmations to itself. */
struct unruly {
    struct bus bus;
    struct bus *inner;
    uint64_t seed;
    unsigned published, delivered, dropped;
};

static uint64_t draw(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

/* The copies of one slice. */
static enum pf_err deliver(struct unruly *u, const struct bus_message *m, const unsigned *of, unsigned n, bool *taken)
{
    struct bus_message copy[COPIES];
    bool yes[COPIES];
    for (unsigned i = 0; i < n; i++)
        copy[i] = m[of[i]];
    enum pf_err e = bus_publish(u->inner, copy, n, yes);
    for (unsigned i = 0; i < n; i++)
        taken[of[i]] &= e == PFE_OK && yes[i];
    u->delivered += n;
    return e;
}

static enum pf_err unruly_publish(struct bus *b, const struct bus_message *m, size_t n, bool *ret_taken)
{
    struct unruly *u = (struct unruly *)b;
    u->published += (unsigned)n;
    unsigned of[BUS_BATCH_MAX * TIMES_MAX], k = 0;
    for (unsigned i = 0; i < n; i++) {
        ret_taken[i] = true;
        for (uint64_t times = 1 + draw(&u->seed) % TIMES_MAX; times; times--)
            of[k++] = i;
    }
    for (unsigned i = k - 1; i > 0; i--) {
        unsigned at = (unsigned)(draw(&u->seed) % (i + 1)), x = of[i];
        of[i] = of[at];
        of[at] = x;
    }
    enum pf_err e = PFE_OK;
    for (unsigned i = 0; i < k && e == PFE_OK; i += COPIES)
        e = deliver(u, m, of + i, k - i < COPIES ? k - i : COPIES, ret_taken);
    for (unsigned i = 0; i < n; i++)
        if (draw(&u->seed) % 10 == 0) {
            ret_taken[i] = false;
            u->dropped++;
        }
    return e;
}

static enum pf_err unruly_subscribe(struct bus *b, const struct bus_subscription *s)
{
    return bus_subscribe(((struct unruly *)b)->inner, s);
}

static void unruly_quiesce(struct bus *b)
{
    bus_quiesce(((struct unruly *)b)->inner);
}

static void unruly_stats(struct bus *b, struct bus_stats *ret)
{
    bus_stats(((struct unruly *)b)->inner, ret);
}

static void unruly_close(struct bus *b)
{
    bus_close(((struct unruly *)b)->inner);
}

static void the_bus_does_its_worst(void **state)
{
    enum { N = 400, PRICE = 10 };
    static const struct bus_ops ops = {.close = unruly_close,
                                       .publish = unruly_publish,
                                       .subscribe = unruly_subscribe,
                                       .quiesce = unruly_quiesce,
                                       .stats = unruly_stats};
    struct fix *f = *state;
    const char *given = getenv("TEST_SEED");
    static struct unruly u; /* a test that failed is ended with it */
    uint64_t seed = given ? strtoull(given, NULL, 10) : rand_u64();
    print_message("TEST_SEED=%llu\n", (unsigned long long)seed);
    u = (struct unruly){.bus.ops = &ops, .seed = seed + 1};
    int64_t ann = fix_user(f, "ann"), org = fix_user(f, "org");
    fix_post(f, fix_deposit_of(ann, N * PRICE)); /* not enough for all: on the average they want half as much again */
    struct ticket_event e = tix_event(f, org, N * 3, PRICE);
    u.inner = bus_local_open(0);
    assert_non_null(u.inner);
    start_on(f, &u.bus);
    struct ticket_booking k[N];
    for (unsigned i = 0; i < N; i++) {
        k[i] = tix_hold(f, &e, ann, 1 + (int64_t)(draw(&seed) % 2));
        if (i % 10 == 0) { /* its buyer thinks better of it, before or after */
            enum pf_err err = tix_do(f, BOOKING_CANCEL, &k[i]);
            assert_true(err == PFE_OK || err == PFE_WRONG_STATE);
        }
    }
    int64_t sold = 0;
    for (unsigned i = 0; i < N; i++) {
        struct ticket_booking b = decided(f, &k[i]);
        assert_int_equal(b.version, 2); /* whatever came again moved nothing */
        sold += b.state == TICKET_CONFIRMED ? b.count : 0;
    }
    until_empty(f);
    struct ticket_event after = tix_event_now(f, &e);
    assert_int_equal(after.held, 0);
    assert_int_equal(after.sold, sold);
    assert_int_equal(fix_balance(f, org), sold * PRICE);
    assert_int_equal(fix_balance(f, ann), (N - sold) * PRICE);
    assert_int_equal(fix_account(f, ann, USD).held, 0);
    fix_verify(f);
    assert_int_equal(stop(f), 0);
    print_message("%u messages delivered %u times, %u confirmations dropped\n", 2 * N, u.delivered, u.dropped);
    assert_true(u.delivered > 4 * N && u.dropped > N / 10);
    assert_true(u.published > 2 * N + u.dropped / 2); /* what was not taken came again */
}

static void messages_that_nobody_can_read(void **state)
{
    static const char *const bad[] = {"",
                                      "nonsense",
                                      "[]",
                                      "{}",
                                      "{\"version\":2,\"booking_id\":\"01890000-0000-7000-8000-000000000000\"}",
                                      "{\"version\":\"1\",\"booking_id\":\"01890000-0000-7000-8000-000000000000\"}",
                                      "{\"version\":1,\"booking_id\":\"01890000\"}",
                                      "{\"version\":1,\"booking_id\":17}"};
    enum { N = sizeof bad / sizeof bad[0] };
    struct fix *f = *state;
    start(f);
    struct bus_message m[N];
    bool taken[N];
    relay_stop(now.relay); /* its publishes and ours are not to meet */
    for (unsigned i = 0; i < N; i++) {
        struct uuid id = uuid_v7(fix_wall(f));
        m[i] = (struct bus_message){.type = STR("BookingCreated"), .payload = str_c(bad[i])};
        memcpy(m[i].id, id.b, 16);
    }
    OK(bus_publish(now.bus, m, N, taken));
    struct bus_stats s;
    bus_stats(now.bus, &s);
    assert_int_equal(s.dead, N);
    /* of nobody: tried again, until it is dead too */
    m[0].payload = STR("{\"version\":1,\"booking_id\":\"01890000-0000-7000-8000-000000000000\"}");
    for (unsigned i = 0; i < BUS_TRIES_MAX; i++)
        OK(bus_publish(now.bus, m, 1, taken));
    bus_stats(now.bus, &s);
    assert_int_equal(s.dead, N + 1);
    assert_int_equal(s.again, BUS_TRIES_MAX - 1);
    assert_int_equal(stop(f), 0);
}

/* ---- events ---- */

static struct documents *with_documents(struct fix *f)
{
    fix_stop(f);
    f->documents = documents_memory_open();
    assert_non_null(f->documents);
    fix_start(f);
    return f->documents;
}

static enum pf_err publish(struct fix *f, const char *title, struct ticket_event *ret)
{
    char text[300];
    fix_advance(f, SECOND); /* ids of one millisecond are in any order */
    snprintf(text, sizeof text, "{\"title\":\"%s\"}", title);
    struct caller c = fix_caller(0, IDENT_ADMIN);
    struct problem p = {0};
    struct json *json;
    OK(json_parse(&f->arena, str_c(text), &json, NULL));
    struct event_new in = {.body = str_c(text),
                           .json = json,
                           .title = str_c(title),
                           .location = STR("here"),
                           .stock = {.capacity = 5, .currency = USD, .starts_us = fix_wall(f) + DAY}};
    return app_event_publish(f->app, &c, &in, NULL, NULL, NULL, ret, &p);
}

static unsigned count_documents(struct documents *d, struct arena *a)
{
    struct document out[DOCUMENTS_PAGE_MAX];
    struct documents_query q = {.limit = DOCUMENTS_PAGE_MAX};
    unsigned n = 0;
    OK(documents_list(d, a, &q, out, &n));
    return n;
}

static enum pf_err no_tx(struct store *s, struct store_tx **ret)
{
    (void)s, (void)ret;
    return PFE_DISK_FULL;
}

static void documents_without_stock(void **state)
{
    struct fix *f = *state;
    struct documents *d = with_documents(f);
    struct ticket_event e;
    struct event_page page;
    struct event_query q = {.limit = 10};
    OK(publish(f, "one", &e));
    f->ops.tx_begin = no_tx;
    assert_int_equal(publish(f, "two", &e), PFE_DISK_FULL);
    f->ops.tx_begin = f->real->tx_begin;
    assert_int_equal(count_documents(d, &f->arena), 1); /* taken back */
    fix_advance(f, SECOND);
    struct uuid id = uuid_v7(fix_wall(f));
    struct document orphan = {.date_us = DAY, .search = STR("x"), .body = STR("{}")};
    memcpy(orphan.id, id.b, 16);
    OK(documents_insert(d, &orphan)); /* as after a crash in between */
    OK(publish(f, "three", &e));
    OK(app_events_page(f->app, &f->arena, &q, &page));
    assert_int_equal(page.n, 2);
    assert_false(page.more);
    assert_string_equal(page.events[0].body.p, "{\"title\":\"three\"}");
    struct app_event shown;
    assert_int_equal(app_event_show(f->app, &f->arena, id.b, &shown), PFE_NOT_FOUND);
    q.limit = 1;
    q.before = page.cursor;
    OK(app_events_page(f->app, &f->arena, &q, &page));
    assert_int_equal(page.n, 0);
    fix_stop(f);
    documents_close(d);
}

static void folding(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"ABCxyz09_", "abcxyz09_"}, {"İIıi", "iiıi"},   {"ŞĞÇÖÜ", "şğçöü"},
                                           {"ÀÞ×ßÿŸ", "àþ×ßÿÿ"},       {"ŁŃŹŽŊ", "łńźžŋ"}, {"ΑΩς", "αως"},
                                           {"ЀЏАЯё", "ѐџаяё"},         {"日本🎫", "日本🎫"}};
    for (unsigned i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char a[64], b[64];
        size_t n = app_event_fold(str_c(pairs[i][0]), a), k = app_event_fold(str_c(pairs[i][1]), b);
        assert_int_equal(n, k);
        assert_memory_equal(a, b, n);
        assert_true(n <= strlen(pairs[i][0]));
        assert_true(str_utf8_ok((struct str){a, n}));
    }
}

#define PAYING(t)                                                                                                      \
    {                                                                                                                  \
#t, t, fix_memory, end, NULL                                                                                   \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAYING(bookings_are_paid),
        {"bookings_are_paid (sqlite)", bookings_are_paid, fix_sqlite, end, NULL},
        PAYING(one_after_the_other),
        PAYING(a_store_that_takes_nothing_for_long),
        PAYING(what_waits_when_it_stops_comes_again),
        PAYING(the_bus_does_its_worst),
        PAYING(messages_that_nobody_can_read),
        ON_BOTH(documents_without_stock),
        cmocka_unit_test(folding),
    };
    return cmocka_run_group_tests_name("payments", tests, NULL, NULL);
}
