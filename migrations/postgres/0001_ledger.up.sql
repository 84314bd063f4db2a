-- The ledger: the journal is the truth, all else is a projection of it or guards it. Times are wall microseconds.

-- What all who write groups agree on: they lock this one row first, so that groups follow one another.
-- seal: the newest one's hash. time_us: the newest entry time seen; lag_us: how far the clock ever ran behind it.
CREATE TABLE ledger_head (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    head_seq     bigint  NOT NULL CHECK (head_seq >= 0),
    seal         bytea   NOT NULL CHECK (length(seal) = 32),
    next_account bigint  NOT NULL CHECK (next_account >= 1000),
    accounts     bigint  NOT NULL,
    time_us      bigint  NOT NULL,
    lag_us       bigint  NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
INSERT INTO ledger_head (head_seq, seal, next_account, accounts, time_us, lag_us)
VALUES (0, decode(repeat('00', 32), 'hex'), 1000, 0, 0, 0);

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;

CREATE TABLE journal (
    seq            bigint   PRIMARY KEY,
    ts             bigint   NOT NULL,
    debit          bigint   NOT NULL,
    credit         bigint   NOT NULL,
    amount         bigint   NOT NULL CHECK (amount >= 0),
    debit_balance  bigint   NOT NULL,
    credit_balance bigint   NOT NULL,
    debit_prev     bigint   NOT NULL,
    credit_prev    bigint   NOT NULL,
    ref            bigint   NOT NULL,
    actor          bigint   NOT NULL,
    expires_us     bigint   NOT NULL,
    kind           smallint NOT NULL,
    currency       smallint NOT NULL,
    uuid           bytea    NOT NULL CHECK (length(uuid) = 16),
    description    text     NOT NULL,
    origin         text     NOT NULL
) WITH (fillfactor = 100);
CREATE TRIGGER journal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- One row per commit: hash = SHA-256(previous hash, canonical bytes of entries first_seq..last_seq).
CREATE TABLE seal (
    last_seq  bigint PRIMARY KEY,
    first_seq bigint NOT NULL,
    ts        bigint NOT NULL,
    hash      bytea  NOT NULL CHECK (length(hash) = 32)
);
CREATE TRIGGER seal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seal
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- Which entry rolls back, captures or releases which: the primary key is the guard that it happens once.
CREATE TABLE resolution (
    seq      bigint PRIMARY KEY,
    resolver bigint NOT NULL
);

CREATE TABLE open_hold (
    seq        bigint PRIMARY KEY,
    account    bigint NOT NULL,
    amount     bigint NOT NULL,
    expires_us bigint NOT NULL
);
CREATE INDEX open_hold_due ON open_hold (expires_us, seq) WHERE expires_us > 0;

-- Written in the commit of its entries: a row always reflects the whole journal. moves: entries that moved money;
-- time_us: running maximum of the account's entry times. No index holds what an entry changes, so updates stay in place.
CREATE TABLE account (
    id         bigint   PRIMARY KEY,
    owner      bigint   NOT NULL,
    created_us bigint   NOT NULL,
    balance    bigint   NOT NULL,
    held       bigint   NOT NULL,
    head       bigint   NOT NULL,
    entries    bigint   NOT NULL,
    moves      bigint   NOT NULL,
    time_us    bigint   NOT NULL,
    updated_us bigint   NOT NULL,
    currency   smallint NOT NULL,
    flags      smallint NOT NULL,
    UNIQUE (owner, currency),
    CHECK ((owner = 0) = (id < 1000)),
    CHECK (owner = 0 OR (held >= 0 AND balance >= held))
) WITH (fillfactor = 50);

-- One row per 64 entries of an account: its entry number n (n % 64 = 0), and the account as it stood then.
CREATE TABLE mark (
    account bigint NOT NULL,
    n       bigint NOT NULL,
    seq     bigint NOT NULL,
    ts      bigint NOT NULL,
    balance bigint NOT NULL,
    moves   bigint NOT NULL,
    PRIMARY KEY (account, n)
);
-- For verification, which reads the marks along with the journal.
CREATE INDEX mark_seq ON mark (seq);

-- Counts and volumes by kind and currency: minute 0 is the total since the first entry, others are minutes of the
-- last day.
CREATE TABLE stat (
    kind     smallint NOT NULL,
    currency smallint NOT NULL,
    minute   bigint   NOT NULL,
    count    bigint   NOT NULL,
    volume   bigint   NOT NULL,
    PRIMARY KEY (kind, currency, minute)
) WITH (fillfactor = 25);

-- Answers by idempotency key, inserted in the commit of the effect. principal: a user's id, 0 anonymous, -1 the scheduler.
CREATE TABLE idempotency (
    principal bigint NOT NULL,
    key       bytea  NOT NULL,
    request   bytea  NOT NULL CHECK (length(request) = 32),
    status    bigint NOT NULL,
    seq       bigint NOT NULL,
    body      bytea  NOT NULL,
    PRIMARY KEY (principal, key)
);

-- Proof that a group without entries (answers, opened accounts) was committed, for a writer that did not hear so. Those
-- with entries have their seal. Swept after a day.
CREATE TABLE receipt (
    id bytea  PRIMARY KEY CHECK (length(id) = 16),
    ts bigint NOT NULL
);
