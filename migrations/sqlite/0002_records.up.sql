-- Everything that is not money: who there is, what they hold to prove it, what is to run when, and who did what.
-- Times are wall microseconds; 0 means "never" or "none". Rows are never deleted: states say what is over.

-- status: 0 active, 1 closing, 2 deleted. The folded forms are what uniqueness is judged on (ASCII lower case).
CREATE TABLE user (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid          BLOB    NOT NULL UNIQUE CHECK (length(uuid) = 16),
    username      TEXT    NOT NULL,
    username_fold TEXT    NOT NULL,
    email         TEXT    NOT NULL,
    email_fold    TEXT    NOT NULL,
    password_hash TEXT    NOT NULL,
    role          INTEGER NOT NULL CHECK (role IN (0, 1)),
    status        INTEGER NOT NULL CHECK (status IN (0, 1, 2)),
    created_us    INTEGER NOT NULL,
    updated_us    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX user_username ON user (username_fold) WHERE status <> 2;
CREATE UNIQUE INDEX user_email ON user (email_fold) WHERE status <> 2;
CREATE INDEX user_admin ON user (role) WHERE role = 1 AND status = 0;

CREATE TABLE api_key (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    user         INTEGER NOT NULL,
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    prefix       TEXT    NOT NULL,
    created_us   INTEGER NOT NULL,
    last_used_us INTEGER NOT NULL,
    revoked_us   INTEGER NOT NULL
) STRICT;
CREATE INDEX api_key_live ON api_key (user) WHERE revoked_us = 0;

CREATE TABLE session (
    family     BLOB    PRIMARY KEY CHECK (length(family) = 16),
    user       INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    revoked_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_live ON session (user) WHERE revoked_us = 0;

CREATE TABLE refresh (
    hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    family     BLOB    NOT NULL CHECK (length(family) = 16),
    created_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    used_us    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- status: 0 pending, 1 active, 2 completed, 3 cancelled, 4 failed.
CREATE TABLE schedule (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid        BLOB    NOT NULL UNIQUE CHECK (length(uuid) = 16),
    owner       INTEGER NOT NULL,
    kind        INTEGER NOT NULL,
    to_user     INTEGER NOT NULL,
    amount      INTEGER NOT NULL,
    currency    INTEGER NOT NULL,
    description TEXT    NOT NULL,
    recurrence  TEXT    NOT NULL,
    anchor_us   INTEGER NOT NULL,
    next_us     INTEGER NOT NULL,
    end_us      INTEGER NOT NULL,
    last_us     INTEGER NOT NULL,
    max_runs    INTEGER NOT NULL,
    runs        INTEGER NOT NULL,
    refusals    INTEGER NOT NULL,
    status      INTEGER NOT NULL CHECK (status BETWEEN 0 AND 4),
    last_error  TEXT    NOT NULL,
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL
) STRICT;
CREATE INDEX schedule_owner ON schedule (owner);
CREATE INDEX schedule_due ON schedule (next_us) WHERE status <= 1 AND next_us > 0;

-- outcome: 0 done, 1 refused, 2 skipped. The key is what makes a due run happen once.
CREATE TABLE schedule_run (
    schedule INTEGER NOT NULL,
    due_us   INTEGER NOT NULL,
    outcome  INTEGER NOT NULL CHECK (outcome IN (0, 1, 2)),
    seq      INTEGER NOT NULL,
    ts       INTEGER NOT NULL,
    error    TEXT    NOT NULL,
    PRIMARY KEY (schedule, due_us)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY,
    ts         INTEGER NOT NULL,
    actor      INTEGER NOT NULL,
    action     TEXT    NOT NULL,
    entity     TEXT    NOT NULL,
    entity_id  TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    detail     TEXT    NOT NULL
) STRICT;
-- Each ends in the row's id, so a filtered list is read newest first without sorting.
CREATE INDEX audit_actor ON audit (actor);
CREATE INDEX audit_action ON audit (action);
CREATE INDEX audit_entity ON audit (entity);

CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit is append-only');
END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit is append-only');
END;
-- INSERT OR REPLACE deletes without firing the trigger above.
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'audit is append-only');
END;
