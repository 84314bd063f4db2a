DROP TABLE ticket_ids;
DROP TABLE inbox;
DROP TABLE outbox;
DROP TABLE booking;
DROP TABLE event;
