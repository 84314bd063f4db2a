/*
 * Calls of booking.v1.BookingService by src/rpc's client, which the gateway uses as well: one at a time, for so long.
 *
 *     grpc_calls PORT SECONDS get BOOKING
 *     grpc_calls PORT SECONDS create EVENT
 *
 * Prints one line of JSON with the latencies in ms.
 */
#include <booking/v1/booking.pb-c.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/client.h"

enum { CALLS_MAX = 10000000 };

static struct rpc_client *client;
static const char *subject;
static bool creates;
static int64_t end_us;
static int64_t *took;
static size_t n_took, failed;
static unsigned long turn;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static bool over;

static void next(void);

static void done(void *user, const struct rpc_result *r)
{
    (void)user;
    if (r->code != RPC_OK) {
        fprintf(stderr, "grpc_calls: %d: %.*s\n", (int)r->code, (int)r->text.n, r->text.n ? r->text.p : "");
        failed++;
    }
    took[n_took++] = r->took_us;
    if (clock_mono(clock_system()) < end_us && n_took < CALLS_MAX && !failed) {
        next();
        return;
    }
    pthread_mutex_lock(&lock);
    over = true;
    pthread_cond_signal(&change);
    pthread_mutex_unlock(&lock);
}

static void next(void)
{
    char guest[32];
    Booking__V1__CreateBookingRequest create = BOOKING__V1__CREATE_BOOKING_REQUEST__INIT;
    Booking__V1__GetBookingRequest get = BOOKING__V1__GET_BOOKING_REQUEST__INIT;
    struct rpc_request q = {.service = "booking.v1.BookingService", .answer = &booking__v1__booking__descriptor};
    if (creates) {
        snprintf(guest, sizeof guest, "direct-%lu", turn++);
        create.user_id = guest;
        create.event_id = (char *)subject;
        create.ticket_count = 1;
        q.method = "CreateBooking";
        q.message = &create.base;
    } else {
        get.booking_id = (char *)subject;
        q.method = "GetBooking";
        q.message = &get.base;
    }
    rpc_client_call(client, &q, done, NULL);
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    char why[256];
    took = calloc(CALLS_MAX, sizeof *took);
    if (argc != 5 || !took) {
        fprintf(stderr, "usage: grpc_calls PORT SECONDS get|create ID\n");
        return 2;
    }
    creates = strcmp(argv[3], "create") == 0;
    subject = argv[4];
    client = rpc_client_new(
        &(struct rpc_client_config){
            .host = "127.0.0.1", .port = (uint16_t)atoi(argv[1]), .connections = 1, .clock = clock_system()},
        why);
    if (!client) {
        fprintf(stderr, "grpc_calls: %s\n", why);
        return 1;
    }
    end_us = clock_mono(clock_system()) + (int64_t)(atof(argv[2]) * 1e6);
    next();
    pthread_mutex_lock(&lock);
    while (!over)
        pthread_cond_wait(&change, &lock);
    pthread_mutex_unlock(&lock);
    rpc_client_free(client);
    qsort(took, n_took, sizeof *took, ascending);
    printf("{\"calls\":%zu,\"failed\":%zu,\"p50\":%.3f,\"p99\":%.3f}\n", n_took, failed,
           (double)took[n_took / 2] / 1000, (double)took[n_took * 99 / 100] / 1000);
    free(took);
    return failed != 0;
}
