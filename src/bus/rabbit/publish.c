#include "bus/rabbit/internal.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "codec/uuid.h"

/* One publish: how each of its messages stands. */
struct round {
    const struct bus_message *m;
    size_t n;
    bool *taken;
    bool returned[BUS_BATCH_MAX];
    uint64_t tags[BUS_BATCH_MAX]; /* delivery tag; 0: not sent */
    size_t open;                  /* sent and not answered */
    bool homeless;                /* one was returned */
};

static void id_text(const uint8_t id[16], char out[UUID_TEXT_LEN + 1])
{
    struct uuid u;
    memcpy(u.b, id, sizeof u.b);
    uuid_format(&u, out);
}

bool rabbit_send(amqp_connection_state_t c, amqp_channel_t channel, const char *exchange, struct str to,
                 const struct bus_message *m, char why[RABBIT_WHY])
{
    char id[UUID_TEXT_LEN + 1], key[UUID_TEXT_LEN + 1];
    id_text(m->id, id);
    id_text(m->key, key);
    amqp_table_entry_t headers[] = {{.key = amqp_cstring_bytes("x-key"),
                                     .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(key)}},
                                    {.key = amqp_cstring_bytes("x-created-us"),
                                     .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = m->created_us}}};
    amqp_basic_properties_t p = {._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                                           AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TYPE_FLAG |
                                           AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_APP_ID_FLAG,
                                 .content_type = amqp_cstring_bytes("application/json"),
                                 .delivery_mode = AMQP_DELIVERY_PERSISTENT,
                                 .message_id = amqp_cstring_bytes(id),
                                 .type = rabbit_bytes(m->type),
                                 .timestamp = (uint64_t)(m->created_us / 1000000),
                                 .headers = {.num_entries = 2, .entries = headers},
                                 .app_id = amqp_cstring_bytes("payflow")};
    int rc = amqp_basic_publish(c, channel, amqp_cstring_bytes(exchange), rabbit_bytes(to), 1, 0, &p,
                                rabbit_bytes(m->payload));
    if (rc != AMQP_STATUS_OK)
        snprintf(why, RABBIT_WHY, "publishing: %.200s", amqp_error_string2(rc));
    return rc == AMQP_STATUS_OK;
}

static void answered(struct round *w, uint64_t tag, bool multiple, bool yes)
{
    for (size_t i = 0; i < w->n; i++) {
        if (!w->tags[i] || (multiple ? w->tags[i] > tag : w->tags[i] != tag))
            continue;
        w->taken[i] = yes && !w->returned[i];
        w->tags[i] = 0;
        w->open--;
    }
}

/* Is there a queue of ours for messages of this type? */
static bool wanted(const struct rabbit *r, struct str type)
{
    for (unsigned q = 0; q < r->n_queues; q++)
        for (unsigned i = 0; i < r->queues[q].n_types; i++)
            if (str_is(type, r->queues[q].types[i]))
                return true;
    return false;
}

/* Unroutable: it comes before the confirm. */
static bool give_back(struct rabbit *r, struct round *w, char why[RABBIT_WHY])
{
    amqp_message_t m;
    if (!rabbit_ok(amqp_read_message(r->out, RABBIT_CHANNEL, &m, 0), "a returned message", why))
        return false;
    for (size_t i = 0; i < w->n; i++) {
        char id[UUID_TEXT_LEN + 1];
        id_text(w->m[i].id, id);
        if (str_is(rabbit_str(m.properties.message_id), id) && wanted(r, w->m[i].type))
            w->returned[i] = w->homeless = true;
    }
    amqp_destroy_message(&m);
    return true;
}

static bool take_answer(struct rabbit *r, struct round *w, int64_t deadline, char why[RABBIT_WHY])
{
    amqp_frame_t f;
    int64_t left = deadline - clock_mono(clock_system());
    if (left < 0)
        left = 0;
    struct timeval tv = {.tv_sec = left / 1000000, .tv_usec = left % 1000000};
    int rc = amqp_simple_wait_frame_noblock(r->out, &f, &tv);
    if (rc != AMQP_STATUS_OK) {
        snprintf(why, RABBIT_WHY, "waiting for confirms: %.200s", amqp_error_string2(rc));
        return false;
    }
    if (f.frame_type != AMQP_FRAME_METHOD)
        return true;
    switch (f.payload.method.id) {
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *a = f.payload.method.decoded;
        answered(w, a->delivery_tag, a->multiple, true);
        return true;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *a = f.payload.method.decoded;
        answered(w, a->delivery_tag, a->multiple, false);
        return true;
    }
    case AMQP_BASIC_RETURN_METHOD:
        return give_back(r, w, why);
    case AMQP_CHANNEL_CLOSE_METHOD:
    case AMQP_CONNECTION_CLOSE_METHOD:
        snprintf(why, RABBIT_WHY, "RabbitMQ closed the channel");
        return false;
    default:
        return true;
    }
}

static bool connected(struct rabbit *r, char why[RABBIT_WHY])
{
    if (r->out)
        return true;
    r->out = rabbit_connect(r, 0, why); /* no heartbeats: nobody would answer them between two publishes */
    if (!r->out)
        return false;
    r->out_tag = 0;
    amqp_confirm_select(r->out, RABBIT_CHANNEL);
    return rabbit_ok(amqp_get_rpc_reply(r->out), "asking for confirms", why);
}

/* Sends what was not taken, and waits. false: the connection is of no further use. */
static bool attempt(struct rabbit *r, struct round *w, char why[RABBIT_WHY])
{
    int64_t deadline = clock_mono(clock_system()) + (int64_t)r->publish_ms * 1000;
    w->open = 0;
    w->homeless = false;
    memset(w->tags, 0, sizeof w->tags);
    memset(w->returned, 0, sizeof w->returned);
    if (!connected(r, why))
        return false;
    for (size_t i = 0; i < w->n; i++) {
        if (w->taken[i])
            continue;
        w->tags[i] = ++r->out_tag;
        w->open++;
        if (!rabbit_send(r->out, RABBIT_CHANNEL, RABBIT_EXCHANGE, w->m[i].type, &w->m[i], why))
            return false;
    }
    while (w->open)
        if (!take_answer(r, w, deadline, why))
            return false;
    if (w->homeless)
        snprintf(why, RABBIT_WHY, "its queue was deleted");
    amqp_maybe_release_buffers(r->out);
    return !w->homeless;
}

enum pf_err rabbit_publish(struct bus *b, const struct bus_message *m, size_t n, bool *ret_taken)
{
    struct rabbit *r = rabbit_of(b);
    struct round w = {.m = m, .n = n, .taken = ret_taken};
    char why[RABBIT_WHY] = "";
    size_t taken = 0;
    memset(ret_taken, 0, n * sizeof *ret_taken);
    bool old = r->out != NULL, ok = attempt(r, &w, why);
    if (!ok) {
        rabbit_disconnect(r, r->out);
        r->out = NULL;
        if (old) { /* it may have been lost long ago */
            ok = attempt(r, &w, why);
            if (!ok) {
                rabbit_disconnect(r, r->out);
                r->out = NULL;
            }
        }
    }
    if (!ok)
        log_msg(LOG_WARN, "messages were not published", LOG_S("why", why));
    for (size_t i = 0; i < n; i++)
        taken += ret_taken[i];
    pthread_mutex_lock(&r->lock);
    r->lost_us = ok ? 0 : clock_mono(clock_system());
    r->stats.published += n;
    r->stats.taken += taken;
    r->stats.refused += n - taken;
    pthread_mutex_unlock(&r->lock);
    return ok || taken ? PFE_OK : PFE_UNAVAILABLE;
}
