/* What processes say to each other about their caches: port/store.h, store_word_say. */
#include "store/postgres/internal.h"

/* All in one statement, hence one moment: our word is written, and what the others have said by then is read. Words
   that count no more are removed. Time is the server's, so no clocks are compared. */
enum pf_err pg_word_say(struct store *st, const char *process, const char *word, struct store_words *ret)
{
    struct pg_q q;
    struct store_words w = {0};
    pg_read_begin(&q, pg_of(st), PG_FROM_PRIMARY,
                  "WITH gone AS (DELETE FROM cache_word WHERE process <> $1 AND said < now() - $3 * interval '1 us'),"
                  " before AS (SELECT 1 FROM cache_word WHERE process = $1 AND said >= now() - $3 * interval '1 us'),"
                  " ours AS (INSERT INTO cache_word (process, word, said) VALUES ($1, $2, now())"
                  " ON CONFLICT (process) DO UPDATE SET word = excluded.word, said = excluded.said)"
                  " SELECT count(*), count(*) FILTER (WHERE word <> $2), count(*) FILTER (WHERE word <> ''),"
                  " NOT EXISTS (SELECT 1 FROM before)"
                  " FROM cache_word WHERE process <> $1 AND said >= now() - $3 * interval '1 us'");
    pg_q_str(&q, str_c(process));
    pg_q_str(&q, str_c(word));
    pg_q_i64(&q, STORE_WORD_US);
    if (pg_q_next(&q)) {
        w.others = (unsigned)pg_col_i64(&q, 0);
        w.apart = (unsigned)pg_col_i64(&q, 1);
        w.speaking = (unsigned)pg_col_i64(&q, 2);
        w.fresh = pg_col_bool(&q, 3);
    }
    enum pf_err e = pg_q_end(&q);
    if (e == PFE_OK)
        *ret = w;
    return e;
}

void pg_word_end(struct store *st, const char *process)
{
    struct pg_q q;
    pg_read_begin(&q, pg_of(st), PG_FROM_PRIMARY, "DELETE FROM cache_word WHERE process = $1");
    pg_q_str(&q, str_c(process));
    (void)!pg_q_run(&q); /* it runs out by itself */
}
