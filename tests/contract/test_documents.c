/* The documents port: the same cases on every engine, and random documents and queries beside the memory engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "codec/uuid.h"
#include "contract/engines.h"
#include "documents/memory/memory.h"
#include "documents/mongo/mongo.h"
#include "port/documents.h"
#include "support/mongo_server.h"

static struct documents *docs;
static struct arena arena;
static struct daemon mongo;

static struct document sample(uint8_t number, const char *body)
{
    struct document d = {.created_us = 1000 + number, .date_us = 1000000 * (int64_t)number, .body = str_c(body)};
    d.id[0] = 1; /* the bytes are compared from the first on, as unsigned */
    d.id[1] = number;
    d.search = STR("tarkan konseri\nharbiye");
    return d;
}

static void assert_document(const struct document *a, const struct document *b)
{
    assert_memory_equal(a->id, b->id, 16);
    assert_int_equal(a->created_us, b->created_us);
    assert_int_equal(a->date_us, b->date_us);
    assert_true(str_eq(a->search, b->search));
    assert_int_equal(a->body.n, b->body.n);
    assert_memory_equal(a->body.p, b->body.p, a->body.n);
}

static void insert(const struct document *d)
{
    assert_int_equal(documents_insert(docs, d), PFE_OK);
}

static void bodies_come_back_byte_for_byte(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{}",
        "{\"title\":\"Tarkan "
        "Konseri\",\"location\":\"Harbiye\",\"date\":\"2026-07-20T21:00:00Z\",\"total_tickets\":100}",
        " {\t\"z\" : 1 ,\n\"a\": 1.50, \"b\" :1e2, \"c\":-0, \"d\":12345678901234567890123 } ",
        "{\"$set\":{\"$date\":1,\"$oid\":\"x\"},\"a.b\":{\"\":[]},\"_id\":7,\"__proto__\":null}",
        "{\"'; DROP TABLE event_document; --\":\"\\\\ \\\" \\u00e9 \\ud83c\\udfab \\/ \\b\"}",
        "{\"deep\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{\"x\":[]}]]]]]]]]]]]]]]]]]]]]]]]]]]]]],\"last\":true}",
        "{\"g\xc3\xb6sterim\":\"\xc4\xb0stanbul \xf0\x9f\x8e\xab\",\"%\":\"%s%n\",\"n\":9.999999999999999999999e99}",
    };
    for (uint8_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct document d = sample((uint8_t)(i + 1), bodies[i]), back;
        insert(&d);
        assert_int_equal(documents_get(docs, &arena, d.id, &back), PFE_OK);
        assert_document(&back, &d);
    }
}

static void a_large_body_comes_back(void **state)
{
    (void)state;
    static char body[DOCUMENT_BODY_MAX + 1];
    memset(body, 'x', DOCUMENT_BODY_MAX);
    memcpy(body, "{\"a\":\"", 6);
    memcpy(body + DOCUMENT_BODY_MAX - 2, "\"}", 2);
    struct document d = sample(1, body), back;
    insert(&d);
    assert_int_equal(documents_get(docs, &arena, d.id, &back), PFE_OK);
    assert_document(&back, &d);
}

static void an_id_is_taken_once(void **state)
{
    (void)state;
    struct document a = sample(1, "{\"a\":1}"), b = sample(1, "{\"a\":2}"), back = {0};
    insert(&a);
    assert_int_equal(documents_insert(docs, &b), PFE_WRONG_STATE);
    assert_int_equal(documents_get(docs, &arena, a.id, &back), PFE_OK);
    assert_document(&back, &a);
}

static void what_is_not_there_leaves_the_output_alone(void **state)
{
    (void)state;
    struct document back = sample(9, "{}"), before = back;
    assert_int_equal(documents_get(docs, &arena, sample(1, "").id, &back), PFE_NOT_FOUND);
    assert_memory_equal(&back, &before, sizeof back);
    assert_int_equal(documents_remove(docs, before.id), PFE_OK);
}

static void removing_makes_room(void **state)
{
    (void)state;
    struct document a = sample(1, "{\"a\":1}"), b = sample(1, "{\"a\":2}"), back;
    insert(&a);
    assert_int_equal(documents_remove(docs, a.id), PFE_OK);
    assert_int_equal(documents_get(docs, &arena, a.id, &back), PFE_NOT_FOUND);
    insert(&b);
    assert_int_equal(documents_get(docs, &arena, a.id, &back), PFE_OK);
    assert_document(&back, &b);
}

/* The second bytes of the ids that a query gives, as text. */
static const char *list(struct documents *d, const struct documents_query *q)
{
    static char text[2][8 * DOCUMENTS_PAGE_MAX];
    static int turn;
    static struct document out[DOCUMENTS_PAGE_MAX];
    unsigned n = 77;
    turn = !turn;
    assert_int_equal(documents_list(d, &arena, q, out, &n), PFE_OK);
    assert_true(n <= q->limit);
    size_t at = 0;
    text[turn][0] = '\0';
    for (unsigned i = 0; i < n; i++)
        at += (size_t)snprintf(text[turn] + at, sizeof text[turn] - at, " %d", out[i].id[1]);
    return text[turn];
}

static void lists_are_newest_first_and_have_pages(void **state)
{
    (void)state;
    for (uint8_t i = 1; i <= 9; i++) {
        struct document d = sample((uint8_t)(i * 28), "{}"); /* 0x1c .. 0xfc */
        insert(&d);
    }
    struct document four = sample(4 * 28, "{}");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 20}), " 252 224 196 168 140 112 84 56 28");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 3}), " 252 224 196");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 3, .offset = 3}), " 168 140 112");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 2, .before = four.id}), " 84 56");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 2, .offset = 2, .before = four.id}), " 28");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 5, .offset = 99}), "");
}

static void dates_bound_a_list(void **state)
{
    (void)state;
    for (uint8_t i = 1; i <= 4; i++) {
        struct document d = sample(i, "{}");
        insert(&d);
    }
    assert_string_equal(list(docs, &(struct documents_query){.limit = 9, .from_us = 2000000}), " 4 3 2");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 9, .to_us = 2000000}), " 1");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 9, .from_us = 2000000, .to_us = 3000001}),
                        " 3 2");
}

static void text_is_found_as_it_is(void **state)
{
    (void)state;
    static const char *const texts[] = {"50% off (a+b)*[c]^$|\\d.{1}", "fifty a_b", "50x off \xc5\x9f"};
    for (uint8_t i = 0; i < 3; i++) {
        struct document d = sample((uint8_t)(i + 1), "{}");
        d.search = str_c(texts[i]);
        insert(&d);
    }
    static const struct {
        const char *text, *found;
    } cases[] = {
        {"", " 3 2 1"},     {"50% off", " 1"}, {"50. off", ""}, {"(a+b)*[c]^$|\\d.{1}", " 1"},       {"a_b", " 2"},
        {"\xc5\x9f", " 3"}, {"off", " 3 1"},   {"OFF", ""},     {"50% off (a+b)*[c]^$|\\d.{1} ", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(list(docs, &(struct documents_query){.limit = 9, .text = str_c(cases[i].text)}),
                            cases[i].found);
}

static const char *with(const char *name, const char *text, bool is_number, int64_t number)
{
    struct documents_field f = {str_c(name), str_c(text), is_number, number};
    return list(docs, &(struct documents_query){.limit = 9, .fields = &f, .n_fields = 1});
}

static void members_are_asked_for(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{\"genre\":\"rock\",\"age\":18,\"free\":true}",
                                         "{\"genre\":\"Rock\",\"age\":\"18\",\"free\":\"true\"}",
                                         "{\"genre\":[\"rock\"],\"age\":[18],\"free\":[true]}",
                                         "{\"genre\":{\"x\":\"rock\"},\"age\":18.5,\"free\":false}",
                                         "{\"x\":{\"genre\":\"rock\",\"age\":18},\"genre\":null,\"free\":1}"};
    for (uint8_t i = 0; i < 5; i++) {
        struct document d = sample((uint8_t)(i + 1), bodies[i]);
        insert(&d);
    }
    assert_string_equal(with("genre", "rock", false, 0), " 1");
    assert_string_equal(with("genre", "", false, 0), "");
    assert_string_equal(with("age", "18", true, 18), " 2 1");
    assert_string_equal(with("age", "18.5", false, 0), "");
    assert_string_equal(with("free", "true", false, 0), " 2 1");
    assert_string_equal(with("free", "false", false, 0), " 4");
    assert_string_equal(with("free", "1", true, 1), " 5");
    assert_string_equal(with("absent", "null", false, 0), "");
    struct documents_field two[] = {{STR("genre"), STR("rock"), false, 0}, {STR("age"), STR("18"), true, 18}};
    assert_string_equal(list(docs, &(struct documents_query){.limit = 9, .fields = two, .n_fields = 2}), " 1");
    two[1].number++;
    two[1].text = STR("19");
    assert_string_equal(list(docs, &(struct documents_query){.limit = 9, .fields = two, .n_fields = 2}), "");
}

/* ---- at random ---- */

static uint64_t prng;
static unsigned below(unsigned n)
{
    prng = prng * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)((prng >> 33) % n);
}

static const char *const names[] = {"a", "b", "c-d", "e_f"};
static const char *const values[] = {"\"x\"", "\"1\"", "1",    "true",    "\"true\"", "false", "null",
                                     "[1]",   "{}",    "\"\"", "\"\\t\"", "-7",       "2.5",   "\"\xc3\xa9\""};
static const struct documents_field asked[] = {
    {.text = STR("x")},     {.text = STR("1"), .is_number = true, .number = 1},
    {.text = STR("true")},  {.text = STR("-7"), .is_number = true, .number = -7},
    {.text = STR("false")}, {.text = STR("")},
    {.text = STR("\t")},    {.text = STR("\xc3\xa9")},
};

static void random_queries_agree_with_memory(void **state)
{
    (void)state;
    struct documents *model = documents_memory_open();
    assert_non_null(model);
    prng = (uint64_t)time(NULL);
    const char *given = getenv("SEED");
    if (given)
        prng = strtoull(given, NULL, 10);
    print_message("SEED=%llu\n", (unsigned long long)prng);
    for (uint8_t i = 1; i <= 60; i++) {
        char body[256], search[8];
        size_t n = (size_t)snprintf(body, sizeof body, "{\"id\":%d", i);
        for (unsigned k = 0; k < 4; k++)
            if (below(2))
                n += (size_t)snprintf(body + n, sizeof body - n, ",\"%s\":%s", names[k],
                                      values[below(sizeof values / sizeof values[0])]);
        snprintf(body + n, sizeof body - n, "}");
        struct document d = sample((uint8_t)(i * 3), body);
        d.date_us = below(10);
        for (unsigned k = 0; k < 7; k++)
            search[k] = "ab.%"[below(4)];
        d.search = (struct str){search, below(8)};
        insert(&d);
        assert_int_equal(documents_insert(model, &d), PFE_OK);
        if (below(8) == 0) {
            assert_int_equal(documents_remove(docs, d.id), PFE_OK);
            assert_int_equal(documents_remove(model, d.id), PFE_OK);
        }
    }
    for (unsigned round = 0; round < 300; round++) {
        struct documents_field fields[DOCUMENTS_FIELDS_MAX];
        uint8_t before[16] = {1, (uint8_t)below(200)};
        char text[3];
        struct documents_query q = {.limit = 1 + below(30), .offset = below(3), .fields = fields};
        for (unsigned k = 0; k < 3; k++)
            text[k] = "ab.%"[below(4)];
        q.text = (struct str){text, below(4)};
        q.n_fields = below(3) ? below(2) : below(DOCUMENTS_FIELDS_MAX + 1);
        for (unsigned k = 0; k < q.n_fields; k++) {
            fields[k] = asked[below(sizeof asked / sizeof asked[0])];
            fields[k].name = str_c(names[below(4)]);
        }
        if (below(3) == 0)
            q.before = before;
        if (below(3) == 0)
            q.from_us = below(10);
        if (below(3) == 0)
            q.to_us = below(10);
        const char *theirs = list(model, &q);
        assert_string_equal(list(docs, &q), theirs);
        arena_reset(&arena);
    }
    documents_close(model);
}

/* ---- each engine ---- */

struct place {
    const char *name;
    const struct engine *engine; /* a store's own documents */
    struct engine_box box;
};

static int open_place(void **state)
{
    struct place *p = *state;
    arena_init(&arena, NULL, 0, 64 << 20);
    if (p->engine) {
        if (!engine_open(p->engine, &p->box))
            return -1;
        docs = store_documents(p->box.store);
    } else if (strcmp(p->name, "memory") == 0) {
        docs = documents_memory_open();
    } else {
        char why[256];
        static int n;
        char url[128];
        snprintf(url, sizeof url, "mongodb://127.0.0.1:%d/test%d", mongo.port, n++);
        if (documents_mongo_open(&(struct mongo_options){.url = url}, &docs, why) != PFE_OK) {
            fprintf(stderr, "documents_mongo_open: %s\n", why);
            return -1;
        }
    }
    return docs ? 0 : -1;
}

static int close_place(void **state)
{
    struct place *p = *state;
    arena_reset(&arena);
    documents_close(docs);
    docs = NULL;
    if (p->engine)
        engine_close(&p->box);
    return 0;
}

static void engines_give_their_names(void **state)
{
    struct place *p = *state;
    assert_string_equal(documents_engine(docs), p->name);
    assert_int_equal(documents_probe(docs), PFE_OK);
}

/* MongoDB's alone: the store's documents share the fate of the store. */
static void a_server_that_is_gone_comes_back(void **state)
{
    (void)state;
    struct document d = sample(1, "{\"a\":1}"), back;
    struct documents_query q = {.limit = 5};
    unsigned n;
    insert(&d);
    daemon_kill(&mongo);
    assert_int_equal(documents_probe(docs), PFE_UNAVAILABLE);
    assert_int_equal(documents_get(docs, &arena, d.id, &back), PFE_UNAVAILABLE);
    assert_int_equal(documents_list(docs, &arena, &q, &back, &n), PFE_UNAVAILABLE);
    assert_int_equal(documents_insert(docs, &d), PFE_UNAVAILABLE);
    assert_int_equal(documents_remove(docs, d.id), PFE_UNAVAILABLE);
    mongo_server_up(&mongo);
    for (int i = 0; i < 20 && documents_probe(docs) != PFE_OK; i++)
        usleep(200000);
    assert_int_equal(documents_get(docs, &arena, d.id, &back), PFE_OK);
    assert_document(&back, &d);
}

static void bad_urls_are_told(void **state)
{
    (void)state;
    struct documents *d;
    char why[256];
    assert_int_equal(documents_mongo_open(&(struct mongo_options){.url = "mysql://x"}, &d, why), PFE_WRONG_STATE);
    assert_non_null(strstr(why, "MONGO_URL"));
    assert_int_equal(
        documents_mongo_open(&(struct mongo_options){.url = "mongodb://u:sesame@127.0.0.1:1/x", .timeout_ms = 300}, &d,
                             why),
        PFE_UNAVAILABLE);
    assert_null(strstr(why, "sesame"));
    assert_null(strchr(why, '\n'));
    char counters[64];
    snprintf(counters, sizeof counters, "/dev/shm/mongoc-%d", (int)getpid());
    assert_int_equal(access(counters, F_OK), -1); /* would outlive a kill -9 */
}

static void there_is_a_server(void **state)
{
    (void)state;
    print_message("no mongod and no ferretdb here: MongoDB's engine is not tested\n");
    skip();
}

int main(void)
{
    static struct place places[] = {{.name = "memory"},
                                    {.name = "sqlite", .engine = &engine_list[1]},
                                    {.name = "postgres", .engine = &engine_list[2]},
                                    {.name = "mongodb"}};
    bool served = mongo_server_start(&mongo);
    int failed = 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct place *p = &places[i];
        if (strcmp(p->name, "mongodb") == 0 && !served) {
            const struct CMUnitTest none[] = {cmocka_unit_test(there_is_a_server)};
            failed += cmocka_run_group_tests_name("mongodb", none, NULL, NULL);
            continue;
        }
#define ON(f) cmocka_unit_test_prestate_setup_teardown(f, open_place, close_place, p)
        const struct CMUnitTest tests[] = {
            ON(engines_give_their_names),
            ON(bodies_come_back_byte_for_byte),
            ON(a_large_body_comes_back),
            ON(an_id_is_taken_once),
            ON(what_is_not_there_leaves_the_output_alone),
            ON(removing_makes_room),
            ON(lists_are_newest_first_and_have_pages),
            ON(dates_bound_a_list),
            ON(text_is_found_as_it_is),
            ON(members_are_asked_for),
            ON(random_queries_agree_with_memory),
        };
        failed += cmocka_run_group_tests_name(p->name, tests, NULL, NULL);
        if (strcmp(p->name, "mongodb") == 0) {
            const struct CMUnitTest own[] = {ON(a_server_that_is_gone_comes_back)};
            failed += cmocka_run_group_tests_name("mongodb, gone", own, NULL, NULL);
        }
    }
    const struct CMUnitTest urls[] = {cmocka_unit_test(bad_urls_are_told)};
    failed += cmocka_run_group_tests_name("mongodb, URLs", urls, NULL, NULL);
    if (served)
        daemon_free(&mongo);
    return failed;
}
