/* Events' stock, and the use cases of bookings around the writer. */
#include "app/bookings.h"
#include "app/internal.h"
#include "app/lease.h"

#include <stdlib.h>

#include "codec/uuid.h"

enum { DUE_BATCH = 256 };

/* ---- events ---- */

static struct str uuid_text(const uint8_t uuid[16], char out[UUID_TEXT_LEN + 1])
{
    struct uuid u;
    memcpy(u.b, uuid, sizeof u.b);
    uuid_format(&u, out);
    return (struct str){out, UUID_TEXT_LEN};
}

static enum pf_err insert(struct app *a, struct store_tx *tx, const struct caller *c, struct app_idem *idem,
                          app_event_render render, void *ctx, struct ticket_event *e)
{
    char text[UUID_TEXT_LEN + 1];
    enum pf_err err = store_event_insert(tx, e);
    if (err == PFE_OK)
        err = app_audit_add(a, tx, c, "event.create", "event", uuid_text(e->uuid, text), "ok");
    if (err == PFE_OK && idem && idem->key.n) {
        render(ctx, e, idem);
        err = app_idem_store(tx, idem);
    }
    return err;
}

enum pf_err app_event_create(struct app *a, const struct caller *c, const struct ticket_event *in,
                             struct app_idem *idem, app_event_render render, void *ctx, struct ticket_event *ret,
                             struct problem *p)
{
    static const uint8_t none[16];
    int64_t now = app_now(a);
    struct ticket_event e = {.organiser = c->who.user,
                             .capacity = in->capacity,
                             .price = in->price,
                             .currency = in->currency,
                             .starts_us = in->starts_us,
                             .created_us = now};
    struct uuid id = uuid_v7(now);
    memcpy(e.uuid, memcmp(in->uuid, none, sizeof none) ? in->uuid : id.b, sizeof e.uuid);
    enum pf_err err = ticket_event_check(&e, now, p);
    if (err != PFE_OK)
        return err;
    struct store_tx *tx;
    err = store_tx_begin(a->d.store, &tx);
    if (err == PFE_OK) {
        err = insert(a, tx, c, idem, render, ctx, &e);
        if (err == PFE_OK)
            err = store_tx_commit(tx);
        else
            store_tx_rollback(tx);
    }
    if (err != PFE_OK)
        return problem_set(p, err, "%s", err == PFE_WRONG_STATE ? "there is an event with this id" : "");
    *ret = e;
    return PFE_OK;
}

static enum pf_err take_off_sale(struct app *a, struct store_tx *tx, const struct caller *c, const uint8_t uuid[16],
                                 struct ticket_event *ret)
{
    char text[UUID_TEXT_LEN + 1];
    enum pf_err e = app_event_get(a, uuid, ret);
    if (e == PFE_OK && !app_may_act_for(&c->who, ret->organiser))
        e = PFE_FORBIDDEN;
    if (e == PFE_OK && ret->status != TICKET_EVENT_OPEN)
        e = PFE_WRONG_STATE;
    if (e == PFE_OK)
        e = store_event_status(tx, ret->id, TICKET_EVENT_CANCELLED);
    return e == PFE_OK ? app_audit_add(a, tx, c, "event.cancel", "event", uuid_text(uuid, text), "ok") : e;
}

enum pf_err app_event_cancel(struct app *a, const struct caller *c, const uint8_t uuid[16], struct ticket_event *ret,
                             struct problem *p)
{
    struct ticket_event ev;
    struct store_tx *tx;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e == PFE_OK) {
        e = take_off_sale(a, tx, c, uuid, &ev);
        if (e == PFE_OK)
            e = store_tx_commit(tx);
        else
            store_tx_rollback(tx);
    }
    if (e == PFE_OK) {
        ev.status = TICKET_EVENT_CANCELLED;
        *ret = ev;
        return PFE_OK;
    }
    return problem_set(p, e, "%s",
                       e == PFE_NOT_FOUND     ? "there is no such event"
                       : e == PFE_WRONG_STATE ? "the event is cancelled already"
                       : e == PFE_FORBIDDEN   ? "only its organiser or an administrator can cancel an event"
                                              : "");
}

enum pf_err app_event_get(struct app *a, const uint8_t uuid[16], struct ticket_event *ret)
{
    struct store_ref r = {0};
    memcpy(r.uuid, uuid, sizeof r.uuid);
    return store_event_get(a->d.store, &r, ret);
}

enum pf_err app_events_get(struct app *a, const struct store_ref *refs, size_t n, struct ticket_event *out)
{
    return store_events_get(a->d.store, refs, n, out);
}

/* ---- bookings ---- */

void app_booking_problem(const struct booking *b, struct problem *p)
{
    switch (b->err) {
    case PFE_NOT_FOUND:
        problem_set(p, b->err, b->op == BOOKING_HOLD ? "there is no such event" : "there is no such booking");
        break;
    case PFE_INVALID:
        if (b->op != BOOKING_HOLD)
            problem_set(p, b->err, "%s", "");
        else if (b->count < 1 || b->count > TICKET_COUNT_MAX)
            problem_field(p, "body", "ticket_count", "range", "must be from 1 to %d", TICKET_COUNT_MAX);
        else
            problem_field(p, "body", "user_id", "format", "must be a user's id, or a guest's name of 1 to %d bytes",
                          TICKET_GUEST_MAX);
        break;
    case PFE_SOLD_OUT: {
        long long left = (long long)ticket_free(&b->e);
        if (left == 0)
            problem_set(p, b->err, "no ticket is left");
        else
            problem_set(p, b->err, "%lld ticket%s left", left, left == 1 ? " is" : "s are");
        break;
    }
    case PFE_SAME_ACCOUNT:
        problem_set(p, b->err, "organisers cannot pay themselves");
        break;
    case PFE_WRONG_STATE:
        problem_set(p, b->err, "the booking is %s", ticket_status_name(b->b.state));
        break;
    default:
        problem_set(p, b->err, "%s", "");
    }
}

enum pf_err app_booking_may_hold(const struct principal *who, int64_t user, struct problem *p)
{
    if (user == 0 || app_may_act_for(who, user))
        return PFE_OK;
    return problem_set(p, PFE_FORBIDDEN, "only that user or an administrator can book for a user");
}

enum pf_err app_booking_get(struct app *a, const struct principal *who, const uint8_t uuid[16],
                            struct ticket_booking *ret)
{
    struct store_ref r = {0};
    struct ticket_booking b;
    memcpy(r.uuid, uuid, sizeof r.uuid);
    enum pf_err e = store_booking_get(a->d.store, &r, &b);
    if (e == PFE_OK && b.user != 0 && !app_may_act_for(who, b.user))
        e = PFE_NOT_FOUND;
    if (e == PFE_OK)
        *ret = b;
    return e;
}

enum pf_err app_booking_list(struct app *a, const struct principal *who, const struct store_booking_query *q,
                             struct ticket_booking *out, unsigned *ret_n)
{
    if (!(q->user > 0 ? app_may_act_for(who, q->user) : who->role == IDENT_ADMIN))
        return PFE_FORBIDDEN;
    return store_booking_list(a->d.store, q, out, ret_n);
}

enum pf_err app_booking_do(struct app *a, struct booking *b)
{
    struct job j = {.kind = JOB_BOOKINGS, .actor = b->user, .booking = b, .n_bookings = 1};
    enum pf_err e = app_submit_wait(a, &j);
    return b->err = e;
}

enum pf_err app_booking_may_cancel(struct app *a, const struct principal *who, const uint8_t uuid[16],
                                   struct booking *ret)
{
    struct ticket_booking b;
    enum pf_err e = app_booking_get(a, who, uuid, &b);
    if (e == PFE_OK)
        *ret = (struct booking){.op = BOOKING_CANCEL, .id = b.id};
    return e;
}

unsigned app_bookings_expire_due(struct app *a)
{
    int64_t id[DUE_BATCH];
    unsigned n = 0, expired = 0;
    struct store_fence f;
    if (!app_lease_fence(a, APP_LEASE_HOLDS, &f))
        return 0;
    if (store_bookings_due(a->d.store, app_now(a), DUE_BATCH, id, &n) != PFE_OK || n == 0)
        return 0;
    struct booking *b = calloc(n, sizeof *b);
    if (!b)
        return 0;
    for (unsigned i = 0; i < n; i++)
        b[i] = (struct booking){.op = BOOKING_EXPIRE, .id = id[i]};
    struct job j = {.kind = JOB_BOOKINGS, .booking = b, .n_bookings = n, .fence = &f};
    if (app_submit_wait(a, &j) == PFE_OK)
        for (unsigned i = 0; i < n; i++)
            expired += b[i].moved;
    free(b);
    return expired;
}

/* ---- messages ---- */

enum pf_err app_outbox_next(struct app *a, struct arena *arena, int64_t after_id, unsigned limit,
                            struct store_message *out, unsigned *ret_n)
{
    return store_outbox_list(a->d.store, arena, after_id, limit, out, ret_n);
}

enum pf_err app_outbox_delivered(struct app *a, const struct store_outbox_ref *m, size_t n)
{
    struct job j = {.kind = JOB_DELIVERED, .delivered = m, .n_delivered = n};
    return n ? app_submit_wait(a, &j) : PFE_OK;
}

enum pf_err app_inbox_purge(struct app *a, int64_t before_us, int64_t *ret_n)
{
    struct store_tx *tx;
    int64_t n = 0;
    enum pf_err e = store_tx_begin(a->d.store, &tx);
    if (e != PFE_OK)
        return e;
    e = store_inbox_purge(tx, before_us, &n);
    if (e == PFE_OK)
        e = store_tx_commit(tx);
    else
        store_tx_rollback(tx);
    if (e == PFE_OK)
        *ret_n = n;
    return e;
}
