-- Ticketing: stock, bookings, and the messages that go out and came in. Times are wall microseconds; 0 means "none".

-- The condition on the stock stands here and in the statement that changes it: whatever was decided, no ticket is sold twice.
-- status: 0 open, 1 cancelled. What the event is about is a document under its uuid.
CREATE TABLE event (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid       BLOB    NOT NULL UNIQUE CHECK (length(uuid) = 16),
    organiser  INTEGER NOT NULL,
    capacity   INTEGER NOT NULL CHECK (capacity > 0),
    held       INTEGER NOT NULL,
    sold       INTEGER NOT NULL,
    price      INTEGER NOT NULL CHECK (price >= 0),
    currency   INTEGER NOT NULL,
    status     INTEGER NOT NULL CHECK (status IN (0, 1)),
    starts_us  INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    CONSTRAINT event_stock CHECK (held >= 0 AND sold >= 0 AND held + sold <= capacity)
) STRICT;

-- state: 0 held, 1 paying, 2 unknown, 3 confirmed, 4 cancelled, 5 expired. reason: 0 none, 1 by its user, 2 declined,
-- 3 event cancelled. buyer: the user's id, or below 0 a hash of the guest's name. hold_seq, paid_seq: journal entries.
-- Rows are never deleted. Of the indexes only booking_buyer is written at random; the others grow at their end.
CREATE TABLE booking (
    id         INTEGER PRIMARY KEY,
    uuid       BLOB    NOT NULL UNIQUE CHECK (length(uuid) = 16),
    event      INTEGER NOT NULL,
    buyer      INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    guest      TEXT    NOT NULL,
    tickets    INTEGER NOT NULL CHECK (tickets > 0),
    amount     INTEGER NOT NULL CHECK (amount >= 0),
    currency   INTEGER NOT NULL,
    state      INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
    reason     INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    hold_seq   INTEGER NOT NULL,
    paid_seq   INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT;
CREATE INDEX booking_buyer ON booking (buyer);
CREATE INDEX booking_due ON booking (expires_us) WHERE state <= 2;

-- Written in the commit of what they tell; deleted once delivered.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY,
    uuid       BLOB    NOT NULL,
    type       TEXT    NOT NULL,
    key        BLOB    NOT NULL,
    payload    TEXT    NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;

-- Which consumer has dealt with which message, written in the commit of the effect. Messages are UUIDv7: the key is in
-- order of time, and old rows are found by it.
CREATE TABLE inbox (
    message  BLOB NOT NULL CHECK (length(message) = 16),
    consumer TEXT NOT NULL,
    PRIMARY KEY (message, consumer)
) STRICT, WITHOUT ROWID;

-- The next ids. They are never given out twice, though outbox rows are deleted.
CREATE TABLE ticket_ids (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    booking INTEGER NOT NULL,
    outbox  INTEGER NOT NULL
) STRICT;
INSERT INTO ticket_ids (one, booking, outbox) VALUES (1, 1, 1);
