/*
 * Server reflection: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md. v1alpha is v1 under its first
 * name, byte for byte, so one pair of messages does for both.
 */
#include <grpc/reflection/v1/reflection.pb-c.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/internal.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

enum { FILES_MAX = 64 /* that one needs; proto/embed.py refuses more */ };

/* The caller's and our own, one after the other. */
static const struct rpc_files *files_at(const struct rpc_server *s, size_t i)
{
    return i < s->config.n_files ? s->config.files[i] : i == s->config.n_files ? &rpc_files : NULL;
}

static int by_name(const void *key, const void *symbol)
{
    return strcmp(key, ((const struct rpc_symbol *)symbol)->name);
}

static const struct rpc_file *by_symbol(const struct rpc_server *s, const char *name, const struct rpc_files **ret)
{
    for (size_t i = 0; (*ret = files_at(s, i)); i++) {
        const struct rpc_symbol *y = bsearch(name, (*ret)->symbols, (*ret)->n_symbols, sizeof *y, by_name);
        if (y)
            return &(*ret)->files[y->file];
    }
    return NULL;
}

static const struct rpc_file *by_filename(const struct rpc_server *s, const char *name, const struct rpc_files **ret)
{
    for (size_t i = 0; (*ret = files_at(s, i)); i++)
        for (size_t k = 0; k < (*ret)->n_files; k++)
            if (strcmp((*ret)->files[k].name, name) == 0)
                return &(*ret)->files[k];
    return NULL;
}

static void push(struct call *c, const ProtobufCMessage *m, Response *r)
{
    r->original_request = (Request *)(uintptr_t)m;
    r->valid_host = r->original_request->host;
    answer_push(c, &r->base);
}

static void refuse(struct call *c, const ProtobufCMessage *m, enum rpc_code code, const char *text)
{
    Grpc__Reflection__V1__ErrorResponse e = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    Response r = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    e.error_code = (int32_t)code;
    e.error_message = (char *)(uintptr_t)text;
    r.message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    r.error_response = &e;
    push(c, m, &r);
}

static void send_file(struct call *c, const ProtobufCMessage *m, const struct rpc_files *all, const struct rpc_file *f)
{
    ProtobufCBinaryData bytes[FILES_MAX];
    Grpc__Reflection__V1__FileDescriptorResponse d = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    Response r = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    if (!f) {
        refuse(c, m, RPC_NOT_FOUND, "there is no such file or symbol");
        return;
    }
    for (unsigned i = 0; i < f->n_deps && i < FILES_MAX; i++) {
        const struct rpc_file *g = &all->files[f->deps[i]];
        bytes[d.n_file_descriptor_proto++] = (ProtobufCBinaryData){g->n, (uint8_t *)(uintptr_t)g->bytes};
    }
    d.file_descriptor_proto = bytes;
    r.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    r.file_descriptor_response = &d;
    push(c, m, &r);
}

/* The services are those that health knows, but for "". */
static void list(struct call *c, const ProtobufCMessage *m)
{
    const struct rpc_server *s = c->io->server;
    size_t n = s->health.n - 1;
    Grpc__Reflection__V1__ServiceResponse *services = arena_alloc(&c->pub.arena, n * sizeof *services);
    Grpc__Reflection__V1__ServiceResponse **list = arena_alloc(&c->pub.arena, n * sizeof(void *));
    Grpc__Reflection__V1__ListServiceResponse l = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Response r = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    if (!services || !list) {
        answer_finish(c, RPC_RESOURCE_EXHAUSTED, STR("out of memory"));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        grpc__reflection__v1__service_response__init(&services[i]);
        services[i].name = (char *)(uintptr_t)s->health.names[i + 1];
        list[i] = &services[i];
    }
    l.n_service = n;
    l.service = list;
    r.message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    r.list_services_response = &l;
    push(c, m, &r);
}

static void ask(struct call *c, const ProtobufCMessage *m)
{
    const struct rpc_server *s = c->io->server;
    const Request *q = (const Request *)m;
    const struct rpc_files *all;
    const struct rpc_file *f;
    switch (q->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        f = by_filename(s, q->file_by_filename, &all);
        send_file(c, m, all, f);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        f = by_symbol(s, q->file_containing_symbol, &all);
        send_file(c, m, all, f);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        list(c, m);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        refuse(c, m, RPC_NOT_FOUND, "there are no extensions in proto3");
        break;
    default:
        refuse(c, m, RPC_INVALID_ARGUMENT, "the request asks for nothing");
        break;
    }
}

static void half_closed(struct call *c)
{
    answer_finish(c, RPC_OK, STR_NONE);
}

void reflection_routes(struct route routes[REFLECTION_ROUTES])
{
#define ROW(version)                                                                                                   \
    {                                                                                                                  \
        "grpc.reflection." version ".ServerReflection", "ServerReflectionInfo",                                        \
            &grpc__reflection__v1__server_reflection_request__descriptor,                                              \
            &grpc__reflection__v1__server_reflection_response__descriptor, NULL, NULL                                  \
    }
    static const struct rpc_method rows[REFLECTION_ROUTES] = {ROW("v1"), ROW("v1alpha")};
#undef ROW
    for (unsigned i = 0; i < REFLECTION_ROUTES; i++) {
        routes[i].row = &rows[i];
        routes[i].message = ask;
        routes[i].half_closed = half_closed;
    }
}
