/*
 * schedules: movements at a time to come. A due run is a journal entry whose idempotency key is schedule and due time.
 * Everything here is blocking.
 */
#ifndef APP_SCHEDULES_H
#define APP_SCHEDULES_H

#include "app/app.h"

typedef void (*app_schedule_render)(void *ctx, const struct store_schedule *d, struct app_idem *idem);

/* in: kind, to_user, amount, currency, description, recurrence, anchor_us, end_us, max_runs. Strings borrowed. */
enum pf_err app_schedule_create(struct app *a, const struct caller *c, const struct store_schedule *in,
                                struct app_idem *idem, app_schedule_render render, void *ctx,
                                struct store_schedule *ret, struct problem *p) MUSTCHECK;
/* Checks rights: 404 for anybody but the owner and admins. ref: number or UUID. */
enum pf_err app_schedule_get(struct app *a, const struct principal *who, struct arena *arena, struct str ref,
                             struct store_schedule *ret) MUSTCHECK;
enum pf_err app_schedule_cancel(struct app *a, const struct caller *c, struct arena *arena, struct str ref,
                                struct store_schedule *ret, struct problem *p) MUSTCHECK;

/* The owner's, newest first. */
enum pf_err app_schedule_page(struct app *a, struct arena *arena, int64_t owner, int64_t before_id, int64_t offset,
                              unsigned limit, struct store_schedule *out, unsigned *ret_n) MUSTCHECK;
/* What became of its due times, latest first. */
enum pf_err app_schedule_runs(struct app *a, struct arena *arena, int64_t schedule, unsigned limit,
                              struct store_run *out, unsigned *ret_n) MUSTCHECK;

/* For the scheduler thread: runs what is due; returns when to look again (wall µs; 0: nothing planned). */
int64_t app_schedules_run_due(struct app *a);
/* For the same thread: releases holds that have expired. Returns how many. */
unsigned app_holds_release_due(struct app *a);

#endif
