#include "bus/rabbit/internal.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "codec/uuid.h"

enum { BACKOFF_FIRST_MS = 100, BACKOFF_MAX_MS = 5000, LOOK_MS = 1000, NEVER = -1 };

struct delivery {
    struct bus_delivery base;
    struct rabbit_consumer *c;
    struct delivery *next; /* in the list of the settled */
    uint64_t connection;   /* which one it came by */
    uint64_t tag;
    enum bus_verdict verdict;
    struct bus_message m;
    char text[]; /* of its strings */
};

struct grave {    /* a message on its way to the queue of the dead */
    uint64_t tag; /* of the publish; 0: free */
    uint64_t delivery;
};

struct rabbit_consumer {
    struct rabbit *r;
    const struct bus_subscription *s;
    pthread_t thread;
    int wake; /* eventfd */
    atomic_bool stop;
    pthread_mutex_t calling; /* held while the subscriber is called, and over */
    bool quiet;
    pthread_mutex_t lock; /* over */
    struct delivery *settled;

    /* the thread's own */
    amqp_connection_state_t conn;
    uint64_t connection; /* counts them */
    uint64_t grave_tag;
    struct grave graves[BUS_BATCH_MAX];
    char why[RABBIT_WHY];
};

static void count(struct rabbit *r, uint64_t *which, int64_t unsettled)
{
    pthread_mutex_lock(&r->lock);
    (*which)++;
    r->stats.unsettled += (uint64_t)unsettled;
    pthread_mutex_unlock(&r->lock);
}

static void wake(struct rabbit_consumer *c)
{
    uint64_t one = 1;
    (void)!write(c->wake, &one, sizeof one); /* full means that it is awake */
}

void rabbit_settle(struct bus_delivery *base, enum bus_verdict v)
{
    struct delivery *d = (struct delivery *)base;
    struct rabbit_consumer *c = d->c;
    d->verdict = v;
    pthread_mutex_lock(&c->lock);
    bool first = !c->settled;
    d->next = c->settled;
    c->settled = d;
    pthread_mutex_unlock(&c->lock);
    if (first)
        wake(c);
}

/* ---- verdicts to the broker ---- */

static bool sent(struct rabbit_consumer *c, int rc, const char *what)
{
    if (rc != AMQP_STATUS_OK)
        snprintf(c->why, sizeof c->why, "%s: %.200s", what, amqp_error_string2(rc));
    return rc == AMQP_STATUS_OK;
}

/* Acknowledged once the broker has it there. */
static bool bury(struct rabbit_consumer *c, const struct delivery *d)
{
    char name[RABBIT_NAME_MAX];
    char id[UUID_TEXT_LEN + 1];
    struct uuid u;
    memcpy(u.b, d->m.id, sizeof u.b);
    uuid_format(&u, id);
    log_msg(LOG_ERROR, "a message is dead", LOG_S("queue", c->s->queue), LOG_S("id", id), LOG_STR("type", d->m.type));
    rabbit_name(name, c->s->queue, ".dead");
    for (size_t i = 0; i < BUS_BATCH_MAX; i++)
        if (!c->graves[i].tag) {
            c->graves[i] = (struct grave){.tag = ++c->grave_tag, .delivery = d->tag};
            return rabbit_send(c->conn, RABBIT_GRAVES, "", str_c(name), &d->m, c->why);
        }
    return false; /* there are no more than deliveries */
}

static bool tell(struct rabbit_consumer *c, const struct delivery *d)
{
    struct rabbit *r = c->r;
    enum bus_verdict v = d->verdict == BUS_AGAIN && d->m.tries + 1 >= BUS_TRIES_MAX ? BUS_DEAD : d->verdict;
    bool here = c->conn && d->connection == c->connection;
    switch (v) {
    case BUS_DONE:
        count(r, &r->stats.done, -1);
        return !here || sent(c, amqp_basic_ack(c->conn, RABBIT_CHANNEL, d->tag, 0), "acknowledging");
    case BUS_AGAIN:
        count(r, &r->stats.again, -1);
        return !here || sent(c, amqp_basic_nack(c->conn, RABBIT_CHANNEL, d->tag, 0, 0), "rejecting");
    case BUS_DEAD:
        count(r, &r->stats.dead, -1);
        return !here || bury(c, d);
    }
    return false;
}

static bool tell_all(struct rabbit_consumer *c)
{
    bool ok = true;
    pthread_mutex_lock(&c->lock);
    struct delivery *d = c->settled;
    c->settled = NULL;
    pthread_mutex_unlock(&c->lock);
    while (d) {
        struct delivery *next = d->next;
        ok = tell(c, d) && ok;
        free(d);
        d = next;
    }
    return ok;
}

/* ---- deliveries ---- */

static const amqp_field_value_t *header(const amqp_table_t *t, const char *name)
{
    for (int i = 0; i < t->num_entries; i++)
        if (str_is(rabbit_str(t->entries[i].key), name))
            return &t->entries[i].value;
    return NULL;
}

static bool as_i64(const amqp_field_value_t *v, int64_t *ret)
{
    if (!v || (v->kind != AMQP_FIELD_KIND_I64 && v->kind != AMQP_FIELD_KIND_I32))
        return false;
    *ret = v->kind == AMQP_FIELD_KIND_I64 ? v->value.i64 : v->value.i32;
    return true;
}

/* How often this queue has rejected it, by the broker's own count. */
static unsigned tries(const struct rabbit_consumer *c, const amqp_table_t *headers)
{
    const amqp_field_value_t *deaths = header(headers, "x-death");
    char name[RABBIT_NAME_MAX];
    int64_t n = 0;
    rabbit_name(name, c->s->queue, "");
    for (int i = 0; deaths && deaths->kind == AMQP_FIELD_KIND_ARRAY && i < deaths->value.array.num_entries; i++) {
        const amqp_field_value_t *one = &deaths->value.array.entries[i];
        if (one->kind != AMQP_FIELD_KIND_TABLE)
            continue;
        const amqp_field_value_t *queue = header(&one->value.table, "queue");
        const amqp_field_value_t *reason = header(&one->value.table, "reason");
        if (queue && queue->kind == AMQP_FIELD_KIND_UTF8 && str_is(rabbit_str(queue->value.bytes), name) && reason &&
            reason->kind == AMQP_FIELD_KIND_UTF8 && str_is(rabbit_str(reason->value.bytes), "rejected") &&
            as_i64(header(&one->value.table, "count"), &n))
            return n < 0 ? 0 : n > BUS_TRIES_MAX ? BUS_TRIES_MAX : (unsigned)n;
    }
    return 0;
}

/* false: it is not one of ours. */
static bool read_properties(const struct rabbit_consumer *c, const amqp_basic_properties_t *p, struct bus_message *m)
{
    const amqp_field_value_t *key = header(&p->headers, "x-key");
    struct uuid id, about;
    if (!(p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG) || !(p->_flags & AMQP_BASIC_TYPE_FLAG) ||
        !(p->_flags & AMQP_BASIC_HEADERS_FLAG) || !uuid_parse(rabbit_str(p->message_id), &id) || !key ||
        key->kind != AMQP_FIELD_KIND_UTF8 || !uuid_parse(rabbit_str(key->value.bytes), &about) ||
        p->type.len > BUS_TYPE_MAX || !as_i64(header(&p->headers, "x-created-us"), &m->created_us))
        return false;
    memcpy(m->id, id.b, sizeof m->id);
    memcpy(m->key, about.b, sizeof m->key);
    m->type = rabbit_str(p->type);
    m->tries = tries(c, &p->headers);
    return true;
}

static bool receive(struct rabbit_consumer *c, uint64_t tag)
{
    amqp_message_t msg;
    if (!rabbit_ok(amqp_read_message(c->conn, RABBIT_CHANNEL, &msg, 0), "reading a message", c->why))
        return false;
    struct bus_message m = {0};
    bool ours = read_properties(c, &msg.properties, &m);
    struct delivery *d = malloc(sizeof *d + m.type.n + msg.body.len);
    if (!d) {
        amqp_destroy_message(&msg);
        return sent(c, amqp_basic_nack(c->conn, RABBIT_CHANNEL, tag, 0, 0), "rejecting");
    }
    *d = (struct delivery){.base.bus = &c->r->base, .c = c, .connection = c->connection, .tag = tag, .m = m};
    memcpy(d->text, m.type.p ? m.type.p : "", m.type.n);
    memcpy(d->text + m.type.n, msg.body.bytes ? msg.body.bytes : "", msg.body.len);
    d->m.type.p = d->text;
    d->m.payload = (struct str){d->text + m.type.n, msg.body.len};
    amqp_destroy_message(&msg);
    pthread_mutex_lock(&c->calling);
    if (c->quiet) { /* it stays unacknowledged, and is another's once the connection ends */
        free(d);
    } else {
        count(c->r, &c->r->stats.delivered, 1);
        if (ours && d->m.payload.n <= BUS_PAYLOAD_MAX)
            c->s->fn(c->s->ctx, &d->base, &d->m);
        else
            rabbit_settle(&d->base, BUS_DEAD);
    }
    pthread_mutex_unlock(&c->calling);
    return true;
}

static bool buried(struct rabbit_consumer *c, uint64_t tag, bool multiple)
{
    bool ok = true;
    for (size_t i = 0; i < BUS_BATCH_MAX; i++) {
        struct grave *g = &c->graves[i];
        if (!g->tag || (multiple ? g->tag > tag : g->tag != tag))
            continue;
        ok = sent(c, amqp_basic_ack(c->conn, RABBIT_CHANNEL, g->delivery, 0), "acknowledging") && ok;
        g->tag = 0;
    }
    return ok;
}

static bool take_frame(struct rabbit_consumer *c, const amqp_frame_t *f)
{
    if (f->frame_type != AMQP_FRAME_METHOD)
        return true;
    switch (f->payload.method.id) {
    case AMQP_BASIC_DELIVER_METHOD:
        return receive(c, ((amqp_basic_deliver_t *)f->payload.method.decoded)->delivery_tag);
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *a = f->payload.method.decoded;
        return f->channel != RABBIT_GRAVES || buried(c, a->delivery_tag, a->multiple);
    }
    case AMQP_BASIC_NACK_METHOD: /* the dead message was not taken: begin anew */
    case AMQP_BASIC_RETURN_METHOD:
    case AMQP_BASIC_CANCEL_METHOD:
    case AMQP_CHANNEL_CLOSE_METHOD:
    case AMQP_CONNECTION_CLOSE_METHOD:
        snprintf(c->why, sizeof c->why, "RabbitMQ ended the subscription");
        return false;
    default:
        return true;
    }
}

/* Everything that is there; sends heartbeats, too. */
static bool take_frames(struct rabbit_consumer *c)
{
    for (;;) {
        amqp_frame_t f;
        struct timeval now = {0};
        int rc = amqp_simple_wait_frame_noblock(c->conn, &f, &now);
        if (rc == AMQP_STATUS_TIMEOUT)
            return true;
        if (!sent(c, rc, "reading") || !take_frame(c, &f))
            return false;
        amqp_maybe_release_buffers(c->conn);
    }
}

/* ---- the thread ---- */

static bool connect_now(struct rabbit_consumer *c)
{
    char name[RABBIT_NAME_MAX];
    c->conn = rabbit_connect(c->r, c->r->heartbeat_s, c->why);
    if (!c->conn)
        return false;
    c->connection++;
    c->grave_tag = 0;
    memset(c->graves, 0, sizeof c->graves);
    rabbit_name(name, c->s->queue, "");
    amqp_channel_open(c->conn, RABBIT_GRAVES);
    if (!rabbit_ok(amqp_get_rpc_reply(c->conn), "opening a channel", c->why))
        return false;
    amqp_confirm_select(c->conn, RABBIT_GRAVES);
    if (!rabbit_ok(amqp_get_rpc_reply(c->conn), "asking for confirms", c->why))
        return false;
    amqp_basic_qos(c->conn, RABBIT_CHANNEL, 0, (uint16_t)c->s->prefetch, 0);
    if (!rabbit_ok(amqp_get_rpc_reply(c->conn), "setting the prefetch", c->why))
        return false;
    amqp_basic_consume(c->conn, RABBIT_CHANNEL, amqp_cstring_bytes(name), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    return rabbit_ok(amqp_get_rpc_reply(c->conn), "subscribing", c->why);
}

static void disconnect(struct rabbit_consumer *c)
{
    rabbit_disconnect(c->r, c->conn);
    c->conn = NULL;
}

static void rest(struct rabbit_consumer *c, int ms)
{
    struct pollfd p[2] = {{.fd = c->wake, .events = POLLIN},
                          {.fd = c->conn ? amqp_get_sockfd(c->conn) : NEVER, .events = POLLIN}};
    uint64_t n;
    if (poll(p, 2, ms) > 0 && p[0].revents)
        (void)!read(c->wake, &n, sizeof n); /* level: what was settled is looked at anyway */
}

static bool is_quiet(struct rabbit_consumer *c)
{
    pthread_mutex_lock(&c->calling);
    bool quiet = c->quiet;
    pthread_mutex_unlock(&c->calling);
    return quiet;
}

static void *run(void *arg)
{
    struct rabbit_consumer *c = arg;
    int backoff = BACKOFF_FIRST_MS;
    pthread_setname_np(pthread_self(), "bus");
    while (!atomic_load(&c->stop)) {
        bool ok = tell_all(c);
        if (!c->conn && !is_quiet(c))
            ok = connect_now(c);
        else if (c->conn)
            ok = ok && take_frames(c);
        if (!ok) {
            log_msg(LOG_WARN, "the subscription is interrupted", LOG_S("queue", c->s->queue), LOG_S("why", c->why));
            disconnect(c);
            rest(c, backoff);
            backoff = backoff * 2 < BACKOFF_MAX_MS ? backoff * 2 : BACKOFF_MAX_MS;
            continue;
        }
        if (c->conn)
            backoff = BACKOFF_FIRST_MS;
        rest(c, LOOK_MS);
    }
    (void)!tell_all(c);
    if (c->conn) /* a goodbye, so that the acknowledgements arrive before the end */
        (void)!rabbit_ok(amqp_connection_close(c->conn, AMQP_REPLY_SUCCESS), "closing", c->why);
    disconnect(c);
    return NULL;
}

struct rabbit_consumer *rabbit_consumer_start(struct rabbit *r, const struct bus_subscription *s)
{
    struct rabbit_consumer *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->r = r;
    c->s = s;
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool calling = c->wake >= 0 && pthread_mutex_init(&c->calling, NULL) == 0;
    bool lock = calling && pthread_mutex_init(&c->lock, NULL) == 0;
    if (lock && pthread_create(&c->thread, NULL, run, c) == 0)
        return c;
    if (lock)
        pthread_mutex_destroy(&c->lock);
    if (calling)
        pthread_mutex_destroy(&c->calling);
    if (c->wake >= 0)
        close(c->wake);
    free(c);
    return NULL;
}

void rabbit_consumer_quiesce(struct rabbit_consumer *c)
{
    pthread_mutex_lock(&c->calling);
    c->quiet = true;
    pthread_mutex_unlock(&c->calling);
    wake(c);
}

void rabbit_consumer_stop(struct rabbit_consumer *c)
{
    atomic_store(&c->stop, true);
    wake(c);
    pthread_join(c->thread, NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->calling);
    close(c->wake);
    free(c);
}
