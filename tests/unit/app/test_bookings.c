/* Bookings: what each command does to tickets, money and messages, what comes twice, late or out of order, and who may.
 */
#include "tickets.h"

static bool has(struct str s, const char *part)
{
    return memmem(s.p, s.n, part, strlen(part)) != NULL;
}

static void assert_stock(struct fix *f, const struct ticket_event *e, int64_t held, int64_t sold)
{
    struct ticket_event now = tix_event_now(f, e);
    assert_int_equal(now.held, held);
    assert_int_equal(now.sold, sold);
}

static void assert_money(struct fix *f, int64_t user, int64_t balance, int64_t held)
{
    struct ledger_account a = fix_account(f, user, USD);
    assert_int_equal(a.balance, balance);
    assert_int_equal(a.held, held);
}

/* ---- holding ---- */

static void a_hold_is_pending_and_told(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct ticket_event e = tix_event(f, 0, 100, 250);
    struct ticket_booking k = tix_hold(f, &e, ann, 2);
    struct str told = STR_NONE;
    char text[UUID_TEXT_LEN + 1];
    struct uuid u;
    assert_string_equal(ticket_status_name(k.state), "PENDING");
    assert_int_equal(k.amount, 500);
    assert_int_equal(k.expires_us, fix_wall(f) + 600 * SECOND);
    assert_int_equal(tix_now(f, &k).version, 1);
    assert_stock(f, &e, 2, 0);
    assert_int_equal(tix_messages(f, &k, "BookingCreated", &told), 1);
    memcpy(u.b, k.uuid, 16);
    uuid_format(&u, text);
    assert_true(has(told, text));
    assert_true(has(told, "{\"version\":1,\"message_id\":\""));
    assert_true(has(told, "\"type\":\"BookingCreated\",\"occurred_at\":\"2026-01-01T00:00:00"));
    assert_true(
        has(told, "\"user_id\":1,\"ticket_count\":2,\"amount\":5.00,\"currency\":\"USD\",\"status\":\"PENDING\""));

    struct ticket_event open = tix_event(f, 0, 5, 0);
    struct booking g = tix_hold_of(&open, 0, "kerem \"user\"", 1);
    OK(app_booking_do(f->app, &g));
    assert_int_equal(tix_messages(f, &g.b, "BookingCreated", &told), 1);
    assert_true(has(told, "\"guest\":\"kerem \\\"user\\\"\""));
    fix_verify(f);
}

static void holds_are_refused(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct ticket_event open = tix_event(f, 0, 10, 0), paid = tix_event(f, ann, 10, 100), none = open;
    none.uuid[3] ^= 1;
    const struct {
        struct booking b;
        enum pf_err want;
        const char *says;
    } cases[] = {
        {tix_hold_of(&none, 0, "g", 1), PFE_NOT_FOUND, "there is no such event"},
        {tix_hold_of(&open, 0, "g", 0), PFE_INVALID, ""},
        {tix_hold_of(&open, 0, "g", -5), PFE_INVALID, ""},
        {tix_hold_of(&open, 0, "g", TICKET_COUNT_MAX + 1), PFE_INVALID, ""},
        {tix_hold_of(&open, 0, NULL, 1), PFE_INVALID, ""},
        {tix_hold_of(&open, 0, "g", 11), PFE_SOLD_OUT, "10 tickets are left"},
        {tix_hold_of(&paid, 0, "g", 1), PFE_GUEST_CANNOT_PAY, ""},
        {tix_hold_of(&paid, ann, NULL, 1), PFE_SAME_ACCOUNT, "organisers cannot pay themselves"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct booking b = cases[i].b;
        struct problem p = {0};
        assert_int_equal(app_booking_do(f->app, &b), cases[i].want);
        app_booking_problem(&b, &p);
        assert_int_equal(p.code, cases[i].want);
        assert_string_equal(p.detail, cases[i].says);
        assert_int_equal(p.n_fields, cases[i].want == PFE_INVALID);
        assert_false(b.moved);
    }
    tix_hold(f, &open, 0, 9);
    struct booking b = tix_hold_of(&open, 0, "g", 2);
    struct problem p = {0};
    assert_int_equal(app_booking_do(f->app, &b), PFE_SOLD_OUT);
    app_booking_problem(&b, &p);
    assert_string_equal(p.detail, "1 ticket is left");
    fix_advance(f, 366 * DAY);
    b = tix_hold_of(&open, 0, "g", 1);
    assert_int_equal(app_booking_do(f->app, &b), PFE_EVENT_OVER);
    assert_stock(f, &open, 9, 0);
    assert_int_equal(tix_messages(f, NULL, "BookingCreated", NULL), 1);
    fix_verify(f);
}

static void render(struct job *j)
{
    j->idem.status = 201;
    j->idem.body = j->booking->b.id == 1 ? STR("first") : STR("another");
}

static void a_key_books_once(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    for (int i = 0; i < 3; i++) {
        struct booking b = tix_hold_of(&e, 0, "g", 3);
        struct job j = {.kind = JOB_BOOKINGS, .booking = &b, .n_bookings = 1, .arena = &f->arena, .render = render};
        j.idem = (struct app_idem){.principal = 5, .key = STR("book-1")};
        OK(app_idem_begin(f->app, &j.idem));
        OK(app_submit_wait(f->app, &j));
        app_idem_end(f->app, &j.idem);
        assert_int_equal(j.idem.replayed, i > 0);
        assert_true(str_is(j.idem.body, "first"));
        if (i == 1)
            fix_restart(f);
        if (!f->box.engine->durable && i == 1)
            break;
    }
    assert_stock(f, &e, 3, 0);
    assert_int_equal(tix_messages(f, NULL, "BookingCreated", NULL), 1);
}

static void one_bad_command_refuses_itself(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0), other = tix_event(f, 0, 1, 0);
    struct booking b[] = {
        tix_hold_of(&e, 0, "a", 4),     tix_hold_of(&e, 0, "b", 0),     tix_hold_of(&e, 0, "c", 4),
        tix_hold_of(&e, 0, "d", 3),     tix_hold_of(&other, 0, "e", 1), tix_hold_of(&e, 0, "f", 2),
        tix_hold_of(&other, 0, "g", 1),
    };
    const enum pf_err want[] = {PFE_OK, PFE_INVALID, PFE_OK, PFE_SOLD_OUT, PFE_OK, PFE_OK, PFE_SOLD_OUT};
    enum { N = sizeof b / sizeof *b };
    struct job j[N];
    for (int i = 0; i < N; i++)
        j[i] = (struct job){.kind = JOB_BOOKINGS, .booking = &b[i], .n_bookings = 1};
    fix_group(f, j, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(b[i].err, want[i]);
        assert_int_equal(j[i].err, want[i]);
        assert_int_equal(j[i].refusal, want[i] != PFE_OK);
    }
    assert_stock(f, &e, 10, 0);
    assert_stock(f, &other, 1, 0);
    /* and in one job: each for itself */
    struct booking more[] = {tix_op(BOOKING_CANCEL, &b[0].b), tix_op(BOOKING_CANCEL, &b[0].b),
                             tix_op(BOOKING_CONFIRM, &b[0].b), tix_op(BOOKING_CONFIRM, &b[2].b)};
    struct job all = {.kind = JOB_BOOKINGS, .booking = more, .n_bookings = 4};
    OK(app_submit_wait(f->app, &all));
    assert_int_equal(more[0].err, PFE_OK);
    assert_true(more[0].moved);
    assert_int_equal(more[1].err, PFE_OK);
    assert_false(more[1].moved);
    assert_int_equal(more[2].err, PFE_WRONG_STATE);
    assert_int_equal(more[3].b.state, TICKET_CONFIRMED);
    assert_stock(f, &e, 2, 4);
    fix_verify(f);
}

static void a_lost_commit_is_nothing(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    struct ticket_booking k = tix_hold(f, &e, 0, 1);
    static const struct {
        enum pf_err fails, told;
    } cases[] = {{PFE_UNAVAILABLE, PFE_UNAVAILABLE},
                 {PFE_SOLD_OUT, PFE_UNAVAILABLE}, /* others were faster: not this caller's fault */
                 {PFE_WRONG_STATE, PFE_UNAVAILABLE},
                 {PFE_IN_FLIGHT, PFE_UNAVAILABLE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct booking b = tix_hold_of(&e, 0, "g", 1), c = tix_op(BOOKING_CONFIRM, &k);
        f->fail = cases[i].fails;
        f->fail_n = 2;
        assert_int_equal(app_booking_do(f->app, &b), cases[i].told);
        assert_int_equal(app_booking_do(f->app, &c), cases[i].told);
        assert_stock(f, &e, 1, 0);
        assert_int_equal(tix_now(f, &k).state, TICKET_HELD);
    }
    assert_int_equal(tix_messages(f, NULL, "BookingConfirmed", NULL), 0);
    OK(tix_do(f, BOOKING_CONFIRM, &k));
    fix_verify(f);
}

/* ---- paying ---- */

static void new_message(struct fix *f, uint8_t out[16])
{
    struct uuid u = uuid_v7(fix_wall(f));
    memcpy(out, u.b, 16);
}

static void the_mock_provider_approves_five(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 100, 0);
    struct ticket_booking five = tix_hold(f, &e, 0, 5), six = tix_hold(f, &e, 0, 6);
    struct str told = STR_NONE;
    struct booking b = tix_op(BOOKING_SETTLE, &five);
    OK(app_booking_do(f->app, &b));
    assert_int_equal(b.b.state, TICKET_CONFIRMED);
    assert_true(b.moved);
    b = tix_op(BOOKING_SETTLE, &six);
    OK(app_booking_do(f->app, &b));
    assert_int_equal(b.b.state, TICKET_CANCELLED);
    assert_int_equal(b.b.reason, TICKET_DECLINED);
    assert_stock(f, &e, 0, 5);
    assert_int_equal(tix_messages(f, &five, "BookingConfirmed", &told), 1);
    assert_int_equal(tix_messages(f, &six, "BookingCancelled", &told), 1);
    assert_true(has(told, "\"reason\":\"declined\""));
    assert_int_equal(tix_messages(f, &six, "BookingConfirmed", NULL), 0);
    fix_verify(f);
}

static void the_ledger_provider_charges(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), org = fix_user(f, "org");
    fix_post(f, fix_deposit_of(ann, 3000));
    fix_post(f, fix_deposit_of(bob, 999));
    struct ticket_event e = tix_event(f, org, 100, 500);
    struct ticket_booking rich = tix_hold(f, &e, ann, 6), poor = tix_hold(f, &e, bob, 2);
    struct booking b = tix_op(BOOKING_SETTLE, &rich);
    OK(app_booking_do(f->app, &b));
    assert_int_equal(b.b.state, TICKET_CONFIRMED); /* more than five: the money decides */
    assert_true(b.b.hold_seq && b.b.paid_seq == b.b.hold_seq + 1);
    b = tix_op(BOOKING_SETTLE, &poor);
    OK(app_booking_do(f->app, &b));
    assert_int_equal(b.b.state, TICKET_CANCELLED);
    assert_int_equal(b.b.reason, TICKET_DECLINED);
    assert_int_equal(b.b.hold_seq, 0);
    assert_money(f, ann, 0, 0);
    assert_money(f, bob, 999, 0);
    assert_money(f, org, 3000, 0);
    assert_stock(f, &e, 0, 6);
    fix_verify(f);
    /* what was paid for a confirmed booking is not taken back behind its back */
    struct movement back = fix_resolve(LEDGER_ROLLBACK, tix_now(f, &rich).paid_seq);
    assert_int_equal(fix_move(f, &back), PFE_WRONG_STATE);
    /* nobody is paid: the currency's external account is */
    struct ticket_event free_of = tix_event(f, 0, 100, 9);
    struct ticket_booking k = tix_hold(f, &free_of, bob, 1);
    OK(tix_do(f, BOOKING_SETTLE, &k));
    assert_money(f, bob, 990, 0);
    fix_verify(f);
}

static void money_is_held_step_by_step(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), org = fix_user(f, "org");
    fix_post(f, fix_deposit_of(ann, 1000));
    struct ticket_event e = tix_event(f, org, 100, 100);
    struct ticket_booking k = tix_hold(f, &e, ann, 3);
    OK(tix_do(f, BOOKING_PAY, &k));
    assert_money(f, ann, 1000, 300);
    OK(tix_do(f, BOOKING_PAY, &k)); /* again: nothing more to do */
    assert_money(f, ann, 1000, 300);
    struct movement steal = fix_resolve(LEDGER_RELEASE, tix_now(f, &k).hold_seq);
    assert_int_equal(fix_move(f, &steal), PFE_WRONG_STATE);
    OK(tix_do(f, BOOKING_DOUBT, &k));
    assert_int_equal(tix_now(f, &k).state, TICKET_UNKNOWN);
    fix_verify(f);
    OK(tix_do(f, BOOKING_CONFIRM, &k));
    assert_money(f, ann, 700, 0);
    assert_money(f, org, 300, 0);
    OK(tix_do(f, BOOKING_CONFIRM, &k));
    assert_money(f, ann, 700, 0);
    assert_int_equal(tix_do(f, BOOKING_CANCEL, &k), PFE_WRONG_STATE);
    assert_int_equal(tix_do(f, BOOKING_DECLINE, &k), PFE_WRONG_STATE);
    assert_int_equal(tix_do(f, BOOKING_EXPIRE, &k), PFE_WRONG_STATE);

    static const enum booking_op ends[] = {BOOKING_CANCEL, BOOKING_DECLINE, BOOKING_EXPIRE};
    for (int i = 0; i < 3; i++) {
        struct ticket_booking x = tix_hold(f, &e, ann, 2);
        OK(tix_do(f, BOOKING_PAY, &x));
        if (i)
            OK(tix_do(f, BOOKING_DOUBT, &x));
        assert_money(f, ann, 700, 200);
        if (ends[i] == BOOKING_EXPIRE) {
            assert_int_equal(tix_do(f, BOOKING_EXPIRE, &x), PFE_WRONG_STATE); /* not due */
            fix_advance(f, 600 * SECOND);
        }
        OK(tix_do(f, ends[i], &x));
        assert_money(f, ann, 700, 0);
        assert_stock(f, &e, 0, 3);
        fix_verify(f);
    }
    struct ticket_booking y = tix_hold(f, &e, ann, 8);
    OK(tix_do(f, BOOKING_PAY, &y)); /* 800 of 700 */
    assert_int_equal(tix_now(f, &y).state, TICKET_CANCELLED);
    assert_money(f, ann, 700, 0);
    fix_verify(f);
}

static void a_frozen_account_is_declined_and_released(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), org = fix_user(f, "org");
    fix_post(f, fix_deposit_of(ann, 1000));
    fix_post(f, fix_deposit_of(org, 1));
    struct ticket_event e = tix_event(f, org, 100, 100);
    struct ticket_booking k = tix_hold(f, &e, ann, 3);
    OK(tix_do(f, BOOKING_PAY, &k));
    fix_post(f, (struct movement){.kind = LEDGER_FREEZE, .from_user = org, .currency = USD});
    OK(tix_do(f, BOOKING_CONFIRM, &k));
    assert_int_equal(tix_now(f, &k).state, TICKET_CANCELLED);
    assert_money(f, ann, 1000, 0);
    assert_stock(f, &e, 0, 0);
    fix_verify(f);
}

/* ---- late, twice, out of order ---- */

static void late_payment(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob"), org = fix_user(f, "org");
    fix_post(f, fix_deposit_of(ann, 1000));
    fix_post(f, fix_deposit_of(bob, 1000));
    struct ticket_event e = tix_event(f, org, 10, 100);
    struct ticket_booking a = tix_hold(f, &e, ann, 4), b = tix_hold(f, &e, ann, 4), third = tix_hold(f, &e, bob, 1);
    OK(tix_do(f, BOOKING_PAY, &a));
    assert_int_equal(app_bookings_expire_due(f->app), 0);
    fix_advance(f, 600 * SECOND);
    /* overdue, but nobody has said so yet: its tickets are its own */
    OK(tix_do(f, BOOKING_CONFIRM, &a));
    assert_int_equal(app_bookings_expire_due(f->app), 2);
    assert_int_equal(tix_now(f, &third).state, TICKET_EXPIRED);
    assert_int_equal(app_bookings_expire_due(f->app), 0);
    assert_stock(f, &e, 0, 4);
    struct str told = STR_NONE;
    assert_int_equal(tix_messages(f, &b, "BookingCancelled", &told), 1);
    assert_true(has(told, "\"status\":\"EXPIRED\",\"reason\":\"expired\""));
    assert_int_equal(tix_do(f, BOOKING_CANCEL, &b), PFE_WRONG_STATE);
    OK(tix_do(f, BOOKING_DECLINE, &b)); /* nothing more to do */

    /* expired, and 6 are free: taken again and paid */
    OK(tix_do(f, BOOKING_SETTLE, &b));
    assert_int_equal(tix_now(f, &b).state, TICKET_CONFIRMED);
    assert_stock(f, &e, 0, 8);
    assert_money(f, ann, 200, 0);
    fix_verify(f);

    /* expired, and the tickets are others' by now: nothing is taken */
    struct ticket_booking c = tix_hold(f, &e, bob, 2);
    OK(tix_do(f, BOOKING_PAY, &c));
    fix_advance(f, 600 * SECOND);
    assert_int_equal(app_bookings_expire_due(f->app), 1);
    assert_money(f, bob, 1000, 0);
    struct ticket_booking d = tix_hold(f, &e, ann, 1);
    assert_int_equal(tix_do(f, BOOKING_CONFIRM, &c), PFE_SOLD_OUT);
    assert_int_equal(tix_do(f, BOOKING_SETTLE, &c), PFE_SOLD_OUT);
    assert_int_equal(tix_now(f, &c).state, TICKET_EXPIRED);
    assert_money(f, bob, 1000, 0);
    /* they come back, but now the money is gone */
    OK(tix_do(f, BOOKING_CANCEL, &d));
    fix_post(f, fix_withdrawal(bob, 900));
    assert_int_equal(tix_do(f, BOOKING_CONFIRM, &c), PFE_INSUFFICIENT_FUNDS);
    assert_int_equal(tix_now(f, &c).state, TICKET_EXPIRED);
    assert_stock(f, &e, 0, 8);
    fix_verify(f);
    fix_advance(f, 366 * DAY);
    assert_int_equal(tix_do(f, BOOKING_CONFIRM, &c), PFE_EVENT_OVER);
}

static void messages_work_once(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), org = fix_user(f, "org");
    uint8_t m[16], other[16];
    fix_post(f, fix_deposit_of(ann, 1000));
    struct ticket_event e = tix_event(f, org, 10, 100);
    struct ticket_booking k = tix_hold(f, &e, ann, 4);
    new_message(f, m);
    new_message(f, other);
    struct booking once = tix_message(BOOKING_SETTLE, &k, m), twice = once, same[3] = {once, once, once};
    OK(app_booking_do(f->app, &once));
    assert_true(once.moved && !once.duplicate);
    if (f->box.engine->durable)
        fix_restart(f);
    OK(app_booking_do(f->app, &twice));
    assert_true(twice.duplicate && !twice.moved);
    assert_int_equal(twice.b.state, TICKET_CONFIRMED);
    assert_money(f, ann, 600, 0);

    /* three in one group */
    k = tix_hold(f, &e, ann, 1);
    struct job j[3];
    for (int i = 0; i < 3; i++) {
        same[i] = tix_message(BOOKING_SETTLE, &k, other);
        j[i] = (struct job){.kind = JOB_BOOKINGS, .booking = &same[i], .n_bookings = 1};
    }
    fix_group(f, j, 3);
    assert_true(same[0].moved);
    assert_true(same[1].duplicate && same[2].duplicate);
    assert_money(f, ann, 500, 0);
    assert_int_equal(tix_messages(f, &k, "BookingConfirmed", NULL), 1);

    /* another consumer has its own */
    struct booking mail = tix_message(BOOKING_SETTLE, &k, other);
    mail.consumer = STR("mail");
    OK(app_booking_do(f->app, &mail));
    assert_false(mail.duplicate);

    /* cancelled before the payment heard of it: never charged, and a refusal is dealt with too */
    k = tix_hold(f, &e, ann, 1);
    OK(tix_do(f, BOOKING_CANCEL, &k));
    new_message(f, m);
    struct booking late = tix_message(BOOKING_SETTLE, &k, m), again = late;
    assert_int_equal(app_booking_do(f->app, &late), PFE_WRONG_STATE);
    assert_int_equal(late.b.state, TICKET_CANCELLED);
    OK(app_booking_do(f->app, &again));
    assert_true(again.duplicate);
    assert_money(f, ann, 500, 0);
    fix_verify(f);

    /* no booking: nothing is noted */
    struct ticket_booking none = k;
    none.uuid[9] ^= 1;
    new_message(f, m);
    struct booking lost = tix_message(BOOKING_SETTLE, &none, m), lost_again = lost;
    assert_int_equal(app_booking_do(f->app, &lost), PFE_NOT_FOUND);
    assert_int_equal(app_booking_do(f->app, &lost_again), PFE_NOT_FOUND);
    /* not a message of ours */
    m[6] = 0x40;
    struct booking odd = tix_message(BOOKING_SETTLE, &k, m);
    assert_int_equal(app_booking_do(f->app, &odd), PFE_INVALID);

    int64_t n = -1;
    OK(app_inbox_purge(f->app, fix_wall(f) - DAY, &n));
    assert_int_equal(n, 0);
    OK(app_inbox_purge(f->app, fix_wall(f) + SECOND, &n));
    assert_int_equal(n, 4);
}

static void delivered_messages_go(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    struct store_message m[8];
    unsigned n = 0;
    for (int i = 0; i < 3; i++)
        tix_hold(f, &e, 0, 1);
    OK(app_outbox_next(f->app, &f->arena, 0, 8, m, &n));
    assert_int_equal(n, 3);
    struct store_outbox_ref gone[2];
    for (int i = 0; i < 2; i++) {
        gone[i].id = m[i].id;
        memcpy(gone[i].uuid, m[i].uuid, sizeof m[i].uuid);
    }
    OK(app_outbox_delivered(f->app, gone, 2));
    OK(app_outbox_delivered(f->app, NULL, 0));
    int64_t last = m[2].id;
    OK(app_outbox_next(f->app, &f->arena, 0, 8, m, &n));
    assert_int_equal(n, 1);
    assert_int_equal(m[0].id, last);
}

/* A shared store's clock is its server's, an hour from this process's. */
static int64_t store_is_ahead_us;

static enum pf_err begin_by_other_clock(struct store *s, const struct store_group_ask *ask, struct store_group *g)
{
    enum pf_err e = fix_current->real->group_begin(s, ask, g);
    g->now_us += store_is_ahead_us;
    return e;
}

static void the_stores_clock_decides(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    f->ops.group_begin = begin_by_other_clock;
    store_is_ahead_us = -3600 * SECOND;
    struct ticket_booking k = tix_hold(f, &e, 0, 1);
    assert_int_equal(k.created_us, fix_wall(f) - 3600 * SECOND);
    assert_int_equal(k.expires_us, fix_wall(f) - 3000 * SECOND); /* long past by the process's clock */
    assert_int_equal(tix_do(f, BOOKING_EXPIRE, &k), PFE_WRONG_STATE);
    assert_int_equal(app_bookings_expire_due(f->app), 0);
    store_is_ahead_us = -3000 * SECOND - 1;
    assert_int_equal(tix_do(f, BOOKING_EXPIRE, &k), PFE_WRONG_STATE);
    store_is_ahead_us = -3000 * SECOND;
    OK(tix_do(f, BOOKING_EXPIRE, &k));
    assert_stock(f, &e, 0, 0);
}

/* Of a shared one, what a group is shown may be on the primary alone: whoever did it may not have had an answer. */
static void what_was_so_before_is_said_after_a_commit(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann");
    struct ticket_event e = tix_event(f, 0, 10, 0);
    struct ticket_booking gone = tix_hold(f, &e, 0, 1), sold = tix_hold(f, &e, 0, 1);
    struct job open = {.kind = JOB_OPEN, .user = ann, .currency = USD};
    OK(app_submit_wait(f->app, &open));
    OK(tix_do(f, BOOKING_CANCEL, &gone));
    OK(tix_do(f, BOOKING_CONFIRM, &sold));
    f->ops.shared = true;
    f->fail = PFE_INTERNAL;
    f->fail_n = 3;
    assert_int_equal(tix_do(f, BOOKING_CANCEL, &gone), PFE_INTERNAL);
    assert_int_equal(tix_do(f, BOOKING_CONFIRM, &sold), PFE_INTERNAL);
    assert_int_equal(app_submit_wait(f->app, &open), PFE_INTERNAL);
    assert_int_equal(f->fail_n, 0);
    OK(tix_do(f, BOOKING_CANCEL, &gone));
    OK(tix_do(f, BOOKING_CONFIRM, &sold));
    OK(app_submit_wait(f->app, &open));
    assert_false(open.created);
}

/* ---- events and rights ---- */

static void render_event(void *ctx, const struct ticket_event *e, struct app_idem *i)
{
    ++*(int *)ctx;
    i->status = 201;
    i->body = e->id ? STR("{}") : STR_NONE;
}

static void events_are_made_and_cancelled(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), org = fix_user(f, "org");
    struct caller c = fix_caller(org, IDENT_USER), a = fix_caller(ann, IDENT_USER);
    struct ticket_event in = {.capacity = 5, .currency = USD, .price = 100}, e, same;
    struct problem p = {0};
    int rendered = 0;
    struct app_idem idem = {.principal = org, .key = STR("event-1")};
    OK(app_event_create(f->app, &c, &in, &idem, render_event, &rendered, &e, &p));
    assert_int_equal(rendered, 1);
    assert_int_equal(e.organiser, org);
    assert_int_equal(fix_audits(f, "event.create"), 1);
    in.capacity = 0;
    assert_int_equal(app_event_create(f->app, &c, &in, NULL, NULL, NULL, &same, &p), PFE_INVALID);
    assert_string_equal(p.fields[0].name, "total_tickets");
    in.capacity = 5;
    memcpy(in.uuid, e.uuid, 16);
    p = (struct problem){0};
    assert_int_equal(app_event_create(f->app, &c, &in, NULL, NULL, NULL, &same, &p), PFE_WRONG_STATE);

    fix_post(f, fix_deposit_of(ann, 1000));
    struct ticket_booking sold = tix_hold(f, &e, ann, 1), paying = tix_hold(f, &e, ann, 1),
                          held = tix_hold(f, &e, ann, 1);
    OK(tix_do(f, BOOKING_SETTLE, &sold));
    OK(tix_do(f, BOOKING_PAY, &paying));
    p = (struct problem){0};
    assert_int_equal(app_event_cancel(f->app, &a, e.uuid, &same, &p), PFE_FORBIDDEN);
    OK(app_event_cancel(f->app, &c, e.uuid, &same, &p));
    assert_int_equal(same.status, TICKET_EVENT_CANCELLED);
    assert_int_equal(app_event_cancel(f->app, &c, e.uuid, &same, &p), PFE_WRONG_STATE);
    assert_int_equal(fix_audits(f, "event.cancel"), 1);
    struct booking no = tix_hold_of(&e, ann, NULL, 1);
    assert_int_equal(app_booking_do(f->app, &no), PFE_EVENT_CANCELLED);
    OK(tix_do(f, BOOKING_CONFIRM, &paying));
    OK(tix_do(f, BOOKING_SETTLE, &held));
    assert_int_equal(tix_now(f, &paying).reason, TICKET_EVENT_GONE);
    assert_int_equal(tix_now(f, &held).reason, TICKET_EVENT_GONE);
    assert_int_equal(tix_now(f, &sold).state, TICKET_CONFIRMED);
    assert_money(f, ann, 900, 0);
    assert_stock(f, &e, 0, 1);
    fix_verify(f);
}

static void who_may(void **state)
{
    struct fix *f = *state;
    int64_t ann = fix_user(f, "ann"), bob = fix_user(f, "bob");
    struct principal a = {.user = ann, .role = IDENT_USER}, b = {.user = bob, .role = IDENT_USER},
                     admin = {.user = 99, .role = IDENT_ADMIN}, nobody = {0};
    struct ticket_event e = tix_event(f, 0, 100, 0);
    struct ticket_booking k = tix_hold(f, &e, ann, 1), g = tix_hold(f, &e, 0, 2), got;
    struct problem p = {0};
    OK(app_booking_may_hold(&a, ann, &p));
    OK(app_booking_may_hold(&admin, ann, &p));
    OK(app_booking_may_hold(&nobody, 0, &p));
    assert_int_equal(app_booking_may_hold(&b, ann, &p), PFE_FORBIDDEN);
    assert_int_equal(app_booking_may_hold(&nobody, ann, &p), PFE_FORBIDDEN);
    OK(app_booking_get(f->app, &a, k.uuid, &got));
    assert_int_equal(got.id, k.id);
    OK(app_booking_get(f->app, &admin, k.uuid, &got));
    assert_int_equal(app_booking_get(f->app, &b, k.uuid, &got), PFE_NOT_FOUND);
    assert_int_equal(app_booking_get(f->app, &nobody, k.uuid, &got), PFE_NOT_FOUND);
    OK(app_booking_get(f->app, &nobody, g.uuid, &got));
    assert_int_equal(got.id, g.id);

    struct ticket_booking list[10];
    unsigned n = 0;
    struct store_booking_query q = {.user = ann, .limit = 10};
    OK(app_booking_list(f->app, &a, &q, list, &n));
    assert_int_equal(n, 1);
    assert_int_equal(app_booking_list(f->app, &b, &q, list, &n), PFE_FORBIDDEN);
    q = (struct store_booking_query){.guest = STR("guest"), .limit = 10};
    assert_int_equal(app_booking_list(f->app, &a, &q, list, &n), PFE_FORBIDDEN);
    assert_int_equal(app_booking_list(f->app, &nobody, &q, list, &n), PFE_FORBIDDEN);
    OK(app_booking_list(f->app, &admin, &q, list, &n));
    assert_int_equal(n, 1);

    struct booking cancel;
    assert_int_equal(app_booking_may_cancel(f->app, &b, k.uuid, &cancel), PFE_NOT_FOUND);
    OK(app_booking_may_cancel(f->app, &a, k.uuid, &cancel));
    OK(app_booking_do(f->app, &cancel));
    assert_int_equal(cancel.b.state, TICKET_CANCELLED);
    assert_int_equal(cancel.b.reason, TICKET_BY_USER);
    OK(app_booking_may_cancel(f->app, &nobody, g.uuid, &cancel));
    OK(app_booking_do(f->app, &cancel));
    assert_stock(f, &e, 0, 0);
    struct ticket_booking c = tix_hold(f, &e, ann, 1);
    OK(tix_do(f, BOOKING_CONFIRM, &c));
    p = (struct problem){0};
    OK(app_booking_may_cancel(f->app, &a, c.uuid, &cancel));
    assert_int_equal(app_booking_do(f->app, &cancel), PFE_WRONG_STATE);
    app_booking_problem(&cancel, &p);
    assert_string_equal(p.detail, "the booking is CONFIRMED");
}

static bool always(const struct job *j)
{
    (void)j;
    return true;
}

static bool never(const struct job *j)
{
    (void)j;
    return false;
}

/* What nobody waits for any more when its turn comes is not done, and its neighbours are. */
static void given_up(void **state)
{
    struct fix *f = *state;
    struct ticket_event e = tix_event(f, 0, 10, 0);
    for (int i = 0; i < 2; i++) {
        struct booking b = {.op = BOOKING_HOLD, .guest = STR("g"), .count = 3};
        struct job j = {.kind = JOB_BOOKINGS, .booking = &b, .n_bookings = 1, .gone = i ? never : always};
        memcpy(b.uuid, e.uuid, sizeof b.uuid);
        assert_int_equal(app_submit_wait(f->app, &j), i ? PFE_OK : PFE_TIMEOUT);
        assert_int_equal(b.err, j.err);
        assert_stock(f, &e, i ? 3 : 0, 0);
    }
}

/* The group's stock is one row, however many of its bookings move; many commands, many events. */
static void large_groups(void **state)
{
    struct fix *f = *state;
    enum { EVENTS = 7, N = 700 };
    struct ticket_event e[EVENTS];
    struct booking *b = calloc(N, sizeof *b);
    assert_non_null(b);
    for (int i = 0; i < EVENTS; i++)
        e[i] = tix_event(f, 0, 60, 0);
    for (int i = 0; i < N; i++)
        b[i] = tix_hold_of(&e[i % EVENTS], 0, "g", 1);
    struct job j = {.kind = JOB_BOOKINGS, .booking = b, .n_bookings = N};
    OK(app_submit_wait(f->app, &j));
    int held = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(b[i].err, i / EVENTS < 60 ? PFE_OK : PFE_SOLD_OUT);
        held += b[i].moved;
    }
    assert_int_equal(held, EVENTS * 60);
    fix_advance(f, 601 * SECOND);
    unsigned n, total = 0;
    while ((n = app_bookings_expire_due(f->app)) > 0)
        total += n;
    assert_int_equal(total, EVENTS * 60);
    for (int i = 0; i < EVENTS; i++)
        assert_stock(f, &e[i], 0, 0);
    fix_verify(f);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_hold_is_pending_and_told),
        ON_BOTH(holds_are_refused),
        ON_BOTH(a_key_books_once),
        ON_BOTH(one_bad_command_refuses_itself),
        ON_BOTH(a_lost_commit_is_nothing),
        ON_BOTH(the_mock_provider_approves_five),
        ON_BOTH(the_ledger_provider_charges),
        ON_BOTH(money_is_held_step_by_step),
        ON_BOTH(a_frozen_account_is_declined_and_released),
        ON_BOTH(late_payment),
        ON_BOTH(messages_work_once),
        ON_BOTH(delivered_messages_go),
        ON_BOTH(the_stores_clock_decides),
        ON_MEMORY(what_was_so_before_is_said_after_a_commit),
        ON_BOTH(events_are_made_and_cancelled),
        ON_BOTH(who_may),
        ON_BOTH(given_up),
        ON_BOTH(large_groups),
    };
    return cmocka_run_group_tests_name("bookings", tests, NULL, NULL);
}
