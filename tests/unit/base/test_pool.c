#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"

enum { MANY = 5000 };

struct job {
    struct pool_job node;
    atomic_int *runs;
    sem_t *gate;
    int *order, *filled;
    int id;
};

static void count(struct pool_job *node)
{
    struct job *j = (struct job *)node;

    atomic_fetch_add(j->runs, 1);
}

static void count_and_free(struct pool_job *node)
{
    count(node);
    free(node);
}

static void wait_at_gate(struct pool_job *node)
{
    struct job *j = (struct job *)node;

    sem_wait(j->gate);
    atomic_fetch_add(j->runs, 1);
}

static void note_order(struct pool_job *node)
{
    struct job *j = (struct job *)node;

    j->order[(*j->filled)++] = j->id;
}

static void note_name(struct pool_job *node)
{
    pthread_getname_np(pthread_self(), (char *)((struct job *)node)->order, 16);
}

static void wait_for_busy(struct pool *p, unsigned busy)
{
    struct pool_stats s;

    do {
        sched_yield();
        pool_stats(p, &s);
    } while (s.busy != busy || s.depth);
}

static void runs_each_job_once(void **state)
{
    struct pool *p = pool_new("test", 4, MANY);
    atomic_int runs = 0;

    (void)state;
    assert_non_null(p);
    for (int i = 0; i < MANY; i++) {
        struct job *j = calloc(1, sizeof *j);
        assert_non_null(j);
        j->node.run = count_and_free;
        j->runs = &runs;
        assert_true(pool_submit(p, &j->node));
    }
    pool_free(p);
    assert_int_equal(runs, MANY);
}

static void keeps_the_order(void **state)
{
    struct pool *p = pool_new("test", 1, 100);
    static struct job jobs[100];
    int order[100], filled = 0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        jobs[i] = (struct job){.node.run = note_order, .order = order, .filled = &filled, .id = i};
        assert_true(pool_submit(p, &jobs[i].node));
    }
    pool_free(p);
    assert_int_equal(filled, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(order[i], i);
}

static void refuses_when_full_and_counts(void **state)
{
    struct pool *p = pool_new("bcrypt", 2, 3);
    struct job jobs[6];
    struct pool_stats s;
    atomic_int runs = 0;
    sem_t gate;

    (void)state;
    sem_init(&gate, 0, 0);
    for (int i = 0; i < 6; i++)
        jobs[i] = (struct job){.node.run = wait_at_gate, .runs = &runs, .gate = &gate};
    assert_true(pool_submit(p, &jobs[0].node));
    assert_true(pool_submit(p, &jobs[1].node));
    wait_for_busy(p, 2);
    for (int i = 2; i < 5; i++)
        assert_true(pool_submit(p, &jobs[i].node));
    assert_false(pool_submit(p, &jobs[5].node));
    pool_stats(p, &s);
    assert_string_equal(s.name, "bcrypt");
    assert_int_equal(s.threads, 2);
    assert_int_equal(s.busy, 2);
    assert_int_equal(s.depth, 3);
    assert_int_equal(s.capacity, 3);
    assert_int_equal(s.refused, 1);
    assert_int_equal(s.done, 0);
    for (int i = 0; i < 5; i++)
        sem_post(&gate);
    wait_for_busy(p, 0);
    assert_int_equal(runs, 5);
    /* a node that has run is free for another use */
    sem_post(&gate);
    assert_true(pool_submit(p, &jobs[0].node));
    wait_for_busy(p, 0);
    pool_stats(p, &s);
    assert_int_equal(s.done, 6);
    pool_free(p);
    sem_destroy(&gate);
    assert_int_equal(runs, 6);
}

static void names_its_threads(void **state)
{
    struct pool *p = pool_new("a-name-longer-than-linux-takes", 1, 1);
    char name[16] = {0};
    struct job j = {.node.run = note_name, .order = (int *)(void *)name};

    (void)state;
    assert_true(pool_submit(p, &j.node));
    pool_free(p);
    assert_string_equal(name, "a-name-longer-t");
}

static void odd_arguments(void **state)
{
    (void)state;
    assert_null(pool_new("none", 0, 1));
    pool_free(NULL);
    struct pool *p = pool_new("test", 1, 0);
    atomic_int runs = 0;
    struct job j = {.node.run = count, .runs = &runs};
    assert_false(pool_submit(p, &j.node));
    pool_free(p);
    assert_int_equal(runs, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_each_job_once),
        cmocka_unit_test(keeps_the_order),
        cmocka_unit_test(refuses_when_full_and_counts),
        cmocka_unit_test(names_its_threads),
        cmocka_unit_test(odd_arguments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
