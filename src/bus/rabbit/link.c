#include "bus/rabbit/internal.h"

#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { FRAME_MAX = 131072 };

void rabbit_name(char out[RABBIT_NAME_MAX], const char *queue, const char *suffix)
{
    snprintf(out, RABBIT_NAME_MAX, RABBIT_EXCHANGE ".%.32s%s", queue, suffix);
}

bool rabbit_ok(amqp_rpc_reply_t reply, const char *what, char why[RABBIT_WHY])
{
    switch (reply.reply_type) {
    case AMQP_RESPONSE_NORMAL:
        return true;
    case AMQP_RESPONSE_LIBRARY_EXCEPTION:
        snprintf(why, RABBIT_WHY, "%s: %.200s", what, amqp_error_string2(reply.library_error));
        break;
    case AMQP_RESPONSE_SERVER_EXCEPTION: {
        amqp_bytes_t text = {0};
        if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD)
            text = ((amqp_connection_close_t *)reply.reply.decoded)->reply_text;
        else if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD)
            text = ((amqp_channel_close_t *)reply.reply.decoded)->reply_text;
        snprintf(why, RABBIT_WHY, "%s: %.*s", what, (int)(text.len < 200 ? text.len : 200), (const char *)text.bytes);
        break;
    }
    case AMQP_RESPONSE_NONE:
        snprintf(why, RABBIT_WHY, "%s: no answer", what);
        break;
    }
    return false;
}

static struct timeval span(unsigned ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
}

static amqp_table_entry_t entry_int(const char *key, int32_t v)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key), .value = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = v}};
}

static amqp_table_entry_t entry_str(const char *key, const char *v)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(v)}};
}

static bool exchange(amqp_connection_state_t c, const char *name, const char *type, char why[RABBIT_WHY])
{
    amqp_exchange_declare(c, RABBIT_CHANNEL, amqp_cstring_bytes(name), amqp_cstring_bytes(type), 0, 1, 0, 0,
                          amqp_empty_table);
    return rabbit_ok(amqp_get_rpc_reply(c), name, why);
}

static bool queue(amqp_connection_state_t c, const char *name, amqp_table_entry_t *args, int n, char why[RABBIT_WHY])
{
    amqp_queue_declare(c, RABBIT_CHANNEL, amqp_cstring_bytes(name), 0, 1, 0, 0,
                       (amqp_table_t){.num_entries = n, .entries = args});
    return rabbit_ok(amqp_get_rpc_reply(c), name, why);
}

static bool binding(amqp_connection_state_t c, const char *name, const char *exchange_name, const char *key,
                    char why[RABBIT_WHY])
{
    amqp_queue_bind(c, RABBIT_CHANNEL, amqp_cstring_bytes(name), amqp_cstring_bytes(exchange_name),
                    amqp_cstring_bytes(key), amqp_empty_table);
    return rabbit_ok(amqp_get_rpc_reply(c), name, why);
}

static bool declare_queue(struct rabbit *r, amqp_connection_state_t c, const struct rabbit_queue *q,
                          char why[RABBIT_WHY])
{
    char main[RABBIT_NAME_MAX], again[RABBIT_NAME_MAX], dead[RABBIT_NAME_MAX];
    rabbit_name(main, q->name, "");
    rabbit_name(again, q->name, ".again");
    rabbit_name(dead, q->name, ".dead");
    amqp_table_entry_t to_again[] = {entry_str("x-dead-letter-exchange", RABBIT_AGAIN),
                                     entry_str("x-dead-letter-routing-key", main)};
    amqp_table_entry_t and_back[] = {entry_int("x-message-ttl", (int32_t)r->again_ms),
                                     entry_str("x-dead-letter-exchange", ""),
                                     entry_str("x-dead-letter-routing-key", main)};
    if (!queue(c, main, to_again, 2, why) || !queue(c, again, and_back, 3, why) || !queue(c, dead, NULL, 0, why) ||
        !binding(c, again, RABBIT_AGAIN, main, why))
        return false;
    for (unsigned i = 0; i < q->n_types; i++)
        if (!binding(c, main, RABBIT_EXCHANGE, q->types[i], why))
            return false;
    return true;
}

static bool declare(struct rabbit *r, amqp_connection_state_t c, char why[RABBIT_WHY])
{
    if (!exchange(c, RABBIT_EXCHANGE, "topic", why) || !exchange(c, RABBIT_AGAIN, "direct", why))
        return false;
    for (unsigned i = 0; i < r->n_queues; i++)
        if (!declare_queue(r, c, &r->queues[i], why))
            return false;
    return true;
}

/* Debian's; the library has no way to say "the usual". */
static const char system_cas[] = "/etc/ssl/certs/ca-certificates.crt";

static bool open_socket(struct rabbit *r, amqp_connection_state_t c, char why[RABBIT_WHY])
{
    struct timeval limit = span(r->connect_ms);
    amqp_socket_t *s = r->where.ssl ? amqp_ssl_socket_new(c) : amqp_tcp_socket_new(c);
    int rc = s ? AMQP_STATUS_OK : AMQP_STATUS_NO_MEMORY;
    if (rc == AMQP_STATUS_OK && r->where.ssl) {
        rc = amqp_ssl_socket_set_cacert(s, r->cacert ? r->cacert : system_cas);
        amqp_ssl_socket_set_verify_peer(s, 1);
        amqp_ssl_socket_set_verify_hostname(s, 1);
    }
    if (rc == AMQP_STATUS_OK)
        rc = amqp_socket_open_noblock(s, r->where.host, r->where.port, &limit);
    if (rc != AMQP_STATUS_OK) {
        snprintf(why, RABBIT_WHY, "cannot connect to RabbitMQ at %.100s, port %d: %.100s", r->where.host, r->where.port,
                 amqp_error_string2(rc));
        return false;
    }
    int on = 1, ms = (int)r->publish_ms, fd = amqp_get_sockfd(c); /* no call waits longer on a peer that hangs */
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0 &&
           setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms) == 0;
}

static bool login(struct rabbit *r, amqp_connection_state_t c, unsigned heartbeat_s, char why[RABBIT_WHY])
{
    const char *vhost = *r->where.vhost ? r->where.vhost : "/"; /* amqp://host/ is what people write for it */
    /* That a consumer's queue was deleted is told to clients only that say that they listen. */
    amqp_table_entry_t cancel = {.key = amqp_cstring_bytes("consumer_cancel_notify"),
                                 .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
    amqp_table_entry_t can = {
        .key = amqp_cstring_bytes("capabilities"),
        .value = {.kind = AMQP_FIELD_KIND_TABLE, .value.table = {.num_entries = 1, .entries = &cancel}}};
    amqp_table_t client = {.num_entries = 1, .entries = &can};
    return rabbit_ok(amqp_login_with_properties(c, vhost, 0, FRAME_MAX, (int)heartbeat_s, &client,
                                                AMQP_SASL_METHOD_PLAIN, r->where.user, r->where.password),
                     "RabbitMQ refuses the user", why);
}

amqp_connection_state_t rabbit_connect(struct rabbit *r, unsigned heartbeat_s, char why[RABBIT_WHY])
{
    amqp_connection_state_t c = amqp_new_connection();
    struct timeval limit = span(r->connect_ms);
    snprintf(why, RABBIT_WHY, "out of memory");
    if (!c)
        return NULL;
    bool ok = amqp_set_handshake_timeout(c, &limit) == AMQP_STATUS_OK &&
              amqp_set_rpc_timeout(c, &limit) == AMQP_STATUS_OK && open_socket(r, c, why) &&
              login(r, c, heartbeat_s, why);
    if (ok) {
        amqp_channel_open(c, RABBIT_CHANNEL);
        ok = rabbit_ok(amqp_get_rpc_reply(c), "opening a channel", why) && declare(r, c, why);
    }
    if (!ok) {
        amqp_destroy_connection(c);
        return NULL;
    }
    pthread_mutex_lock(&r->lock);
    r->stats.connects++;
    r->links++;
    pthread_mutex_unlock(&r->lock);
    return c;
}

void rabbit_disconnect(struct rabbit *r, amqp_connection_state_t c)
{
    if (!c)
        return;
    amqp_destroy_connection(c); /* without a goodbye: it may be why we are here that nobody answers */
    pthread_mutex_lock(&r->lock);
    r->links--;
    pthread_mutex_unlock(&r->lock);
}
