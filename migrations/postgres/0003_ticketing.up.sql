-- Ticketing: stock, bookings, and the messages that go out and came in. Times are wall microseconds; 0 means "none".

ALTER TABLE record_ids ADD COLUMN event bigint NOT NULL DEFAULT 0;

-- The condition on the stock stands here and in the statement that changes it: whatever was decided, no ticket is sold twice.
-- status: 0 open, 1 cancelled. What the event is about is a document under its uuid.
CREATE TABLE event (
    id         bigint PRIMARY KEY,
    uuid       bytea  NOT NULL UNIQUE CHECK (length(uuid) = 16),
    organiser  bigint NOT NULL,
    capacity   bigint NOT NULL CHECK (capacity > 0),
    held       bigint NOT NULL,
    sold       bigint NOT NULL,
    price      bigint NOT NULL CHECK (price >= 0),
    currency   bigint NOT NULL,
    status     bigint NOT NULL CHECK (status IN (0, 1)),
    starts_us  bigint NOT NULL,
    created_us bigint NOT NULL,
    CONSTRAINT event_stock CHECK (held >= 0 AND sold >= 0 AND held + sold <= capacity)
) WITH (fillfactor = 25);

-- state: 0 held, 1 paying, 2 unknown, 3 confirmed, 4 cancelled, 5 expired. reason: 0 none, 1 by its user, 2 declined,
-- 3 event cancelled. buyer: the user's id, or below 0 a hash of the guest's name. hold_seq, paid_seq: journal entries.
-- Rows are never deleted. Of the indexes only booking_buyer is written at random; the others grow at their end.
CREATE TABLE booking (
    id         bigint PRIMARY KEY,
    uuid       bytea  NOT NULL UNIQUE CHECK (length(uuid) = 16),
    event      bigint NOT NULL,
    buyer      bigint NOT NULL,
    user_id    bigint NOT NULL,
    guest      text   NOT NULL,
    tickets    bigint NOT NULL CHECK (tickets > 0),
    amount     bigint NOT NULL CHECK (amount >= 0),
    currency   bigint NOT NULL,
    state      bigint NOT NULL CHECK (state BETWEEN 0 AND 5),
    reason     bigint NOT NULL,
    version    bigint NOT NULL,
    hold_seq   bigint NOT NULL,
    paid_seq   bigint NOT NULL,
    expires_us bigint NOT NULL,
    created_us bigint NOT NULL,
    updated_us bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX booking_buyer ON booking (buyer, id);
CREATE INDEX booking_due ON booking (expires_us, id) WHERE state <= 2;

-- Written in the commit of what they tell; deleted once delivered. Ids are in the order of commits.
CREATE TABLE outbox (
    id         bigint PRIMARY KEY,
    uuid       bytea  NOT NULL CHECK (length(uuid) = 16),
    type       text   NOT NULL,
    key        bytea  NOT NULL,
    payload    text   NOT NULL,
    created_us bigint NOT NULL
);

-- Which consumer has dealt with which message, written in the commit of the effect. Messages are UUIDv7: the key is in
-- order of time, and old rows are found by it.
CREATE TABLE inbox (
    message  bytea NOT NULL CHECK (length(message) = 16),
    consumer text  NOT NULL,
    PRIMARY KEY (message, consumer)
);

-- The next ids, changed under the lock on ledger_head only. They are never given out twice, though outbox rows are deleted.
CREATE TABLE ticket_ids (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    booking bigint  NOT NULL,
    outbox  bigint  NOT NULL
) WITH (fillfactor = 10);
INSERT INTO ticket_ids (booking, outbox) VALUES (1, 1);
