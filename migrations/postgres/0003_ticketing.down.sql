DROP TABLE ticket_ids;
DROP TABLE inbox;
DROP TABLE outbox;
DROP TABLE booking;
DROP TABLE event;
ALTER TABLE record_ids DROP COLUMN event;
