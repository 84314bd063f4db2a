-- The ledger: the journal is the truth, all else is a projection of it or guards it.

CREATE TABLE journal (
    seq            INTEGER PRIMARY KEY,
    ts             INTEGER NOT NULL,
    kind           INTEGER NOT NULL,
    uuid           BLOB    NOT NULL,
    debit          INTEGER NOT NULL,
    credit         INTEGER NOT NULL,
    amount         INTEGER NOT NULL,
    currency       INTEGER NOT NULL,
    debit_balance  INTEGER NOT NULL,
    credit_balance INTEGER NOT NULL,
    debit_prev     INTEGER NOT NULL,
    credit_prev    INTEGER NOT NULL,
    ref            INTEGER NOT NULL,
    actor          INTEGER NOT NULL,
    expires_us     INTEGER NOT NULL,
    description    TEXT    NOT NULL,
    origin         TEXT    NOT NULL
) STRICT;

CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

-- One row per commit: hash = SHA-256(previous hash, canonical bytes of entries first_seq..last_seq).
CREATE TABLE seal (
    last_seq  INTEGER PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    ts        INTEGER NOT NULL,
    hash      BLOB    NOT NULL
) STRICT;

CREATE TRIGGER seal_no_update BEFORE UPDATE ON seal BEGIN SELECT RAISE(ABORT, 'seals are append-only'); END;
CREATE TRIGGER seal_no_delete BEFORE DELETE ON seal BEGIN SELECT RAISE(ABORT, 'seals are append-only'); END;

-- Which entry rolls back, captures or releases which: the primary key is the guard that it happens once.
CREATE TABLE resolution (
    seq      INTEGER PRIMARY KEY,
    resolver INTEGER NOT NULL
) STRICT;

CREATE TABLE open_hold (
    seq        INTEGER PRIMARY KEY,
    account    INTEGER NOT NULL,
    amount     INTEGER NOT NULL,
    expires_us INTEGER NOT NULL
) STRICT;
CREATE INDEX open_hold_due ON open_hold (expires_us) WHERE expires_us > 0;

-- Written behind the journal, except for the row's birth: each row reflects the journal up to its own head.
-- moves: entries that moved money; time_us: running maximum of the account's entry times.
CREATE TABLE account (
    id         INTEGER PRIMARY KEY,
    owner      INTEGER NOT NULL,
    currency   INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    flags      INTEGER NOT NULL,
    balance    INTEGER NOT NULL,
    held       INTEGER NOT NULL,
    head       INTEGER NOT NULL,
    entries    INTEGER NOT NULL,
    moves      INTEGER NOT NULL,
    time_us    INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    UNIQUE (owner, currency)
) STRICT;

-- One row per 64 entries of an account: its entry number n (n % 64 = 0), and the account as it stood then.
CREATE TABLE mark (
    account INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    ts      INTEGER NOT NULL,
    balance INTEGER NOT NULL,
    moves   INTEGER NOT NULL,
    PRIMARY KEY (account, n)
) STRICT, WITHOUT ROWID;

-- Counts and volumes by kind and currency: minute 0 is the total since the first entry, others are minutes of the
-- last day.
CREATE TABLE stat (
    kind     INTEGER NOT NULL,
    currency INTEGER NOT NULL,
    minute   INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    volume   INTEGER NOT NULL,
    PRIMARY KEY (kind, currency, minute)
) STRICT, WITHOUT ROWID;

-- What the projections reflect: 'account' and 'stat' hold a seq; 'time' and 'lag' are the newest entry time seen and
-- how far the clock ever ran behind it, in µs.
CREATE TABLE projection (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO projection (name, value) VALUES ('account', 0), ('stat', 0), ('time', 0), ('lag', 0),
    ('idempotency', 0);

-- Answers by idempotency key, appended in the commit of the effect. hash: 63 bits of SHA-256(principal, key). The index
-- is written behind, up to projection 'idempotency' (an id).
CREATE TABLE idempotency (
    id        INTEGER PRIMARY KEY,
    hash      INTEGER NOT NULL,
    principal INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    request   BLOB    NOT NULL,
    status    INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    body      BLOB    NOT NULL
) STRICT;

CREATE TABLE idempotency_index (
    hash INTEGER NOT NULL,
    id   INTEGER NOT NULL,
    PRIMARY KEY (hash, id)
) STRICT, WITHOUT ROWID;
