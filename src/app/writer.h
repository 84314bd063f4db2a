/* writer: what the files of the ledger writer share. All of it is the writer thread's own unless it says otherwise. */
#ifndef APP_WRITER_H
#define APP_WRITER_H

#include "app/bookings.h"
#include "app/internal.h"
#include "base/buf.h"
#include "base/map.h"

struct undo {
    unsigned slot;
    struct store_slot before;
};

struct event_facts { /* what never changes about an event */
    int64_t id, organiser;
    bool costs;
    money_currency currency;
};
enum { EVENT_FACTS_MAX = 32768 }; /* half of it holds those of any group */

/* The group's events, bookings and messages (writer_bookings.c). */
struct writer_tickets {
    struct map_str id_of;    /* an event's uuid -> its id */
    struct map_u64 facts_of; /* an event's id -> facts; forgotten when half full */
    struct event_facts facts[EVENT_FACTS_MAX];
    size_t n_facts;

    struct map_u64 event_slot_of, booking_slot_of, inbox_slot_of;
    int64_t *events, *bookings;
    struct store_event_slot *event_slots;
    struct store_booking_slot *booking_slots;
    struct store_inbox_ref *asked; /* the messages that came with the group */
    bool *seen;                    /* dealt with, before or in this group */
    size_t n_events, cap_events, n_bookings, cap_bookings, n_asked, cap_asked;
    struct ticket_booking *created;
    struct store_message *outbox;
    struct store_inbox_ref *inbox; /* to be noted */
    size_t n_created, cap_created, n_outbox, cap_outbox, n_inbox, cap_inbox;
    struct store_outbox_ref *delivered; /* messages to delete */
    size_t n_delivered, cap_delivered;
    struct store_ref *refs; /* scratch of the look-ups */
    struct ticket_booking *found_bookings;
    struct ticket_event *found_events;
    size_t cap_refs, cap_found_bookings, cap_found_events;
    struct buf json;
    int64_t now_us, first_booking;
    enum pf_err unknown; /* the look-ups failed */
    struct metric_counter *by_state[TICKET_STATES];
};

#define WRITER_TURN_KEY "lock:event:"

struct writer_turn { /* an event's lock, while a group is at it (writer_turn.c) */
    bool held;
    char key[sizeof WRITER_TURN_KEY + 36], holder[CACHE_LOCK_LEN + 1];
    struct metric_counter *mine, *late, *none;
};

struct writer {
    struct app *a;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct job *first, *last;
    _Atomic size_t queued; /* movements, at least 1 a job; changes under the lock */
    bool stop;
    _Atomic bool dead;
    bool replayed; /* in this group something was done before; the thread's own */
    bool full;     /* the last group had no room; the thread's own */
    bool alone;    /* the last group was one job; the thread's own */
    bool lingers;  /* there are processors enough */

    /* the thread's own, reused from group to group */
    struct arena arena;
    struct map_u64 slot_of; /* owner and currency -> slot */
    struct store_key *keys;
    struct store_slot *slots;
    size_t n_keys, cap_keys;
    struct ledger_entry *entries;
    size_t n_entries, cap_entries;
    struct store_idem *idem;
    size_t n_idem, cap_idem;
    struct store_idem_ref *asked; /* the keys that came with the group */
    size_t n_asked, cap_asked;
    struct store_fence *fences; /* what jobs of the group are done under */
    size_t n_fences, cap_fences;
    struct undo *undo;
    size_t n_undo, cap_undo;
    int64_t *refs; /* entries to be resolved, of a shared store; and what the group then says resolves them */
    int64_t *resolved_by;
    size_t n_refs, cap_refs, cap_resolved_by;
    int64_t *resolved; /* entries resolved by this group */
    size_t n_resolved, cap_resolved;
    int64_t first_seq, ts;
    struct writer_tickets *t;
    struct writer_turn turn;

    _Atomic uint64_t groups, jobs, total_entries, refused;
    _Atomic int64_t last_commit_us;
    struct metric_histogram *h_batch, *h_commit, *h_wait;
    struct metric_counter *by_kind[LEDGER_KIND_MAX + 1][1000];
    struct metric_counter *volume[LEDGER_KIND_MAX + 1][1000];
};

/* Room for `want` elements; false: out of memory, unchanged. */
bool writer_grow(void **p, size_t *cap, size_t want, size_t size) MUSTCHECK;
/* Sets j->live when there is something to decide, else j->err or what was answered before. Adds what the job needs to
   what the group will ask for. */
void writer_gather(struct writer *w, struct job *j);
/* Inside a group of a shared store, where others may have come first until it began. */
void writer_look_again(struct writer *w, struct job *j);
/* Inside a group: the job fails if another instance does it by now. */
void writer_fence_off(const struct writer *w, struct job *j);
/* The slot of an account in the group that is being gathered. */
enum pf_err writer_slot_for(struct writer *w, int64_t owner, money_currency currency, unsigned *ret) MUSTCHECK;
/* Decides a movement whose slots are known, as the next entry of the group. */
enum pf_err writer_decide(struct writer *w, int64_t actor, struct movement *m) MUSTCHECK;
/* Takes entries back, to where the group stood; w->n_undo was 0 there. */
void writer_undo(struct writer *w, size_t entries, size_t resolved);

void writer_turn_init(struct writer *w, struct metrics *m);
/* Before a group with a booking begins, if cfg.booking_lock_us says so: waits for its turn, 50 ms at most. */
void writer_turn_take(struct writer *w, const struct job *list);
void writer_turn_give(struct writer *w); /* when the group is over */

/* After the commit, or when it may have happened: drops what is cached of the group's accounts and resolved entries.
   false: other instances may still answer what was. */
bool writer_forget_cached(struct writer *w) MUSTCHECK;
/* Into the metrics. */
void writer_count_entries(struct writer *w);

struct writer_tickets *writer_tickets_new(struct metrics *m); /* NULL: out of memory */
void writer_tickets_free(struct writer_tickets *t);           /* NULL is allowed */
/* A new group: forgets the last, and looks up what its commands name. */
void writer_tickets_begin(struct writer *w, struct job *list);
/* What one command needs of the group. PFE_NOMEM, PFE_BUSY, PFE_UNAVAILABLE: the job fails; others are the command's.
 */
enum pf_err writer_tickets_gather(struct writer *w, struct booking *b) MUSTCHECK;
void writer_tickets_ask(struct writer *w, struct store_group_ask *ask, struct store_group *g);
/* Decides the job's commands, each for itself. */
void writer_tickets_decide(struct writer *w, struct job *j);
/* Adds the messages that the job says are delivered. PFE_NOMEM. */
enum pf_err writer_tickets_delivered(struct writer *w, const struct job *j) MUSTCHECK;
/* What the group changed; false: nothing. */
bool writer_tickets_commit(struct writer *w, struct store_commit *c);
void writer_tickets_count(struct writer *w); /* after the commit: into the metrics, and the relay is woken */

#endif
