/* Events and bookings: every state with every move, the refusals of a hold, and stock against bookings at random. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "domain/ticketing/ticketing.h"
#include "prng.h"

enum { USD = 840, NOW = 1000000, HOLD = 600, START = NOW + 5000 };

static struct ticket_event event(int64_t capacity, int64_t price)
{
    return (struct ticket_event){.id = 7,
                                 .uuid = {1, 2, 3},
                                 .organiser = 5,
                                 .capacity = capacity,
                                 .price = price,
                                 .currency = USD,
                                 .starts_us = START};
}

static struct ticket_ask ask(int64_t user, const char *guest, int64_t count)
{
    return (struct ticket_ask){
        .id = 9, .uuid = {9}, .user = user, .guest = str_c(guest), .count = count, .now_us = NOW, .hold_us = HOLD};
}

/* Both untouched by what was refused. */
static void assert_refused(enum pf_err got, enum pf_err want, const struct ticket_event *e,
                           const struct ticket_event *e0, const struct ticket_booking *b,
                           const struct ticket_booking *b0)
{
    assert_int_equal(got, want);
    assert_memory_equal(e, e0, sizeof *e);
    assert_memory_equal(b, b0, sizeof *b);
}

static void hold_takes_tickets(void **state)
{
    (void)state;
    struct ticket_event e = event(10, 250);
    struct ticket_ask a = ask(3, NULL, 4);
    struct ticket_booking b;
    assert_int_equal(ticket_hold(&e, &a, &b), PFE_OK);
    assert_int_equal(e.held, 4);
    assert_int_equal(e.sold, 0);
    assert_int_equal(ticket_free(&e), 6);
    assert_int_equal(b.id, 9);
    assert_int_equal(b.event, 7);
    assert_memory_equal(b.event_uuid, e.uuid, 16);
    assert_memory_equal(b.uuid, a.uuid, 16);
    assert_int_equal(b.user, 3);
    assert_string_equal(b.guest, "");
    assert_int_equal(b.amount, 1000);
    assert_int_equal(b.currency, USD);
    assert_int_equal(b.state, TICKET_HELD);
    assert_int_equal(b.version, 1);
    assert_int_equal(b.expires_us, NOW + HOLD);
    assert_int_equal(b.created_us, NOW);
    assert_int_equal(b.hold_seq, 0);
    assert_int_equal(b.paid_seq, 0);
}

static void hold_refuses(void **state)
{
    (void)state;
    char longest[TICKET_GUEST_MAX + 2];
    memset(longest, 'g', sizeof longest);
    longest[TICKET_GUEST_MAX + 1] = '\0';
    struct ticket_event open = event(10, 0), paid = event(10, 100), gone = open, full = event(10, 0);
    gone.status = TICKET_EVENT_CANCELLED;
    full.held = 6;
    full.sold = 3;
    const struct {
        const struct ticket_event *e;
        struct ticket_ask a;
        enum pf_err want;
    } cases[] = {
        {&open, ask(3, NULL, 0), PFE_INVALID},
        {&open, ask(3, NULL, -1), PFE_INVALID},
        {&open, ask(3, NULL, INT64_MIN), PFE_INVALID},
        {&open, ask(3, NULL, TICKET_COUNT_MAX + 1), PFE_INVALID},
        {&open, ask(3, NULL, INT64_MAX), PFE_INVALID},
        {&open, ask(0, NULL, 1), PFE_INVALID},
        {&open, ask(0, longest, 1), PFE_INVALID},
        {&open, ask(3, "both", 1), PFE_INVALID},
        {&open, ask(-3, NULL, 1), PFE_INVALID},
        {&open, ask(0, "\xff", 1), PFE_INVALID},
        {&gone, ask(3, NULL, 1), PFE_EVENT_CANCELLED},
        {&paid, ask(0, "guest", 1), PFE_GUEST_CANNOT_PAY},
        {&paid, ask(5, NULL, 1), PFE_SAME_ACCOUNT},
        {&open, ask(3, NULL, 11), PFE_SOLD_OUT},
        {&full, ask(3, NULL, 2), PFE_SOLD_OUT},
        {&full, ask(3, NULL, 1), PFE_OK},
        {&open, ask(5, NULL, 10), PFE_OK},
        {&open, ask(0, longest + 1, 1), PFE_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ticket_event e = *cases[i].e;
        struct ticket_booking b, b0;
        memset(&b, 7, sizeof b);
        b0 = b;
        enum pf_err got = ticket_hold(&e, &cases[i].a, &b);
        if (cases[i].want == PFE_OK)
            assert_int_equal(got, PFE_OK);
        else
            assert_refused(got, cases[i].want, &e, cases[i].e, &b, &b0);
    }
    struct ticket_ask nul = ask(0, "a", 1), late = ask(3, NULL, 1);
    struct ticket_booking b;
    nul.guest = (struct str){"a\0b", 3};
    assert_int_equal(ticket_hold(&open, &nul, &b), PFE_INVALID);
    late.now_us = START - 1;
    assert_int_equal(ticket_hold(&open, &late, &b), PFE_OK);
    late.now_us = START;
    assert_int_equal(ticket_hold(&open, &late, &b), PFE_EVENT_OVER);
    open.starts_us = 0; /* not known */
    assert_int_equal(ticket_hold(&open, &late, &b), PFE_OK);
    paid.organiser = 0;
    assert_int_equal(ticket_hold(&paid, &late, &b), PFE_EVENT_OVER);
}

static void prices_fit(void **state)
{
    (void)state;
    struct ticket_event e = event(TICKET_CAPACITY_MAX, TICKET_PRICE_MAX);
    struct ticket_ask a = ask(3, NULL, TICKET_COUNT_MAX);
    struct ticket_booking b;
    assert_int_equal(ticket_hold(&e, &a, &b), PFE_OK);
    assert_true(b.amount > 0 && b.amount / TICKET_COUNT_MAX == TICKET_PRICE_MAX);
}

/* ---- every state with every move ---- */

enum op { PAY, DOUBT, CONFIRM, CANCEL, EXPIRE, OPS };

static enum pf_err apply(enum op op, struct ticket_event *e, struct ticket_booking *b, int64_t now)
{
    switch (op) {
    case PAY:
        return ticket_pay(e, b, now);
    case DOUBT:
        return ticket_doubt(e, b, now);
    case CONFIRM:
        return ticket_confirm(e, b, now);
    case CANCEL:
        return ticket_cancel(e, b, TICKET_DECLINED, now);
    case EXPIRE:
        return ticket_expire(e, b, now);
    case OPS:
        break;
    }
    return PFE_INTERNAL;
}

/* What should come of it, written down a second time: a letter per state held, paying, unknown, confirmed, cancelled,
   expired; '.' is refused. */
static const char *const table[OPS] = {
    [PAY] = "P.....", [DOUBT] = ".U....", [CONFIRM] = "CCC..C", [CANCEL] = "XXX...", [EXPIRE] = "EEE...",
};

static enum ticket_state state_of(char c)
{
    static const char letters[] = "HPUCXE";
    return (enum ticket_state)(strchr(letters, c) - letters);
}

static int64_t in_stock(enum ticket_state s, bool sold, int64_t count)
{
    return (sold ? s == TICKET_CONFIRMED : s <= TICKET_UNKNOWN) ? count : 0;
}

static void every_move(void **state)
{
    (void)state;
    unsigned tried = 0, done = 0;
    /* bits: event cancelled, over, no ticket left for who has none, not due yet */
    for (unsigned bits = 0; bits < 16; bits++)
        for (int from = 0; from < TICKET_STATES; from++)
            for (int op = 0; op < OPS; op++, tried++) {
                struct ticket_event e = event(10, 100), e0;
                struct ticket_booking b = {.id = 1,
                                           .event = 7,
                                           .user = 3,
                                           .count = 4,
                                           .amount = 400,
                                           .state = (enum ticket_state)from,
                                           .version = 3,
                                           .expires_us = START - 100},
                                      b0;
                bool gone = bits & 1, over = bits & 2, full = bits & 4, early = bits & 8;
                e.held = in_stock(b.state, false, 4) + 1;
                e.sold = in_stock(b.state, true, 4) + (full ? 10 - 4 : 2);
                if (full && in_stock(b.state, false, 4) + in_stock(b.state, true, 4))
                    e.held--; /* its own are among them */
                e.status = gone ? TICKET_EVENT_CANCELLED : TICKET_EVENT_OPEN;
                int64_t now = over ? START : early ? b.expires_us - 1 : b.expires_us;
                e0 = e;
                b0 = b;
                enum pf_err want = table[op][from] == '.' ? PFE_WRONG_STATE : PFE_OK;
                if (want == PFE_OK && op == EXPIRE && now < b.expires_us)
                    want = PFE_WRONG_STATE;
                if (want == PFE_OK && (op == PAY || op == CONFIRM) && gone)
                    want = PFE_EVENT_CANCELLED;
                if (want == PFE_OK && from == TICKET_EXPIRED && over)
                    want = PFE_EVENT_OVER;
                if (want == PFE_OK && from == TICKET_EXPIRED && full)
                    want = PFE_SOLD_OUT;
                enum pf_err got = apply((enum op)op, &e, &b, now);
                if (want != PFE_OK) {
                    assert_refused(got, want, &e, &e0, &b, &b0);
                    continue;
                }
                assert_int_equal(got, PFE_OK);
                done++;
                enum ticket_state to = state_of(table[op][from]);
                assert_true(ticket_may_move(b0.state, to));
                assert_int_equal(b.state, to);
                assert_int_equal(b.version, 4);
                assert_int_equal(b.updated_us, now);
                assert_int_equal(b.reason, op == CANCEL ? TICKET_DECLINED : TICKET_NO_REASON);
                assert_int_equal(e.held - e0.held, in_stock(to, false, 4) - in_stock(b0.state, false, 4));
                assert_int_equal(e.sold - e0.sold, in_stock(to, true, 4) - in_stock(b0.state, true, 4));
                assert_true(ticket_free(&e) >= 0);
            }
    assert_int_equal(tried, 16 * TICKET_STATES * OPS);
    assert_true(done > 100);
}

static void moves_are_those_of_the_picture(void **state)
{
    (void)state;
    for (int from = -1; from <= TICKET_STATES; from++)
        for (int to = -1; to <= TICKET_STATES; to++) {
            bool want = false;
            for (int op = 0; op < OPS; op++)
                want |=
                    from >= 0 && from < TICKET_STATES && table[op][from] != '.' && (int)state_of(table[op][from]) == to;
            assert_int_equal(ticket_may_move((enum ticket_state)from, (enum ticket_state)to), want);
        }
    static const char *const names[] = {"PENDING", "PENDING", "PENDING", "CONFIRMED", "CANCELLED", "EXPIRED", ""};
    for (int s = 0; s <= TICKET_STATES; s++)
        assert_string_equal(ticket_status_name((enum ticket_state)s), names[s]);
    assert_string_equal(ticket_reason_name(TICKET_NO_REASON), "");
    assert_string_equal(ticket_reason_name(TICKET_BY_USER), "by_user");
    assert_string_equal(ticket_reason_name(TICKET_DECLINED), "declined");
    assert_string_equal(ticket_reason_name(TICKET_EVENT_GONE), "event_cancelled");
}

static void foreign_events_are_a_defect(void **state)
{
    (void)state;
    struct ticket_event e = event(10, 0), none = event(10, 0);
    struct ticket_ask a = ask(3, NULL, 4);
    struct ticket_booking b;
    assert_int_equal(ticket_hold(&e, &a, &b), PFE_OK);
    none.id = 8;
    assert_int_equal(ticket_confirm(&none, &b, NOW), PFE_INTERNAL);
    none.id = 7; /* and so is one that does not count it */
    assert_int_equal(ticket_confirm(&none, &b, NOW), PFE_INTERNAL);
    assert_int_equal(b.state, TICKET_HELD);
}

static void money_is_held_while_paying(void **state)
{
    (void)state;
    for (int s = 0; s < TICKET_STATES; s++) {
        struct ticket_booking b = {.state = (enum ticket_state)s, .amount = 5};
        assert_int_equal(ticket_holds_money(&b), s == TICKET_PAYING || s == TICKET_UNKNOWN);
        b.amount = 0;
        assert_false(ticket_holds_money(&b));
        assert_int_equal(ticket_pending(b.state), s <= TICKET_UNKNOWN);
    }
    struct ticket_booking b = {.count = 5};
    assert_true(ticket_mock_approves(&b));
    b.count = 6;
    assert_false(ticket_mock_approves(&b));
}

static void events_are_checked(void **state)
{
    (void)state;
    const struct ticket_event good = event(10, 100);
    struct problem p = {0};
    assert_int_equal(ticket_event_check(&good, NOW, &p), PFE_OK);
    struct ticket_event bad[9];
    for (size_t i = 0; i < 9; i++)
        bad[i] = good;
    bad[0].capacity = 0;
    bad[1].capacity = TICKET_CAPACITY_MAX + 1;
    bad[2].price = -1;
    bad[3].price = TICKET_PRICE_MAX + 1;
    bad[4].currency = 1;
    bad[5].starts_us = NOW;
    bad[6].starts_us = -1;
    bad[7].held = 1;
    bad[8].status = TICKET_EVENT_CANCELLED;
    for (size_t i = 0; i < 9; i++) {
        p = (struct problem){0};
        assert_int_equal(ticket_event_check(&bad[i], NOW, &p), PFE_INVALID);
        assert_int_equal(p.n_fields, i < 7);
    }
    struct ticket_event undated = good;
    undated.starts_us = 0;
    undated.capacity = TICKET_CAPACITY_MAX;
    undated.price = TICKET_PRICE_MAX;
    assert_int_equal(ticket_event_check(&undated, NOW, &p), PFE_OK);
}

/* ---- at random: the counters are the sums over the bookings, whatever happens ---- */

static void stock_is_what_bookings_make(void **state)
{
    (void)state;
    enum { BOOKINGS = 40, ROUNDS = 300000 };
    struct prng r = prng_seeded("stock_is_what_bookings_make");
    struct ticket_event e = event(60, 10);
    struct ticket_booking b[BOOKINGS];
    unsigned n = 0, full = 0, back = 0;
    e.starts_us = 0;
    for (int i = 0; i < ROUNDS; i++) {
        unsigned op = prng_below(&r, OPS + 1), at = prng_below(&r, BOOKINGS);
        int64_t now = NOW + i;
        if (op == OPS || at >= n) {
            struct ticket_ask a = ask(3, NULL, 1 + prng_below(&r, 9));
            struct ticket_booking made;
            a.now_us = now;
            a.hold_us = 1 + prng_below(&r, 50);
            /* in the place of one that holds nothing any more */
            bool room = n < BOOKINGS || b[at].state == TICKET_CANCELLED || b[at].state == TICKET_EXPIRED;
            if (room && ticket_hold(&e, &a, &made) == PFE_OK)
                b[n < BOOKINGS ? n++ : at] = made;
        } else {
            enum ticket_state was = b[at].state;
            enum pf_err got = apply((enum op)op, &e, &b[at], now);
            full += got == PFE_SOLD_OUT;
            back += got == PFE_OK && was == TICKET_EXPIRED;
        }
        if (n > 0 && i % 97 == 0) { /* confirmed ones never leave by themselves, and a few may take all there is */
            at = prng_below(&r, n);
            if (b[at].state == TICKET_CONFIRMED) {
                e.sold -= b[at].count;
                b[at].state = TICKET_CANCELLED;
            }
        }
        int64_t held = 0, sold = 0;
        for (unsigned k = 0; k < n; k++) {
            held += ticket_pending(b[k].state) ? b[k].count : 0;
            sold += b[k].state == TICKET_CONFIRMED ? b[k].count : 0;
        }
        assert_int_equal(e.held, held);
        assert_int_equal(e.sold, sold);
        assert_true(held + sold <= e.capacity);
    }
    assert_true(full > 100 && back > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hold_takes_tickets),
        cmocka_unit_test(hold_refuses),
        cmocka_unit_test(prices_fit),
        cmocka_unit_test(every_move),
        cmocka_unit_test(moves_are_those_of_the_picture),
        cmocka_unit_test(foreign_events_are_a_defect),
        cmocka_unit_test(money_is_held_while_paying),
        cmocka_unit_test(events_are_checked),
        cmocka_unit_test(stock_is_what_bookings_make),
    };
    return cmocka_run_group_tests_name("ticketing", tests, NULL, NULL);
}
