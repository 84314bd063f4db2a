/* Ticketing: bookings. */
#include "api/ticketing/ticketing.h"

#include "codec/uuid.h"

static const char no_event[] = "there is no such event", no_booking[] = "there is no such booking";

static void write_booking(struct jw *w, const struct ticket_booking *b)
{
    jw_obj(w);
    dto_uuid(w, "booking_id", b->uuid);
    jw_kz(w, "status", ticket_status_name(b->state));
    dto_uuid(w, "event_id", b->event_uuid);
    if (b->user)
        jw_kint(w, "user_id", b->user);
    else
        jw_kz(w, "user_id", b->guest);
    jw_kint(w, "ticket_count", b->count);
    if (b->amount > 0) {
        jw_kamount(w, "amount", b->amount, api_scale(b->currency));
        jw_kstr(w, "currency", api_code(b->currency));
    }
    if (b->reason != TICKET_NO_REASON)
        jw_kz(w, "reason", ticket_reason_name(b->reason));
    if (ticket_pending(b->state))
        jw_ktime(w, "expires_at", b->expires_us);
    jw_ktime(w, "created_at", b->created_us);
    jw_ktime(w, "updated_at", b->updated_us);
    jw_end_obj(w);
}

static enum api_step show(struct api_call *c, const struct ticket_booking *b)
{
    struct jw w = api_out(c);
    write_booking(&w, b);
    return api_ok(c, 200);
}

/* Whom a user_id names: *ret_user, or *ret_guest and user 0. false: *ret_step. */
static bool read_buyer(struct api_call *c, const struct api_value *v, const char *in, int64_t *ret_user,
                       struct str *ret_guest, enum api_step *ret_step)
{
    *ret_guest = STR_NONE;
    *ret_user = c->caller.who.user;
    *ret_step = API_DONE;
    if (!v->set && !*ret_user)
        problem_field(&c->p, in, "user_id", "missing", "is required");
    if (!v->set)
        return c->p.code == PFE_OK;
    enum pf_err e = app_user_find(c->app, v->s, c->may_block, ret_user);
    if (e == PFE_NOT_FOUND && !v->i) { /* no number, and nobody's name */
        *ret_user = 0;
        *ret_guest = v->s;
        return true;
    }
    return !api_failed(c, e, e == PFE_NOT_FOUND ? "there is no such user" : "", ret_step);
}

static void refused(struct job *j)
{
    struct api_call *c = j->ctx;
    app_booking_problem(j->booking, &c->p);
}

static void render(struct api_call *c)
{
    struct jw w = api_out(c);
    write_booking(&w, &c->job.booking->b);
}

static enum api_step decide(struct api_call *c, struct booking *b)
{
    c->job.kind = JOB_BOOKINGS;
    c->job.booking = b;
    c->job.n_bookings = 1;
    c->refused = refused;
    c->render = render;
    return api_ledger(c);
}

enum api_step ticketing_booking_create(struct api_call *c)
{
    const struct api_value *v = c->body;
    struct booking *b = arena_zalloc(&c->r->arena, sizeof *b);
    struct uuid event;
    enum api_step step;
    if (!b)
        return api_fail(c, PFE_NOMEM, "");
    if (!read_buyer(c, &v[0], "body", &b->user, &b->guest, &step))
        return step;
    if (app_booking_may_hold(&c->caller.who, b->user, &c->p) != PFE_OK)
        return API_DONE;
    if (!uuid_parse(v[1].s, &event))
        return api_fail(c, PFE_NOT_FOUND, no_event);
    memcpy(b->uuid, event.b, sizeof b->uuid);
    b->op = BOOKING_HOLD;
    b->count = v[2].i;
    return decide(c, b);
}

enum api_step ticketing_booking_get(struct api_call *c)
{
    uint8_t id[16];
    struct ticket_booking b;
    enum api_step step;
    if (!ticketing_id(c, id, no_booking))
        return API_DONE;
    if (api_failed(c, app_booking_get(c->app, &c->caller.who, id, &b), no_booking, &step))
        return step;
    return show(c, &b);
}

enum api_step ticketing_booking_cancel(struct api_call *c)
{
    uint8_t id[16];
    struct booking *b = arena_alloc(&c->r->arena, sizeof *b);
    enum api_step step;
    if (!b)
        return api_fail(c, PFE_NOMEM, "");
    if (!ticketing_id(c, id, no_booking))
        return API_DONE;
    if (api_failed(c, app_booking_may_cancel(c->app, &c->caller.who, id, b), no_booking, &step))
        return step;
    return decide(c, b);
}

enum api_step ticketing_booking_list(struct api_call *c)
{
    struct store_booking_query q = {0};
    struct api_page page;
    unsigned n = 0;
    enum api_step step;
    if (!api_page(c, 1, &page) || !read_buyer(c, &c->query[0], "query", &q.user, &q.guest, &step))
        return API_DONE;
    q.before_id = page.cursor;
    q.offset = page.offset;
    q.limit = page.limit + 1;
    struct ticket_booking *b = arena_alloc(&c->r->arena, q.limit * sizeof *b);
    enum pf_err e = b ? app_booking_list(c->app, &c->caller.who, &q, b, &n) : PFE_NOMEM;
    if (e == PFE_FORBIDDEN)
        return api_fail(c, e,
                        q.user ? "only that user or an administrator may see a user's bookings"
                               : "only an administrator may see a guest's bookings");
    if (api_failed(c, e, "", &step))
        return step;
    struct jw w = api_out(c);
    jw_obj(&w);
    jw_key(&w, "data");
    jw_arr(&w);
    for (unsigned i = 0; i < n && i < page.limit; i++)
        write_booking(&w, &b[i]);
    api_page_end(&w, &page, n > page.limit ? b[page.limit - 1].id : 0);
    return api_ok(c, 200);
}
