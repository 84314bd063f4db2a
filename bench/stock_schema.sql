-- What the peers of booking write to: an event's stock, and bookings as GoTicketra keeps them.
CREATE TABLE hot_event (
    id        bigint PRIMARY KEY,
    available bigint NOT NULL CHECK (available >= 0)
);
CREATE TABLE hot_booking (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    text NOT NULL,
    event_id   bigint NOT NULL REFERENCES hot_event,
    tickets    bigint NOT NULL,
    status     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO hot_event VALUES (1, 1000000000);
