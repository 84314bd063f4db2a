/* Bookings under threads: one hot event is sold to the last ticket and no further; payment and expiry of one booking
 * never both win; messages come several times and work once. Runs under ThreadSanitizer too. */
#include "tickets.h"

#include "base/rand.h"

static uint64_t next(uint64_t *seed)
{
    *seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t new_seed(const char *what)
{
    const char *given = getenv("TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : rand_u64();
    print_message("%s: TEST_SEED=%llu\n", what, (unsigned long long)seed);
    return seed;
}

/* A command by a thread: refusals for want of room in the queue are tried again. */
static enum pf_err insist(struct fix *f, struct booking *b)
{
    const struct booking asked = *b;
    enum pf_err e;
    while ((e = app_booking_do(f->app, b)) == PFE_BUSY)
        *b = asked;
    return e;
}

/* ---- one hot event ---- */

enum { BUYERS = 64, TRIES = 40, HOT = 1000 };

struct buyer {
    struct fix *f;
    const struct ticket_event *e;
    uint64_t seed;
    int64_t held, confirmed;
    unsigned sold_out, other;
};

static void *buy(void *ctx)
{
    struct buyer *x = ctx;
    for (int i = 0; i < TRIES; i++) {
        struct booking b = tix_hold_of(x->e, 0, "guest", 1);
        enum pf_err e = insist(x->f, &b);
        x->sold_out += e == PFE_SOLD_OUT;
        x->other += e != PFE_OK && e != PFE_SOLD_OUT;
        if (e != PFE_OK)
            continue;
        x->held++;
        struct booking pay = tix_op(BOOKING_SETTLE, &b.b);
        x->other += insist(x->f, &pay) != PFE_OK || pay.b.state != TICKET_CONFIRMED;
        x->confirmed += pay.b.count;
    }
    return NULL;
}

static void a_hot_event_is_sold_to_the_last_ticket(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, HOT, 0);
    struct buyer x[BUYERS];
    pthread_t t[BUYERS];
    int64_t confirmed = 0;
    unsigned sold_out = 0;
    for (int i = 0; i < BUYERS; i++) {
        x[i] = (struct buyer){.f = f, .e = &e};
        assert_int_equal(pthread_create(&t[i], NULL, buy, &x[i]), 0);
    }
    for (int i = 0; i < BUYERS; i++) {
        pthread_join(t[i], NULL);
        confirmed += x[i].confirmed;
        sold_out += x[i].sold_out;
        assert_int_equal(x[i].other, 0);
    }
    assert_int_equal(confirmed, HOT);
    assert_int_equal(sold_out, BUYERS * TRIES - HOT);
    assert_int_equal(tix_event_now(f, &e).sold, HOT);
    assert_int_equal(tix_event_now(f, &e).held, 0);
    assert_int_equal(tix_messages(f, NULL, "BookingConfirmed", NULL), HOT);
    fix_verify(f);
}

/* ---- payment against expiry ---- */

enum { RACES = 4000, PRICE = 10 };

struct race {
    struct fix *f;
    struct ticket_booking *k;
    pthread_barrier_t *go;
    uint64_t seed;
    unsigned n;
};

static void *pay_them(void *ctx)
{
    struct race *r = ctx;
    pthread_barrier_wait(r->go);
    for (unsigned i = 0; i < r->n; i++) {
        struct booking b = tix_op(next(&r->seed) & 1 ? BOOKING_SETTLE : BOOKING_CONFIRM, &r->k[i]);
        enum pf_err e = insist(r->f, &b);
        if (e != PFE_OK && e != PFE_SOLD_OUT && e != PFE_WRONG_STATE)
            fail_msg("paid: %s", err_info(e)->slug);
    }
    return NULL;
}

static void *expire_them(void *ctx)
{
    struct race *r = ctx;
    pthread_barrier_wait(r->go);
    for (unsigned i = 0; i < r->n; i++) {
        struct booking b = tix_op(next(&r->seed) % 8 ? BOOKING_EXPIRE : BOOKING_CANCEL, &r->k[i]);
        enum pf_err e = insist(r->f, &b);
        if (e != PFE_OK && e != PFE_WRONG_STATE)
            fail_msg("expired: %s", err_info(e)->slug);
    }
    return NULL;
}

/* Takes tickets that come back, so that not every late payment finds some. */
static void *take_them(void *ctx)
{
    struct race *r = ctx;
    pthread_barrier_wait(r->go);
    for (unsigned i = 0; i < r->n; i++) {
        struct booking b = {.op = BOOKING_HOLD, .guest = STR_NONE, .user = r->k[0].user, .count = 1};
        memcpy(b.uuid, r->k[0].event_uuid, sizeof b.uuid);
        (void)!insist(r->f, &b);
    }
    return NULL;
}

static void payment_and_expiry_never_both_win(void **state)
{
    struct fix *f = *state;
    uint64_t seed = new_seed("payment_and_expiry");
    int64_t ann = fix_user(f, "ann"), org = fix_user(f, "org");
    fix_post(f, fix_deposit_of(ann, 10 * RACES * PRICE));
    struct ticket_event e = tix_event(f, org, RACES, PRICE);
    struct ticket_booking *k = calloc(RACES, sizeof *k);
    struct booking *b = calloc(RACES, sizeof *b);
    assert_true(k && b);
    for (int i = 0; i < RACES; i++)
        b[i] = tix_hold_of(&e, ann, NULL, 1);
    for (int i = 0; i < RACES; i += 500) {
        struct job j = {.kind = JOB_BOOKINGS, .booking = b + i, .n_bookings = 500};
        OK(app_submit_wait(f->app, &j));
    }
    for (int i = 0; i < RACES; i++) {
        OK(b[i].err);
        k[i] = b[i].b;
    }
    for (int i = 0; i < RACES; i += 3) /* some are in the midst of it */
        OK(tix_do(f, BOOKING_PAY, &k[i]));
    fix_advance(f, 601 * SECOND);
    pthread_barrier_t go;
    pthread_barrier_init(&go, NULL, 3);
    struct race r[3] = {{f, k, &go, seed, RACES}, {f, k, &go, seed + 1, RACES}, {f, k, &go, seed + 2, RACES / 8}};
    void *(*const run[3])(void *) = {pay_them, expire_them, take_them};
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, run[i], &r[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    pthread_barrier_destroy(&go);

    unsigned confirmed = 0, ended = 0;
    for (int i = 0; i < RACES; i++) {
        struct ticket_booking now = tix_now(f, &k[i]);
        assert_false(ticket_pending(now.state));
        confirmed += now.state == TICKET_CONFIRMED;
        ended += now.state != TICKET_CONFIRMED;
        assert_int_equal(now.state == TICKET_CONFIRMED, now.paid_seq != 0);
    }
    print_message("%u paid, %u not\n", confirmed, ended);
    assert_int_equal(tix_event_now(f, &e).sold, confirmed);
    assert_int_equal(fix_balance(f, org), (int64_t)confirmed * PRICE);
    assert_int_equal(fix_balance(f, ann), (10LL * RACES - confirmed) * PRICE);
    assert_int_equal(fix_account(f, ann, USD).held, 0);
    assert_int_equal(tix_messages(f, NULL, "BookingConfirmed", NULL), confirmed);
    fix_verify(f); /* stock, money and journal agree, booking by booking */
    free(k);
    free(b);
}

/* ---- payment within milliseconds of the expiry ---- */

enum { CLOSE_US = 5000, STEP_US = 50, ALIKE = 20, APART_US = 500, AHEAD = 200 };

struct late { /* payments that come at times of the store's clock, which the test moves */
    struct fix *f;
    const struct ticket_event *e;
    int64_t other; /* who takes tickets that come back */
    uint64_t seed;
    unsigned n;
    struct late_payment {
        int64_t at;
        struct late *of;
        const struct ticket_booking *k;
        struct booking b;
        struct job j;
    } * p;
    _Atomic unsigned sent, done, expired;
    _Atomic int64_t looked; /* until when the scheduler has */
    unsigned taken;
    _Atomic bool over;
};

static unsigned close_races(void)
{
    const char *given = getenv("PAYFLOW_CLOSE_RACES");
    return given ? (unsigned)strtoul(given, NULL, 10) : 3000;
}

static void breathe(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

static void late_done(struct job *j)
{
    const struct late_payment *p = j->ctx;
    atomic_fetch_add(&p->of->done, 1);
}

static void *pay_in_time(void *ctx)
{
    struct late *l = ctx;
    for (unsigned i = 0; i < l->n; i++) {
        struct late_payment *p = &l->p[i];
        while (fix_wall(l->f) < p->at)
            breathe();
        p->b = tix_op(BOOKING_SETTLE, p->k);
        p->j = (struct job){.kind = JOB_BOOKINGS, .booking = &p->b, .n_bookings = 1, .done = late_done, .ctx = p};
        while (app_submit(l->f->app, &p->j) == PFE_BUSY)
            breathe();
        atomic_fetch_add(&l->sent, 1);
    }
    return NULL;
}

static void *expire_in_time(void *ctx)
{
    struct late *l = ctx;
    while (!atomic_load(&l->over)) {
        int64_t now = fix_wall(l->f);
        unsigned n = app_bookings_expire_due(l->f->app);
        atomic_fetch_add(&l->expired, n);
        atomic_store(&l->looked, now);
        struct booking b = tix_hold_of(l->e, l->other, NULL, n ? 1 : 0);
        if (n && next(&l->seed) % 2 && insist(l->f, &b) == PFE_OK)
            l->taken++;
        else if (!n)
            breathe();
    }
    return NULL;
}

static int by_time(const void *a, const void *b)
{
    const struct late_payment *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

/* Each payment comes within 5 ms of its booking's expiry, before or after; the scheduler's own look expires what is
 * due.
 */
static void payment_close_to_expiry(void **state)
{
    struct fix *f = *state;
    unsigned n = close_races();
    uint64_t seed = new_seed("payment_close_to_expiry");
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), org = fix_user(f, "org");
    fix_post(f, fix_deposit_of(ann, (int64_t)n * PRICE));
    struct ticket_event e = tix_event(f, org, n, PRICE);
    struct ticket_booking *k = calloc(n, sizeof *k);
    struct late l = {.f = f, .e = &e, .other = bob, .seed = seed, .n = n, .p = calloc(n, sizeof *l.p)};
    struct booking b[ALIKE];
    assert_true(k && l.p);
    for (unsigned i = 0; i < n; i += ALIKE) {
        unsigned some = n - i < ALIKE ? n - i : ALIKE;
        for (unsigned x = 0; x < some; x++)
            b[x] = tix_hold_of(&e, ann, NULL, 1);
        struct job j = {.kind = JOB_BOOKINGS, .booking = b, .n_bookings = some};
        OK(app_submit_wait(f->app, &j));
        for (unsigned x = 0; x < some; x++) {
            OK(b[x].err);
            k[i + x] = b[x].b;
        }
        fix_advance(f, APART_US);
    }
    for (unsigned i = 0; i < n; i++)
        l.p[i] = (struct late_payment){
            .at = k[i].expires_us - CLOSE_US + (int64_t)(next(&seed) % (2 * CLOSE_US + 1)), .of = &l, .k = &k[i]};
    qsort(l.p, n, sizeof *l.p, by_time);
    fix_advance(f, l.p[0].at - fix_wall(f) - 1);
    atomic_store(&l.looked, fix_wall(f));
    pthread_t pay, expire;
    assert_int_equal(pthread_create(&pay, NULL, pay_in_time, &l), 0);
    assert_int_equal(pthread_create(&expire, NULL, expire_in_time, &l), 0);
    /* time stands still while either side is behind, so that no machine is too slow for it */
    while (atomic_load(&l.done) < n) {
        if (atomic_load(&l.sent) - atomic_load(&l.done) < AHEAD && fix_wall(f) - atomic_load(&l.looked) < 4 * STEP_US)
            fix_advance(f, STEP_US);
        breathe();
    }
    pthread_join(pay, NULL);
    atomic_store(&l.over, true);
    pthread_join(expire, NULL);

    unsigned confirmed = 0, again = 0, gone = 0;
    for (unsigned i = 0; i < n; i++) {
        struct ticket_booking now = tix_now(f, &k[i]);
        assert_true(now.state == TICKET_CONFIRMED || now.state == TICKET_EXPIRED);
        assert_int_equal(now.state == TICKET_CONFIRMED, now.paid_seq != 0);
        confirmed += now.state == TICKET_CONFIRMED;
        again += now.state == TICKET_CONFIRMED && now.version == 3;
        gone += now.state == TICKET_EXPIRED;
    }
    print_message("%u paid in time, %u after they had expired, %u not; %u tickets went to others\n", confirmed - again,
                  again, gone, l.taken);
    assert_true(confirmed > again && again + gone > 0);
    assert_int_equal(atomic_load(&l.expired), again + gone);
    assert_true(gone <= l.taken);
    assert_int_equal(tix_event_now(f, &e).sold, confirmed);
    assert_int_equal(tix_event_now(f, &e).held, l.taken);
    assert_int_equal(fix_balance(f, org), (int64_t)confirmed * PRICE);
    assert_int_equal(fix_balance(f, ann), (int64_t)(n - confirmed) * PRICE);
    assert_int_equal(fix_account(f, ann, USD).held, 0);
    fix_verify(f);
    free(l.p);
    free(k);
}

/* ---- messages that come again ---- */

enum { MESSAGES = 400, CARRIERS = 8 };

struct delivery {
    unsigned booking;
    bool cancel;
};

struct carrier {
    struct fix *f;
    const struct ticket_booking *k;
    const uint8_t (*message)[16];
    const struct delivery *d;
    unsigned n;
    unsigned moved[MESSAGES];
};

static void *carry(void *ctx)
{
    struct carrier *c = ctx;
    for (unsigned i = 0; i < c->n; i++) {
        unsigned at = c->d[i].booking;
        struct booking b =
            c->d[i].cancel ? tix_op(BOOKING_CANCEL, &c->k[at]) : tix_message(BOOKING_SETTLE, &c->k[at], c->message[at]);
        enum pf_err e = insist(c->f, &b);
        if (e != PFE_OK && e != PFE_WRONG_STATE)
            fail_msg("delivered: %s", err_info(e)->slug);
        c->moved[at] += b.moved;
    }
    return NULL;
}

static void messages_come_one_to_five_times(void **state)
{
    struct fix *f = *state;
    uint64_t seed = new_seed("messages");
    int64_t ann = fix_user(f, "ann"), org = fix_user(f, "org");
    fix_post(f, fix_deposit_of(ann, MESSAGES * PRICE / 2 * 3)); /* not enough for all */
    struct ticket_event e = tix_event(f, org, MESSAGES * 4, PRICE);
    struct ticket_booking k[MESSAGES];
    uint8_t message[MESSAGES][16];
    struct delivery d[MESSAGES * 6];
    unsigned n = 0;
    for (unsigned i = 0; i < MESSAGES; i++) {
        struct uuid u = uuid_v7(fix_wall(f));
        k[i] = tix_hold(f, &e, ann, 1 + (int64_t)(next(&seed) % 4));
        memcpy(message[i], u.b, 16);
        for (unsigned times = 1 + (unsigned)(next(&seed) % 5); times; times--)
            d[n++] = (struct delivery){i, false};
        if (i % 5 == 0) /* its buyer thinks better of it, before or after */
            d[n++] = (struct delivery){i, true};
    }
    for (unsigned i = n - 1; i > 0; i--) {
        unsigned j = (unsigned)(next(&seed) % (i + 1));
        struct delivery x = d[i];
        d[i] = d[j];
        d[j] = x;
    }
    struct carrier *c = calloc(CARRIERS, sizeof *c);
    pthread_t t[CARRIERS];
    assert_non_null(c);
    for (unsigned i = 0; i < CARRIERS; i++) {
        unsigned from = n * i / CARRIERS, to = n * (i + 1) / CARRIERS;
        c[i] =
            (struct carrier){.f = f, .k = k, .message = (const uint8_t(*)[16])message, .d = d + from, .n = to - from};
        assert_int_equal(pthread_create(&t[i], NULL, carry, &c[i]), 0);
    }
    for (unsigned i = 0; i < CARRIERS; i++)
        pthread_join(t[i], NULL);
    int64_t sold = 0;
    unsigned confirmed = 0;
    for (unsigned i = 0; i < MESSAGES; i++) {
        struct ticket_booking now = tix_now(f, &k[i]);
        unsigned moved = 0;
        for (unsigned x = 0; x < CARRIERS; x++)
            moved += c[x].moved[i];
        assert_int_equal(moved, 1);
        assert_false(ticket_pending(now.state));
        assert_int_equal(now.version, 2);
        sold += now.state == TICKET_CONFIRMED ? now.count : 0;
        confirmed += now.state == TICKET_CONFIRMED;
    }
    assert_int_equal(tix_event_now(f, &e).sold, sold);
    assert_int_equal(tix_event_now(f, &e).held, 0);
    assert_int_equal(fix_balance(f, org), sold * PRICE);
    assert_int_equal(tix_messages(f, NULL, "BookingConfirmed", NULL), confirmed);
    assert_int_equal(tix_messages(f, NULL, "BookingCancelled", NULL), MESSAGES - confirmed);
    fix_verify(f);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_hot_event_is_sold_to_the_last_ticket),
        ON_BOTH(payment_and_expiry_never_both_win),
        ON_BOTH(payment_close_to_expiry),
        ON_BOTH(messages_come_one_to_five_times),
    };
    return cmocka_run_group_tests_name("bookings_race", tests, NULL, NULL);
}
