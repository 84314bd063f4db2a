/*
 * faulty_disk: a disk in memory behind SQLite's file layer, which knows what was synced and can fail or lose power.
 *
 * Once installed, every SQLite file of this process lives on it, found by its path; an empty file of the same name
 * stands in the real directory for what looks there by other means. The process goes on after a power failure: what
 * would have survived is copied to another directory, and is opened there.
 *
 *  - A write is visible at once and durable only after a sync of its file. A sync that fails makes some of what waited
 *    durable and the rest never, as on Linux, where the next sync then succeeds.
 *  - A file that was made or deleted stays so only after the directory was synced, which SQLite does with the first
 *    sync of a journal or WAL.
 *  - A write that fails leaves a part of itself behind.
 *
 * Thread-safe, but plans are set while nothing runs.
 */
#ifndef TESTS_FAULTY_DISK_H
#define TESTS_FAULTY_DISK_H

#include <stdbool.h>
#include <stdint.h>

enum disk_op { DISK_WRITE = 1, DISK_SYNC = 2, DISK_TRUNCATE = 4 };
enum disk_kind { DISK_DB = 1, DISK_WAL = 2, DISK_JOURNAL = 4, DISK_ANY = 7 };

/* What goes wrong in one directory. All zero: nothing. */
struct disk_plan {
    const char *dir; /* borrowed */
    enum disk_op op;
    int kinds;           /* of enum disk_kind */
    long at;             /* the first to fail: 1, 2 … */
    bool forever;        /* and all after it */
    enum disk_kind only; /* the first of this kind from there on; 0: of any of kinds */
    int rc, os;          /* SQLite's code and errno */
    /* Called, if set, when each operation is under way: after a write or truncate, before a sync takes effect. */
    void (*watch)(void *ctx, enum disk_op op, long nth);
    void *watch_ctx;
    /* set by the disk */
    long seen[5]; /* by enum disk_op, of those kinds */
    bool failed;
};

enum disk_loss {
    DISK_KEEP,   /* the process died: all that was written is there */
    DISK_DROP,   /* the power failed: only what was synced */
    DISK_SUBSET, /* and any of the other writes, whole or any of their sectors of 512 bytes */
    DISK_TORN,   /* all writes, but of the very last only its first sectors */
    DISK_LOSSES
};

/* Makes it SQLite's file layer. 0: done. */
int disk_install(void);
/* p is borrowed until the next call; NULL: nothing fails. */
void disk_set_plan(struct disk_plan *p);
/* Connections opened from now on run with synchronous=OFF, whatever they ask for. */
void disk_sync_off(bool off);
/* Of all that is left to chance, SQLite's own randomness included. */
void disk_seed(uint64_t seed);
/* Forgets what is in `to` and puts there what survives of `from`. Both exist as directories. */
void disk_crash(const char *from, const char *to, enum disk_loss loss);
/* Forgets the files of a directory, which nobody has open. */
void disk_forget(const char *dir);
#endif
