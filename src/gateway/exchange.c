/*
 * A request's way through the gateway, on its loop's thread.
 *
 *   NEW ─▶ breaker, balancer ─▶ RUNNING ─▶ judged ─▶ OVER: announced to the I/O thread
 *            │        ▲            │ ▲        │
 *            ▼        │            ▼ │        ▼
 *          WAITING ───┘        streaming    BACKOFF ─▶ breaker, balancer …
 *
 * What is sent again: a request of which nothing was sent; and a safe one (GET, HEAD, PUT, DELETE, or with an
 * Idempotency-Key) that was lost or answered 502, 503 or 504. Never one whose body has gone on in part.
 *
 * A 503 says that nothing was done. It does so for all attempts, not for the last alone: `maybe_done`.
 */
#include <stdlib.h>

#include "base/rand.h"
#include "gateway/bookings.h"
#include "gateway/internal.h"

static struct breaker *guard_of(const struct exchange *x)
{
    return x->g->guard_of[x->row - gateway_rows]->breaker;
}

static struct balancer *balancer_of(const struct exchange *x)
{
    return x->g->groups[x->row->group].balancer;
}

void exchange_unref(struct exchange *x)
{
    if (atomic_fetch_sub(&x->holders, 1) != 1)
        return;
    atomic_fetch_sub(&x->g->in_flight[x->row - gateway_rows], 1);
    atomic_fetch_sub(&x->g->live, 1);
    buf_free(&x->head);
    buf_free(&x->body_in);
    arena_reset(&x->arena);
    free(x);
}

static void on_stream(void *ctx)
{
    gateway_loop_post(ctx, POST_WAKE);
}

/* ---- the end */

/* Hands the answer to the I/O thread; only the loop's own part of x is to be used from here on. */
static void announce(struct exchange *x)
{
    if (!x->up) {
        http_resume(x->r);
        return;
    }
    if (http_stream_answer(x->up))
        return;
    http_stream_leave(x->down); /* in place of the connection, which is gone */
    exchange_unref(x);
}

static void over(struct exchange *x)
{
    struct loop *l = x->loop;
    x->state = X_OVER;
    if (x->prev)
        x->prev->next = x->next;
    else
        l->live = x->next;
    if (x->next)
        x->next->prev = x->prev;
    l->n_live--;
    if (x->calling)
        retry_end(&x->call);
    http_stream_leave(x->up);
    if (x->streaming)
        http_stream_leave(x->down);
    pthread_mutex_lock(&l->lock);
    bool later = x->posted != 0;
    x->dead = later;
    pthread_mutex_unlock(&l->lock);
    if (!later)
        exchange_unref(x);
}

static void drop_easy(struct exchange *x)
{
    if (!x->easy)
        return;
    curl_multi_remove_handle(x->loop->multi, x->easy);
    gateway_loop_easy_back(x->loop, x->easy);
    x->easy = NULL;
}

/* ---- judgement */

static enum breaker_result for_breaker(const struct exchange *x, enum exchange_end end)
{
    switch (end) {
    case END_ANSWER:
        return x->status >= 500 ? BREAKER_FAILURE : x->status >= 400 ? BREAKER_IGNORED : BREAKER_SUCCESS;
    case END_NOT_SENT:
    case END_LOST:
    case END_GARBAGE:
    case END_DEADLINE:
        return BREAKER_FAILURE;
    default:
        return BREAKER_IGNORED;
    }
}

static enum balancer_result for_balancer(enum breaker_result r, enum exchange_end end)
{
    if (end == END_ANSWER && r == BREAKER_IGNORED)
        return BALANCER_SUCCESS; /* a 4xx is the caller's mistake, and the backend's good answer */
    return r == BREAKER_SUCCESS ? BALANCER_SUCCESS : r == BREAKER_FAILURE ? BALANCER_FAILURE : BALANCER_IGNORED;
}

static enum retry_outcome for_retry(const struct exchange *x, enum exchange_end end)
{
    bool may = x->row->retry && !x->consumed;
    switch (end) {
    case END_ANSWER:
        if (x->status < 400)
            return RETRY_SUCCESS;
        return may && x->safe && x->status >= 502 && x->status <= 504 ? RETRY_FAILURE : RETRY_PERMANENT;
    case END_NOT_SENT:
        return may ? RETRY_FAILURE : RETRY_PERMANENT;
    case END_LOST:
    case END_GARBAGE:
        return may && x->safe ? RETRY_FAILURE : RETRY_PERMANENT;
    case END_CANCELLED:
        return RETRY_CANCELLED;
    case END_BREAKER:
    case END_FULL:
    case END_NONE:
        return RETRY_REJECTED;
    default:
        return RETRY_PERMANENT;
    }
}

/* Whether this attempt of a write may have done it without saying so. A 503 is the service's word that it has not. */
static bool unsettled(const struct exchange *x, enum exchange_end end)
{
    if (x->method == HTTP_GET || x->requests == 0)
        return false;
    return end == END_ANSWER ? x->status >= 500 && x->status != 503 : true;
}

static void count(struct exchange *x, enum exchange_end end, int64_t now)
{
    struct backend *b = x->backend;
    if (!b)
        return;
    metric_inc(b->m.codes[end == END_ANSWER ? x->status / 100 : 0], 1);
    metric_observe(b->m.duration, now - x->attempt_us);
}

/* Gives back what the attempt has held. */
static void settle(struct exchange *x, enum exchange_end end, int64_t now)
{
    enum breaker_result r = for_breaker(x, end);
    count(x, end, now);
    if (x->permit.generation)
        breaker_done(guard_of(x), &x->permit, r, now);
    if (x->lease.serial)
        balancer_release(balancer_of(x), &x->lease, for_balancer(r, end), now);
}

static void judge(struct exchange *x, enum exchange_end end)
{
    int64_t now = gateway_now();
    drop_easy(x);
    settle(x, end, now);
    x->maybe_done |= unsettled(x, end);
    if (end == END_BREAKER)
        x->retry_after_us = x->permit.retry_in_us;
    struct retry_verdict v = retry_next(&x->call, for_retry(x, end), x->retry_after_us, rand_u64(), now);
    if (v.again) {
        if (x->backend)
            metric_inc(x->backend->m.retried, 1);
        x->failed = x->backend;
        x->backend = NULL;
        x->state = X_BACKOFF;
        x->due_us = now + v.wait_us;
        return;
    }
    x->end = end;
    x->stale_us = -1;
    if (x->key.p && end == END_ANSWER && x->status < 500)
        answer_keep(x);
    else if (x->key.p && end != END_CANCELLED)
        (void)answer_stand_in(x);
    x->state = X_OVER;
    x->done_next = NULL;
    *x->loop->done_end = x;
    x->loop->done_end = &x->done_next;
}

/* All that has ended in this round of the loop: so the I/O thread is woken once for all of them. */
void exchange_announce(struct loop *l)
{
    struct exchange *x = l->done;
    l->done = NULL;
    l->done_end = &l->done;
    for (struct exchange *next; x; x = next) {
        next = x->done_next;
        announce(x);
        over(x);
    }
}

/* ---- attempts */

static void launch(struct exchange *x)
{
    x->state = X_RUNNING;
    x->backend = x->lease.data;
    if (x->g->groups[x->row->group].sticky && strcmp(x->lease.cookie, x->cookie) != 0) {
        memcpy(x->cookie, x->lease.cookie, sizeof x->cookie);
        x->sticky = true;
    }
    if (x->ask ? !bookings_start(x) : !transfer_start(x))
        judge(x, END_NOMEM);
}

/* A second attempt goes to another backend if there is one that takes it; so does what sticks to one that leaves. */
static void elsewhere(struct exchange *x, int64_t now)
{
    struct balancer_lease other;
    const struct backend *here = x->lease.data;
    if (here != x->failed && !atomic_load(&here->leaving))
        return;
    if (balancer_pick(balancer_of(x), STR_NONE, x, rand_u64(), now, &other) == BALANCER_PICKED && other.data != here) {
        balancer_release(balancer_of(x), &x->lease, BALANCER_IGNORED, now);
        x->lease = other; /* moved */
    } else if (other.serial) {
        balancer_release(balancer_of(x), &other, BALANCER_IGNORED, now);
    }
}

static void attempt(struct exchange *x)
{
    int64_t now = gateway_now();
    x->state = X_RUNNING;
    x->requests = 0;
    transfer_reset(x);
    if (!breaker_try(guard_of(x), now, &x->permit)) {
        judge(x, END_BREAKER);
        return;
    }
    /* whoever has failed is not stuck to */
    struct str cookie = str_c(x->cookie[0] && !x->failed ? x->cookie : NULL);
    switch (balancer_pick(balancer_of(x), cookie, x, rand_u64(), now, &x->lease)) {
    case BALANCER_PICKED:
        elsewhere(x, now);
        launch(x);
        break;
    case BALANCER_QUEUED:
        x->state = X_WAITING;
        break;
    case BALANCER_FULL:
        judge(x, END_FULL);
        break;
    default:
        judge(x, END_NONE);
        break;
    }
}

void exchange_start(struct exchange *x)
{
    struct loop *l = x->loop;
    int64_t now = gateway_now();
    x->prev = NULL;
    x->next = l->live;
    if (l->live)
        l->live->prev = x;
    l->live = x;
    l->n_live++;
    x->start_us = x->moved_us = now;
    retry_begin(&x->g->retries[x->row - gateway_rows], &x->call, true, now);
    x->calling = true;
    attempt(x);
}

static void poll_place(struct exchange *x, int64_t now)
{
    switch (balancer_poll(balancer_of(x), &x->lease, now)) {
    case BALANCER_PICKED:
        elsewhere(x, now);
        launch(x);
        break;
    case BALANCER_QUEUED:
        break;
    default:
        judge(x, END_FULL);
        break;
    }
}

void exchange_wake(struct exchange *x)
{
    if (x->state == X_WAITING) {
        poll_place(x, gateway_now());
    } else if (x->easy && (x->paused_up || x->paused_down)) {
        x->paused_up = x->paused_down = false;
        x->moved_us = gateway_now();
        curl_easy_pause(x->easy, CURLPAUSE_CONT);
    }
}

bool exchange_stream(struct exchange *x)
{
    if (x->maybe_done && x->status == 503)
        return false; /* see answer.c: it is not passed on */
    x->down = http_stream_new(on_stream, x);
    if (!x->down)
        return false;
    if (x->body_in.n > 0)
        (void)http_stream_give(x->down, x->body_in.p, x->body_in.n); /* it is empty, and larger */
    int64_t now = gateway_now();
    x->streaming = true;
    x->end = END_ANSWER;
    x->stale_us = -1;
    x->moved_us = now;
    breaker_done(guard_of(x), &x->permit, for_breaker(x, END_ANSWER), now);
    retry_end(&x->call);
    x->calling = false;
    announce(x);
    return true;
}

/* A stream is over, well or not. */
static void stream_over(struct exchange *x, bool whole)
{
    drop_easy(x);
    settle(x, whole ? END_ANSWER : END_LOST, gateway_now());
    if (whole)
        http_stream_end(x->down);
    over(x);
}

void exchange_done(struct exchange *x, CURLcode code)
{
    if (x->streaming) {
        stream_over(x, code == CURLE_OK);
        return;
    }
    judge(x, x->end == END_CANCELLED ? END_CANCELLED : transfer_end(x, code));
}

void exchange_rpc(struct exchange *x)
{
    judge(x, x->rpc_end);
}

void exchange_abort(struct exchange *x)
{
    if (x->state == X_OVER)
        return;
    if (x->ask && x->state == X_RUNNING) { /* it ends by itself, soon */
        bookings_cancel(x);
        return;
    }
    if (x->streaming) {
        stream_over(x, false);
        return;
    }
    judge(x, END_STOPPING);
}

void exchange_tick(struct exchange *x, int64_t now)
{
    bool late = x->up && !x->up_ended ? now - x->moved_us > x->row->deadline_us
                                      : (x->up ? now - x->moved_us > x->row->deadline_us
                                               : !x->streaming && retry_left_us(&x->call, now) == 0);
    switch (x->state) {
    case X_WAITING:
        if (late)
            judge(x, END_DEADLINE);
        else
            poll_place(x, now);
        break;
    case X_BACKOFF:
        if (now >= x->due_us)
            attempt(x);
        break;
    case X_RUNNING:
        if (x->ask)
            break; /* the call has the deadline */
        if (x->streaming && now - (x->full_us ? x->full_us : x->moved_us) > STALL_US)
            stream_over(x, false);
        else if (!x->streaming && late)
            judge(x, END_DEADLINE);
        else if (!x->streaming && x->head_done && !x->head_only && now - x->head_us > HELD_US)
            (void)exchange_stream(x);
        break;
    default:
        break;
    }
}
