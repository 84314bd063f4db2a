-- Everything that is not money: who there is, what they hold to prove it, what is to run when, and who did what.
-- Times are wall microseconds; 0 means "never" or "none". Rows are never deleted: states say what is over.

-- The newest ids. A row and not sequences: ids stay without gaps when a transaction is rolled back or the server crashes,
-- and they become visible in their order, so that who reads on after an id misses nothing. Who writes records locks it first.
CREATE TABLE record_ids (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    users    bigint  NOT NULL,
    api_key  bigint  NOT NULL,
    schedule bigint  NOT NULL,
    audit    bigint  NOT NULL
) WITH (fillfactor = 10);
INSERT INTO record_ids (users, api_key, schedule, audit) VALUES (0, 0, 0, 0);

-- status: 0 active, 1 closing, 2 deleted. The folded forms are what uniqueness is judged on (ASCII lower case).
CREATE TABLE users (
    id            bigint PRIMARY KEY,
    uuid          bytea  NOT NULL UNIQUE CHECK (length(uuid) = 16),
    username      text   NOT NULL,
    username_fold text   NOT NULL,
    email         text   NOT NULL,
    email_fold    text   NOT NULL,
    password_hash text   NOT NULL,
    role          bigint NOT NULL CHECK (role IN (0, 1)),
    status        bigint NOT NULL CHECK (status IN (0, 1, 2)),
    created_us    bigint NOT NULL,
    updated_us    bigint NOT NULL
);
CREATE UNIQUE INDEX users_username ON users (username_fold) WHERE status <> 2;
CREATE UNIQUE INDEX users_email ON users (email_fold) WHERE status <> 2;
CREATE INDEX users_admin ON users (role) WHERE role = 1 AND status = 0;

CREATE TABLE api_key (
    id           bigint PRIMARY KEY,
    user_id      bigint NOT NULL,
    hash         bytea  NOT NULL UNIQUE CHECK (length(hash) = 32),
    prefix       text   NOT NULL,
    created_us   bigint NOT NULL,
    last_used_us bigint NOT NULL,
    revoked_us   bigint NOT NULL
);
CREATE INDEX api_key_live ON api_key (user_id, id) WHERE revoked_us = 0;

CREATE TABLE session (
    family     bytea  PRIMARY KEY CHECK (length(family) = 16),
    user_id    bigint NOT NULL,
    created_us bigint NOT NULL,
    expires_us bigint NOT NULL,
    revoked_us bigint NOT NULL
);
CREATE INDEX session_live ON session (user_id) WHERE revoked_us = 0;

CREATE TABLE refresh (
    hash       bytea  PRIMARY KEY CHECK (length(hash) = 32),
    family     bytea  NOT NULL CHECK (length(family) = 16),
    created_us bigint NOT NULL,
    expires_us bigint NOT NULL,
    used_us    bigint NOT NULL
);

-- status: 0 pending, 1 active, 2 completed, 3 cancelled, 4 failed.
CREATE TABLE schedule (
    id          bigint PRIMARY KEY,
    uuid        bytea  NOT NULL UNIQUE CHECK (length(uuid) = 16),
    owner       bigint NOT NULL,
    kind        bigint NOT NULL,
    to_user     bigint NOT NULL,
    amount      bigint NOT NULL,
    currency    bigint NOT NULL,
    description text   NOT NULL,
    recurrence  text   NOT NULL,
    anchor_us   bigint NOT NULL,
    next_us     bigint NOT NULL,
    end_us      bigint NOT NULL,
    last_us     bigint NOT NULL,
    max_runs    bigint NOT NULL,
    runs        bigint NOT NULL,
    refusals    bigint NOT NULL,
    status      bigint NOT NULL CHECK (status BETWEEN 0 AND 4),
    last_error  text   NOT NULL,
    created_us  bigint NOT NULL,
    updated_us  bigint NOT NULL
);
CREATE INDEX schedule_owner ON schedule (owner, id);
CREATE INDEX schedule_due ON schedule (next_us, id) WHERE status <= 1 AND next_us > 0;

-- outcome: 0 done, 1 refused, 2 skipped. The key is what makes a due run happen once.
CREATE TABLE schedule_run (
    schedule bigint NOT NULL,
    due_us   bigint NOT NULL,
    outcome  bigint NOT NULL CHECK (outcome IN (0, 1, 2)),
    seq      bigint NOT NULL,
    ts       bigint NOT NULL,
    error    text   NOT NULL,
    PRIMARY KEY (schedule, due_us)
);

CREATE TABLE audit (
    id         bigint PRIMARY KEY,
    ts         bigint NOT NULL,
    actor      bigint NOT NULL,
    action     text   NOT NULL,
    entity     text   NOT NULL,
    entity_id  text   NOT NULL,
    outcome    text   NOT NULL,
    address    text   NOT NULL,
    request_id text   NOT NULL,
    detail     text   NOT NULL
);
-- Each ends in the row's id, so a filtered list is read newest first without sorting.
CREATE INDEX audit_actor ON audit (actor, id);
CREATE INDEX audit_action ON audit (action, id);
CREATE INDEX audit_entity ON audit (entity, id);
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
